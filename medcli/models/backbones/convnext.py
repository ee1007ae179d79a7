"""Convolutional networks with the macro design of transformers.

References
----------
Liu et al.: A ConvNet for the 2020s, CVPR 2022.
"""

from __future__ import annotations

from torch import nn
from torchvision.models import convnext

from medcli.models.backbones.base import SMALL_INPUT, Backbone, first_convolution


def convnext_tiny(channels: int, size: int) -> Backbone:
    """ConvNeXt-Tiny, 27.8 M parameters, with its last normalisation before the pooling."""
    net = convnext.convnext_tiny()
    side = 2 if size <= SMALL_INPUT else 4
    net.features[0][0] = first_convolution(net.features[0][0], channels, side=side, stride=side)
    norm = net.classifier[0]
    return Backbone(nn.Sequential(*net.features, norm), norm.normalized_shape[0])
