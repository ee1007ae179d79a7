"""CNN backbones from torchvision, without their classifiers.

Each takes (N, C, H, W) and gives a feature map (N, F, h, w); `num_features` is F.
The stems of torchvision's networks divide the side by four before the first
block, made for 224 px. Inputs up to `SMALL_INPUT` px get a 3 × 3 stem of stride 2
and no pooling, so that a nodule of ten pixels is still five wide there.

References
----------
He et al.: Deep Residual Learning for Image Recognition, CVPR 2016.
Howard et al.: Searching for MobileNetV3, ICCV 2019.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torchvision.models import mobilenetv3
from torchvision.models.resnet import BasicBlock, ResNet

SMALL_INPUT = 80


class Backbone(nn.Module):
    """(N, C, H, W) → (N, F, h, w), with F in `num_features`."""

    def __init__(self, layers: nn.Module, num_features: int) -> None:
        super().__init__()
        self.layers = layers
        self.num_features = num_features

    def forward(self, images: Tensor) -> Tensor:
        """The last feature map."""
        return cast(Tensor, self.layers(images))


def _resnet(blocks: list[int], width: int, channels: int, size: int) -> Backbone:
    """A ResNet of basic blocks whose stages are `width`, 2, 4 and 8 × `width` wide."""
    net = ResNet(BasicBlock, blocks)
    net.inplanes = width
    stages = [
        net._make_layer(BasicBlock, width * 2**stage, count, stride=1 if stage == 0 else 2)
        for stage, count in enumerate(blocks)
    ]
    if size <= SMALL_INPUT:
        stem: list[nn.Module] = [nn.Conv2d(channels, width, 3, 2, 1, bias=False)]
    else:
        stem = [nn.Conv2d(channels, width, 7, 2, 3, bias=False)]
    stem += [nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
    if size > SMALL_INPUT:
        stem.append(nn.MaxPool2d(3, 2, 1))
    layers = nn.Sequential(*stem, *stages)
    for module in layers.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return Backbone(layers, width * 8)


def resnet18(channels: int, size: int) -> Backbone:
    """ResNet-18, 11.2 M parameters."""
    return _resnet([2, 2, 2, 2], 64, channels, size)


def resnet18_half(channels: int, size: int) -> Backbone:
    """ResNet-18 at half the width: a quarter of the arithmetic, 2.8 M parameters."""
    return _resnet([2, 2, 2, 2], 32, channels, size)


def mobilenet_v3_small(channels: int, size: int) -> Backbone:
    """MobileNetV3-Small, 0.9 M parameters."""
    net = mobilenetv3.mobilenet_v3_small()
    first = net.features[0][0]
    stem = nn.Conv2d(channels, first.out_channels, 3, stride=2, padding=1, bias=False)
    nn.init.kaiming_normal_(stem.weight, mode="fan_out")
    net.features[0][0] = stem
    with torch.no_grad():
        num_features = net.features.eval()(torch.zeros(1, channels, size, size)).shape[1]
    return Backbone(net.features.train(), int(num_features))
