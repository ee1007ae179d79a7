"""Densely connected networks, the usual backbone for chest radiographs.

References
----------
Huang et al.: Densely Connected Convolutional Networks, CVPR 2017.
Rajpurkar et al.: CheXNet, arXiv 1711.05225.
"""

from __future__ import annotations

from torch import nn
from torchvision.models import densenet

from medcli.models.backbones.base import SMALL_INPUT, Backbone, first_convolution


def densenet121(channels: int, size: int) -> Backbone:
    """DenseNet-121, 6.9 M parameters."""
    layers = densenet.densenet121().features
    small = size <= SMALL_INPUT
    layers.conv0 = first_convolution(layers.conv0, channels, side=3 if small else 7)
    if small:
        layers.pool0 = nn.Identity()
    num_features = layers.norm5.num_features
    layers.add_module("relu5", nn.ReLU(inplace=True))
    return Backbone(layers, num_features)
