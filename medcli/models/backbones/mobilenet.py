"""Small networks for phones and processors.

References
----------
Howard et al.: Searching for MobileNetV3, ICCV 2019.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import nn
from torchvision.models import mobilenetv3

from medcli.models.backbones.base import SMALL_INPUT, Backbone, first_convolution

# torchvision's average over batches moves by a hundredth, for runs of many thousand batches;
# after the few hundred of a small set it would still stand near its start.
NORM = partial(nn.BatchNorm2d, eps=0.001, momentum=0.1)


def mobilenet_v3_small(channels: int, size: int) -> Backbone:
    """MobileNetV3-Small, 0.9 M parameters; divides the side by 32 at any size."""
    net = mobilenetv3.mobilenet_v3_small(norm_layer=NORM)
    first = net.features[0][0]
    stem = nn.Conv2d(channels, first.out_channels, 3, stride=2, padding=1, bias=False)
    nn.init.kaiming_normal_(stem.weight, mode="fan_out")
    net.features[0][0] = stem
    with torch.no_grad():
        num_features = net.features.eval()(torch.zeros(1, channels, size, size)).shape[1]
    return Backbone(net.features.train(), int(num_features))


def mobilenet_v3_large(channels: int, size: int) -> Backbone:
    """MobileNetV3-Large, 3.0 M parameters."""
    layers = mobilenetv3.mobilenet_v3_large(norm_layer=NORM).features
    stride = 1 if size <= SMALL_INPUT else 2
    layers[0][0] = first_convolution(layers[0][0], channels, stride=stride)
    return Backbone(layers, layers[-1].out_channels)
