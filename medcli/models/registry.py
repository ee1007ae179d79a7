"""Names → builders, readable without importing torch."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Collection, Mapping
from typing import Any

from medcli.config import NO_AGGREGATOR
from medcli.errors import UsageError

BACKBONES: Mapping[str, str] = {
    "resnet18": "medcli.models.backbones.resnet:resnet18",
    "resnet18_half": "medcli.models.backbones.resnet:resnet18_half",
    "resnet50": "medcli.models.backbones.resnet:resnet50",
    "densenet121": "medcli.models.backbones.densenet:densenet121",
    "efficientnet_b0": "medcli.models.backbones.efficientnet:efficientnet_b0",
    "convnext_tiny": "medcli.models.backbones.convnext:convnext_tiny",
    "mobilenet_v3_small": "medcli.models.backbones.mobilenet:mobilenet_v3_small",
    "mobilenet_v3_large": "medcli.models.backbones.mobilenet:mobilenet_v3_large",
    "cnn_lrn": "medcli.models.backbones.classical:cnn_lrn",
    "cnn_lrn_average": "medcli.models.backbones.classical:cnn_lrn_average",
    "cnn_lrn_sum": "medcli.models.backbones.classical:cnn_lrn_sum",
    "perceptron": "medcli.models.backbones.linear:perceptron",
}

# Networks that see a stack as one volume, and have no aggregator.
VOLUMES: Mapping[str, str] = {
    "r3d_18": "medcli.models.backbones.video:r3d_18",
    "r3d_18_half": "medcli.models.backbones.video:r3d_18_half",
}

# Networks for a crop around one finding: they see its region alone, and measure it.
REGIONS: Mapping[str, str] = {
    "region_cnn": "medcli.models.backbones.region:region_cnn",
    "region_measures": "medcli.models.backbones.region:region_measures",
}

ARCHITECTURES: Mapping[str, str] = {**BACKBONES, **VOLUMES, **REGIONS}

# Those for which torchvision has weights trained on ImageNet.
IMAGENET = (
    *("resnet18", "resnet50", "densenet121", "efficientnet_b0", "convnext_tiny"),
    *("mobilenet_v3_small", "mobilenet_v3_large"),
)

AGGREGATORS: Mapping[str, str] = {
    "attention": "medcli.layers.attention:GatedAttention",
    "mean": "medcli.layers.pooling:MeanOverSlices",
    "max": "medcli.layers.pooling:MaxOverSlices",
    "sum": "medcli.layers.pooling:SumOverSlices",
    "rnn": "medcli.layers.recurrent:rnn",
    "rnn_bidirectional": "medcli.layers.recurrent:rnn_bidirectional",
    "lstm": "medcli.layers.recurrent:lstm",
    "lstm_bidirectional": "medcli.layers.recurrent:lstm_bidirectional",
    "transformer": "medcli.layers.transformer:Transformer",
}


def check_name(registry: Collection[str], kind: str, name: str) -> None:
    """Raise where nothing is registered under `name`, before the long work.

    Raises
    ------
    UsageError : no such name; the hint offers the nearest one
    """
    if name not in registry:
        near = difflib.get_close_matches(name, registry, n=1)
        meant = f"Did you mean {near[0]}? " if near else ""
        raise UsageError(f"unknown {kind} {name!r}", f"{meant}Known: {', '.join(sorted(registry))}")


def check_network(arch: str, aggregator: str) -> None:
    """Raise where backbone or aggregator are unknown, or do not go together.

    Raises
    ------
    UsageError : no such name, an aggregator for a network that sees the volume as one, or none
        for one that sees slices
    """
    check_name(ARCHITECTURES, "architecture", arch)
    if arch not in VOLUMES:
        check_name(AGGREGATORS, "aggregator", aggregator)
    elif aggregator != NO_AGGREGATOR:
        raise UsageError(
            f"{arch} sees the slices of a volume together: it goes with no aggregator",
            "Leave --aggregator out",
        )


def resolve(registry: Mapping[str, str], kind: str, name: str) -> Callable[..., Any]:
    """The builder registered under `name`.

    Raises
    ------
    UsageError : no such name; the hint offers the nearest one
    """
    check_name(registry, kind, name)
    module, _, attribute = registry[name].partition(":")
    builder: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    return builder
