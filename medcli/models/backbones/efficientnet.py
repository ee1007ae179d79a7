"""Networks scaled evenly in depth, width and side.

References
----------
Tan, Le: EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, ICML 2019.
"""

from __future__ import annotations

from torchvision.models import efficientnet

from medcli.models.backbones.base import SMALL_INPUT, Backbone, first_convolution


def efficientnet_b0(channels: int, size: int) -> Backbone:
    """EfficientNet-B0, 4.0 M parameters."""
    layers = efficientnet.efficientnet_b0().features
    stride = 1 if size <= SMALL_INPUT else 2
    layers[0][0] = first_convolution(layers[0][0], channels, stride=stride)
    return Backbone(layers, layers[-1].out_channels)
