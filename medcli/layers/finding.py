"""Which pixels of a crop belong to the finding in its middle, and pooling over them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

SOFT = 0.5  # of the lung window: -600 HU, between lung and soft tissue
MARKED = 0.5  # share of black pixels from which on somebody has masked the background
BLACK = 0.5 / 255
SEED = 3.5  # pixels around the middle where the finding is looked for
STEPS = 14  # pixels that a region may grow from there, around corners
FAR = 21  # pixels from the middle beyond which nothing can grow, nor be seen of what does


def find_region(images: Tensor) -> Tensor:
    """(T, 1, H, W) values of a lung window in 0–1 → (T, 1, H, W) of 0 and 1.

    Where most of a slice is black somebody has masked it: the region is what is not black.
    Else it is grown from the middle through soft tissue: eroded by a pixel first, so that it
    does not run along vessels and into the wall, and dilated at the end (geodesic
    reconstruction: Vincent, IEEE Trans. Image Processing 1993). It may be empty: a slice above
    or below the finding.
    """
    marked = (images > BLACK).to(images)
    masked = (marked.mean(dim=(2, 3), keepdim=True) < 1 - MARKED).to(images)
    grown = _grown((crop_middle(images, 2 * FAR) > SOFT).to(images))
    return masked * marked + (1 - masked) * _put_back(grown, images)


def _grown(dense: Tensor) -> Tensor:
    """(T, 1, h, w) soft tissue around the middle → what grows from there."""
    core = -F.max_pool2d(-dense, 3, 1, 1)
    seed = _disc(dense)
    # What is too small to have a core is grown as it is.
    thin = ((core * seed).amax(dim=(2, 3), keepdim=True) == 0).to(dense)
    inside = torch.maximum(core, dense * thin)
    grown = inside * seed
    for _ in range(STEPS):
        grown = F.max_pool2d(grown, 3, 1, 1) * inside
    return F.max_pool2d(grown, 3, 1, 1) * dense


def _disc(images: Tensor) -> Tensor:
    """(H, W): 1 within `SEED` of the middle, else 0."""
    rows, columns = images.shape[2:]
    y, x = np.arange(rows) - (rows - 1) / 2, np.arange(columns) - (columns - 1) / 2
    inside = y[:, None] ** 2 + x**2 <= SEED**2
    return torch.tensor(inside.tolist(), dtype=images.dtype, device=images.device)


def region_mean(maps: Tensor, region: Tensor) -> Tensor:
    """(T, F, h, w), (T, 1, h, w) → (T, F): the mean inside, 0 where the region is empty."""
    return (maps * region).sum(dim=(2, 3)) / region.sum(dim=(2, 3)).clamp(min=1)


def crop_middle(images: Tensor, side: int) -> Tensor:
    """(T, C, H, W) → the middle `side` rows and columns, or all where there are fewer."""
    rows, columns = images.shape[2:]
    top, left = max(0, rows - side) // 2, max(0, columns - side) // 2
    return images[:, :, top : top + side, left : left + side]


def _put_back(middle: Tensor, images: Tensor) -> Tensor:
    """(T, C, h, w) that `crop_middle` took of (T, C, H, W) → zeros around it."""
    rows, columns = (images.shape[axis] - middle.shape[axis] for axis in (2, 3))
    top, left = rows // 2, columns // 2
    return F.pad(middle, (left, columns - left, top, rows - top))
