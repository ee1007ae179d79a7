"""The classical CNN: convolution, response normalisation, pooling.

References
----------
Krizhevsky, Sutskever, Hinton: ImageNet Classification with Deep Convolutional Neural
Networks, NeurIPS 2012.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

from medcli.layers.convolution import LocalResponseNorm, SumPool2d
from medcli.models.backbones.base import SMALL_INPUT, Backbone

WIDTHS = (32, 64, 96, 96, 64)  # a third of one of the two halves of the published network
# Published for pixels of 0–255; ours are standardised, about a hundred times smaller.
ALPHA = 1e-4 * 100**2

Pool = type[nn.MaxPool2d] | type[nn.AvgPool2d] | type[SumPool2d]


def _classical(pool: Pool, channels: int, size: int) -> Backbone:
    """Five convolutions; the first, second and last are pooled, the first two normalised."""
    first, second, *others = WIDTHS
    stride = 1 if size <= SMALL_INPUT else 2
    layers: list[nn.Module] = []
    for inputs, outputs, step in ((channels, first, stride), (first, second, 1)):
        layers.append(nn.Conv2d(inputs, outputs, 5, step, padding=2))
        layers += [nn.ReLU(inplace=True), LocalResponseNorm(alpha=ALPHA), pool(3, 2, 1)]
    for inputs, outputs in pairwise((second, *others)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(inplace=True)]
    layers.append(pool(3, 2, 1))
    _initialise(layers)
    return Backbone(nn.Sequential(*layers), WIDTHS[-1])


@torch.no_grad()
def _initialise(layers: list[nn.Module]) -> None:
    """He's start; after a sum over a window it is divided by the window's area."""
    for before, layer in pairwise([nn.Identity(), *layers]):
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
            if isinstance(before, SumPool2d):
                layer.weight /= before.area


def cnn_lrn(channels: int, size: int) -> Backbone:
    """The classical CNN with maximum pooling, 0.2 M parameters."""
    return _classical(nn.MaxPool2d, channels, size)


def cnn_lrn_average(channels: int, size: int) -> Backbone:
    """The classical CNN with average pooling, 0.2 M parameters."""
    return _classical(nn.AvgPool2d, channels, size)


def cnn_lrn_sum(channels: int, size: int) -> Backbone:
    """The classical CNN with sum pooling, 0.2 M parameters."""
    return _classical(SumPool2d, channels, size)
