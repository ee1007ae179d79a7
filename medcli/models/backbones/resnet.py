"""Residual networks.

References
----------
He et al.: Deep Residual Learning for Image Recognition, CVPR 2016.
"""

from __future__ import annotations

from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from medcli.models.backbones.base import SMALL_INPUT, Backbone


def _resnet(
    block: type[BasicBlock | Bottleneck], blocks: list[int], width: int, channels: int, size: int
) -> Backbone:
    """A ResNet whose stages are `width`, 2, 4 and 8 × `width` wide, times the block's expansion."""
    net = ResNet(block, blocks)
    net.inplanes = width
    stages = [
        net._make_layer(block, width * 2**stage, count, stride=1 if stage == 0 else 2)
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
    return Backbone(layers, width * 8 * block.expansion)


def resnet18(channels: int, size: int) -> Backbone:
    """ResNet-18, 11.2 M parameters."""
    return _resnet(BasicBlock, [2, 2, 2, 2], 64, channels, size)


def resnet18_half(channels: int, size: int) -> Backbone:
    """ResNet-18 at half the width: a quarter of the arithmetic, 2.8 M parameters."""
    return _resnet(BasicBlock, [2, 2, 2, 2], 32, channels, size)


def resnet50(channels: int, size: int) -> Backbone:
    """ResNet-50, 23.5 M parameters."""
    return _resnet(Bottleneck, [3, 4, 6, 3], 64, channels, size)
