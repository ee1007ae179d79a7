"""Where bright and dark lie in a picture."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FLAT = 1e-3  # length below which a centred picture counts as constant


class Layout(nn.Module):
    """(T, C, H, W) slices of side `size` → (T, grid²) of unit length: a tiny centred picture.

    The mean over the channels is averaged over a grid of equal fields, its mean taken
    away, and the rest brought to unit length, so that brightness and contrast of the whole
    picture drop out. A constant picture
    gives zeros.

    References
    ----------
    Torralba, Fergus, Freeman: 80 Million Tiny Images, PAMI 2008.
    """

    def __init__(self, size: int, grid: int) -> None:
        super().__init__()
        weights = overlap(size, grid) * grid / size
        self.register_buffer("weights", weights, persistent=False)  # (grid, size)

    def forward(self, images: Tensor) -> Tensor:
        """Average, centre, normalise."""
        weights = self.get_buffer("weights")
        fields = (weights @ images.float().mean(dim=1) @ weights.T).flatten(1)
        centred = fields - fields.mean(dim=1, keepdim=True)
        return F.normalize(centred, dim=1, eps=FLAT)


def overlap(size: int, grid: int) -> Tensor:
    """(grid, size): how much of each of `size` pixels lies in each of `grid` equal fields.

    Exact for any two numbers; columns sum to 1.
    """
    edges = torch.linspace(0, size, grid + 1)
    pixels = torch.arange(size)
    high = torch.minimum(edges[1:, None], pixels[None] + 1)
    low = torch.maximum(edges[:-1, None], pixels[None])
    return (high - low).clamp(min=0)
