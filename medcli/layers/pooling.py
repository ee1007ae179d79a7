"""How the slices of a scan become one: the contract, and the aggregators without weights."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn


class Aggregator(nn.Module):
    """(N, S, F) slice features, (N, S) mask → (N, F) scan features, (N, S) weights.

    The real slices of a scan come first, padding after them. What stands on padding
    changes nothing. The weights say with which share a slice enters the scan: they sum to
    1 and are 0 on padding.
    """

    def single(self, features: Tensor) -> Tensor:
        """(…, F) slices → (…, F) scan features of each as a scan of its own.

        With them a slice has the embedding of a scan that is this slice alone.
        """
        scans = features.reshape(-1, 1, features.shape[-1])
        mask = torch.ones_like(scans[..., 0], dtype=torch.bool)
        return cast(Tensor, self(scans, mask)[0]).reshape(features.shape)


class Pooling(Aggregator):
    """Aggregators that give a single slice back as it is."""

    def single(self, features: Tensor) -> Tensor:
        """(…, F) slices, untouched."""
        return features


class MeanOverSlices(Pooling):
    """The mean; each real slice weighs the same."""

    def __init__(self, num_features: int) -> None:
        super().__init__()

    def forward(self, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Weight all real slices alike."""
        weights = equal_weights(mask)
        return torch.einsum("ns,nsf->nf", weights, features.float()), weights


class SumOverSlices(Pooling):
    """The sum: a finding in many slices counts more than in few.

    Each real slice enters with the factor 1; the weights are its share of the sum's terms.
    """

    def __init__(self, num_features: int) -> None:
        super().__init__()

    def forward(self, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Add all real slices up."""
        total = torch.einsum("ns,nsf->nf", mask.float(), features.float())
        return total, equal_weights(mask)


class MaxOverSlices(Pooling):
    """The maximum of each feature over the slices.

    The weight of a slice is the share of features whose maximum it holds; slices that hold
    one together share it.
    """

    def __init__(self, num_features: int) -> None:
        super().__init__()

    def forward(self, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The largest value a real slice has, feature by feature."""
        real = features.float().masked_fill(~mask[..., None], float("-inf"))
        largest = real.amax(dim=1)
        holds = (real == largest[:, None]).float()  # (N, S, F)
        weights = (holds / holds.sum(dim=1, keepdim=True)).mean(dim=2)
        return largest, weights


def equal_weights(mask: Tensor) -> Tensor:
    """(N, S) mask → (N, S) weights: 1 over the number of real slices, 0 on padding."""
    return mask.float() / mask.float().sum(dim=1, keepdim=True)
