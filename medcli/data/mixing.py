"""Scans mixed with each other, as tensors.

References
----------
Zhang, Cisse, Dauphin, Lopez-Paz: mixup: Beyond Empirical Risk Minimization, ICLR 2018.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Mixing:
    """With whom, and how far, each of N scans was mixed.

    Attributes
    ----------
    partners : (N,) int64, indices into the batch
    shares : (N,) what is left of the scan itself, 0.5–1; the rest is its partner's
    """

    partners: Tensor
    shares: Tensor


def mix(
    images: Tensor, lengths: list[int], alpha: float, generator: torch.Generator
) -> tuple[Tensor, Mixing | None]:
    """(T, C, H, W) slices of scans with `lengths` slices → mixed slices, and how.

    A scan keeps its number of slices. Each of them is mixed with the slice of the partner
    that lies at the same share of its stack, so that stacks of any two lengths mix: top with
    top, middle with middle. All slices of a scan are mixed by one share, drawn from
    Beta(`alpha`, `alpha`) and folded to at least one half: then a scan is more itself than
    its partner, and as partners are drawn evenly, nothing else changes.

    Parameters
    ----------
    alpha : above 0; 0 mixes nothing and draws nothing
    """
    if alpha == 0:
        return images, None
    partners = torch.randperm(len(lengths), generator=generator)
    seed = int(torch.randint(2**62, (1,), generator=generator))
    drawn = np.random.default_rng(seed).beta(alpha, alpha, len(lengths))
    shares = torch.from_numpy(np.maximum(drawn, 1 - drawn)).float()
    rows = torch.from_numpy(partner_slices(np.array(lengths), partners.numpy()))
    own = shares.repeat_interleave(torch.tensor(lengths)).view(-1, 1, 1, 1)
    own, rows, partners, shares = (
        each.to(images.device, non_blocking=True) for each in (own, rows, partners, shares)
    )
    mixed = own * images + (1 - own) * images[rows]
    return mixed, Mixing(partners, shares)


def partner_slices(lengths: np.ndarray, partners: np.ndarray) -> np.ndarray:
    """(N,) slices of each scan, (N,) partners → (T,) the row each row is mixed with."""
    starts = np.concatenate([[0], np.cumsum(lengths)])
    rows = []
    for own, partner in zip(lengths, partners, strict=True):
        share = (np.arange(own) + 0.5) / own
        rows.append(starts[partner] + np.floor(share * lengths[partner]).astype(np.int64))
    return np.concatenate(rows)
