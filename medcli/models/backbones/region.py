"""Small networks for findings of a few pixels whose region is known.

Rows and columns are halved once: the median pulmonary nodule is ten pixels wide. The region,
white (calcified) and dark (fat, air) places are channels of their own, so that the first layer
need not find them.

References
----------
The blocks are plain (Simonyan, Zisserman: Very Deep Convolutional Networks, ICLR 2015), with
batch normalisation (Ioffe, Szegedy, ICML 2015); pooling inside a region follows Girshick: Fast
R-CNN, ICCV 2015.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medcli.layers.measures import DARK, SATURATED

WIDTHS = (16, 32)
MIDDLE, SPREAD = 0.7, 0.2  # of the values of soft tissue in a lung window


class RegionBackbone(nn.Module):
    """(T, 1, H, W) values in 0–1, (T, 1, H, W) region → maps of full and of half resolution.

    The coarse maps (T, F, h, w) come first, since they are what is explained.
    """

    def __init__(self) -> None:
        super().__init__()
        fine, coarse = WIDTHS
        self.fine = _block(4, fine, 1)
        self.coarse = nn.Sequential(_block(fine, coarse, 2), _block(coarse, coarse, 1))
        self.num_features = fine + 2 * coarse  # mean of both, maximum of the coarse maps

    def forward(self, images: Tensor, region: Tensor) -> tuple[Tensor, Tensor]:
        """The coarse and the fine maps."""
        inside = (images - MIDDLE) / SPREAD * region
        white = (images > SATURATED).to(images) * region
        dark = (images < DARK).to(images) * region
        fine = self.fine(torch.cat([inside, region, white, dark], dim=1))
        return cast(Tensor, self.coarse(fine)), fine


def _block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def region_cnn(channels: int, size: int) -> RegionBackbone:
    """Three convolutions and one halving, 0.01 M parameters."""
    del channels, size  # colour is averaged, and pooling takes any side
    return RegionBackbone()


class RegionPixels(nn.Module):
    """(T, 1, H, W) values in 0–1, (T, 1, H, W) region → values inside, at both resolutions.

    Nothing is learnt of the pixels: what is known of them are the measures beside it.
    """

    num_features = 3

    def forward(self, images: Tensor, region: Tensor) -> tuple[Tensor, Tensor]:
        """The coarse and the fine map."""
        inside = (images - MIDDLE) / SPREAD * region
        return F.avg_pool2d(inside, 2, ceil_mode=True), inside


def region_measures(channels: int, size: int) -> RegionPixels:
    """No convolution that is learnt, 0.00 M parameters."""
    del channels, size
    return RegionPixels()
