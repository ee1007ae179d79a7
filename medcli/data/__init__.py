"""Manifests, data sets, patient-level splits, synthetic sample data."""
