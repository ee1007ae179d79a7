"""What stood between the convolutions of the classical networks."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LocalResponseNorm(nn.Module):
    """(N, C, H, W) → the same shape: each value divided by what its neighbour channels answer.

    ``b_i = a_i / (k + α Σ_j a_j²)^β`` over the `span` channels j around i at one place.
    The defaults are the published ones; there the pixels ran from 0 to 255.

    References
    ----------
    Krizhevsky, Sutskever, Hinton: ImageNet Classification with Deep Convolutional Neural
    Networks, NeurIPS 2012, section 3.3. (torch's layer divides α by `span`.)
    """

    def __init__(
        self, span: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 2.0
    ) -> None:
        super().__init__()
        self.span, self.alpha, self.beta, self.k = span, alpha, beta, k

    def forward(self, maps: Tensor) -> Tensor:
        """Each value times its factor."""
        return maps * self.factor(maps)

    def factor(self, maps: Tensor) -> Tensor:
        """``(k + α Σ_j a_j²)^-β`` of every value: the squares of neighbour channels, added."""
        count = maps.shape[1]
        before, after = self.span // 2, (self.span - 1) // 2
        squares = F.pad(maps.square(), (0, 0, 0, 0, before, after))  # along the channels
        total = sum(squares[:, shift : shift + count] for shift in range(self.span))
        return cast(Tensor, (self.k + self.alpha * total) ** -self.beta)


class SumPool2d(nn.Module):
    """(N, C, H, W) → (N, C, h, w): sums over square windows; beyond the border are zeros."""

    def __init__(self, side: int, stride: int, padding: int = 0) -> None:
        super().__init__()
        self.area = side * side
        self.average = nn.AvgPool2d(side, stride, padding, count_include_pad=True)

    def forward(self, maps: Tensor) -> Tensor:
        """As many times the average as the window has fields."""
        return torch.mul(self.average(maps), self.area)
