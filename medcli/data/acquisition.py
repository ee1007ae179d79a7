"""What another apparatus does to the same picture: coarser, softer, edged, grained, masked.

All functions take and give (T, C, H, W) slices in 0–1 and draw one change a scan.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from medcli.data.draws import Draws


def coarsen(images: Tensor, side: int, share: float, draws: Draws) -> Tensor:
    """Reduce a `share` of the scans to a side between `side` and their own, and enlarge again.

    The scans of a batch that are reduced are reduced alike: one size a batch, drawn evenly
    over the logarithm. Pictures that are no larger than `side` stay.
    """
    own = min(images.shape[-2:])
    if own <= side or not share:
        return images
    drawn = torch.rand(1, generator=draws.generator).item()
    factor = math.exp(drawn * math.log(side / own))
    smaller = [max(1, round(length * factor)) for length in images.shape[-2:]]
    coarse = F.interpolate(images, size=smaller, mode="bilinear", antialias=True)
    coarse = F.interpolate(coarse, size=images.shape[-2:], mode="bilinear")
    return images + draws.chosen(share) * (coarse - images)


def soften(images: Tensor, share: float, sharpening: float, draws: Draws) -> Tensor:
    """Smooth a `share` of the scans by a 3 × 3 binomial filter; emphasise edges in others.

    Parameters
    ----------
    sharpening : most of what the filter takes away that is added on top (unsharp masking)
    """
    if not (share or sharpening):
        return images
    blurred = draws.chosen(share)
    amount = -blurred
    if sharpening:
        amount = amount + (1 - blurred) * draws.chosen(share) * draws.within(0, sharpening)
    return images + amount * (images - binomial(images))


def binomial(images: Tensor) -> Tensor:
    """Smooth by the separable filter (1, 2, 1) / 4."""
    channels = images.shape[1]
    row = torch.tensor([0.25, 0.5, 0.25]).to(images, non_blocking=True)
    kernel = (row[:, None] * row[None, :]).expand(channels, 1, 3, 3)
    return F.conv2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), kernel, groups=channels)


def add_noise(images: Tensor, deviation: float, draws: Draws) -> Tensor:
    """Add white noise of a standard deviation up to `deviation`."""
    if not deviation:
        return images
    level = draws.within(0, deviation)
    return images + level * draws.noise(images.shape).to(images)


def blank_edges(images: Tensor, share: float, width: float, draws: Draws) -> Tensor:
    """Black strips along the edges, up to `width` of the side each, as a collimator leaves them."""
    if not share:
        return images
    rows, columns = _coordinates(images)
    chosen = draws.chosen(share)
    kept = torch.ones_like(images[:, :1])
    for along, sign in ((rows, 1), (rows, -1), (columns, 1), (columns, -1)):
        limit = 1 - 2 * chosen * draws.within(0, width)
        kept = kept * (sign * along <= limit)
    return images * kept


def hide_patch(images: Tensor, share: float, side: float, draws: Draws) -> Tensor:
    """Put a grey rectangle, up to `side` of the side, over a place of a `share` of the scans.

    References
    ----------
    Zhong et al.: Random Erasing Data Augmentation, AAAI 2020.
    """
    if not share:
        return images
    inside = torch.ones_like(images[:, :1])
    for along in _coordinates(images):
        middle, half = draws.within(-1, 1), draws.within(side / 3, side)
        inside = inside * ((along - middle).abs() < half)
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return images + draws.chosen(share) * inside * (mean - images)


def _coordinates(images: Tensor) -> tuple[Tensor, Tensor]:
    """(1, 1, H, 1) and (1, 1, 1, W): the middle of each pixel, from -1 to 1 between the edges."""
    rows, columns = (
        (torch.arange(length, device=images.device) + 0.5) * (2 / length) - 1
        for length in images.shape[-2:]
    )
    return rows.view(1, 1, -1, 1), columns.view(1, 1, 1, -1)
