"""Assemblies: registry, backbones, scan model, model package, export."""
