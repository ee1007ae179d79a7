"""Numbers of any distribution → normal scores, by knots that were fitted once."""

from __future__ import annotations

import torch
from torch import Tensor, nn

KNOTS = 33
EDGE = 0.01  # share of the numbers beyond the outer knots


class QuantileScores(nn.Module):
    """(N, K) numbers → (N, K) scores that are normal where the numbers are those fitted.

    Linear between knots at even quantiles, flat beyond the outer ones; until `fit` all scores
    of one number are the same. Buffers hold the knots, so they travel with the weights.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.register_buffer("knots", torch.zeros(count, KNOTS))
        shares = torch.linspace(EDGE, 1 - EDGE, KNOTS, dtype=torch.float64)
        self.register_buffer("values", torch.special.ndtri(shares).float(), persistent=False)

    @torch.no_grad()
    def fit(self, numbers: Tensor) -> None:
        """Take the knots from (N, K) numbers."""
        shares = torch.linspace(EDGE, 1 - EDGE, KNOTS)
        knots = torch.quantile(numbers.double(), shares.double(), dim=0).T  # (K, KNOTS)
        # Equal numbers would make steps, on which the last digit decides: spread them a little.
        width = (knots[:, -1:] - knots[:, :1]).clamp(min=1e-3) / 1000
        steps = torch.maximum(knots.diff(dim=1), width).cumsum(dim=1)
        self.get_buffer("knots").copy_(torch.cat([knots[:, :1], knots[:, :1] + steps], dim=1))

    def forward(self, numbers: Tensor) -> Tensor:
        """The score of each number, between -2.3 and 2.3."""
        knots = self.get_buffer("knots")
        scores = self.get_buffer("values")
        low, width = knots[:, :-1], knots.diff(dim=1).clamp(min=1e-9)
        passed = ((numbers[..., None] - low) / width).clamp(0, 1)  # (…, K, KNOTS - 1)
        return scores[0] + (passed * scores.diff()).sum(dim=-1)
