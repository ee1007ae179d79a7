"""Augmentation of whole batches of slices, as tensors.

All slices of a scan get the same change, as they come from one acquisition.
Every random number comes from the generator passed in, so a seed repeats a run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from medcli.config import Augmentation


@dataclass(frozen=True, slots=True)
class Recipe:
    """Ranges of the random changes; each is drawn uniformly per scan.

    Attributes
    ----------
    rotation : degrees, ±
    quarter_turns : besides, a turn by 0, 90, 180 or 270 degrees, which costs no sharpness
    scale : factor, between 1/scale and scale
    shift : share of the side, ±
    flip : mirror left and right with probability one half; any rotation makes it any mirror
    brightness : added to the 0–1 values, ±
    contrast : factor about the mean of the scan, between 1/contrast and contrast
    gamma : exponent, between 1/gamma and gamma
    noise : highest standard deviation of white noise
    blur : share of scans smoothed by a 3 × 3 binomial filter
    masked : black is a background of its own, and does not run into what it borders on
    """

    rotation: float = 0.0
    quarter_turns: bool = False
    scale: float = 1.0
    shift: float = 0.0
    flip: bool = False
    brightness: float = 0.0
    contrast: float = 1.0
    gamma: float = 1.0
    noise: float = 0.0
    blur: float = 0.0
    masked: bool = False


# The size and density of a nodule are findings, so CT is hardly scaled or brightened, and not
# blurred: that would draw the black of a masked background into its rim.
# Sides matter in a radiograph (heart, liver) and may matter in what is not known ("grey"), so
# these are never mirrored; in a tile of tissue or a nodule they do not.
# Hue carries the stain, so no channel is changed apart from the others. Absorbance is the
# negative logarithm of the value (Beer, Lambert), so one gamma for all channels makes a stain
# stronger or weaker, as between laboratories, and keeps its colour.
RECIPES: Mapping[str, Recipe] = {
    "ct": Recipe(
        rotation=45,
        quarter_turns=True,
        scale=1.05,
        shift=0.05,
        flip=True,
        brightness=0.02,
        contrast=1.05,
        noise=0.01,
        masked=True,
    ),
    "radiograph": Recipe(
        rotation=12,
        scale=1.15,
        shift=0.08,
        brightness=0.08,
        contrast=1.25,
        gamma=1.3,
        noise=0.04,
        blur=0.3,
    ),
    "colour": Recipe(
        rotation=15,
        quarter_turns=True,
        scale=1.2,
        shift=0.08,
        flip=True,
        brightness=0.06,
        contrast=1.2,
        gamma=1.2,
        noise=0.02,
        blur=0.2,
    ),
    "grey": Recipe(
        rotation=10,
        scale=1.1,
        shift=0.06,
        brightness=0.05,
        contrast=1.15,
        gamma=1.15,
        noise=0.02,
        blur=0.2,
    ),
}


def augment(
    images: Tensor,
    lengths: list[int],
    kind: Augmentation | Sequence[Augmentation],
    generator: torch.Generator,
) -> Tensor:
    """(T, C, H, W) slices in 0–1 of scans with `lengths` slices → changed slices in 0–1.

    `kind` is one for all scans, or one for each.
    """
    if kind == "none":
        return images
    if not isinstance(kind, str):
        return _augment_each(images, lengths, kind, generator)
    recipe = RECIPES[kind]
    repeats = torch.tensor(lengths)
    moved = _move(images, recipe, repeats, generator)
    return _shade(moved, recipe, repeats, generator).clamp_(0, 1)


def _augment_each(
    images: Tensor,
    lengths: list[int],
    kinds: Sequence[Augmentation],
    generator: torch.Generator,
) -> Tensor:
    """Scans of one kind together, in the order of the kinds' names."""
    changed = images.clone()
    repeats = torch.tensor(lengths)
    for kind in sorted(set(kinds)):
        scans = torch.tensor([each == kind for each in kinds])
        slices = scans.repeat_interleave(repeats).to(images.device)
        changed[slices] = augment(images[slices], repeats[scans].tolist(), kind, generator)
    return changed


def _uniform(
    low: float, high: float, count: int, generator: torch.Generator, *, log: bool = False
) -> Tensor:
    if log:
        low, high = math.log(low), math.log(high)
    drawn = torch.rand(count, generator=generator) * (high - low) + low
    return drawn.exp() if log else drawn


def _move(images: Tensor, recipe: Recipe, repeats: Tensor, generator: torch.Generator) -> Tensor:
    """Rotate, scale, shift and mirror about the centre.

    What comes in from outside is the picture reflected: black corners would be the
    strongest edges of the picture, and small sets learn nothing beside them.
    """
    count = len(repeats)
    angle = torch.deg2rad(_uniform(-recipe.rotation, recipe.rotation, count, generator))
    if recipe.quarter_turns:
        angle += torch.randint(0, 4, (count,), generator=generator) * (torch.pi / 2)
    factor = _uniform(1 / recipe.scale, recipe.scale, count, generator, log=True)
    shift = 2 * _uniform(-recipe.shift, recipe.shift, 2 * count, generator).view(count, 2)
    mirror = torch.ones(count)
    if recipe.flip:
        mirror = torch.randint(0, 2, (count,), generator=generator).float() * 2 - 1
    cos, sin = torch.cos(angle) / factor, torch.sin(angle) / factor
    rows = [torch.stack([cos * mirror, -sin, shift[:, 0]], 1)]
    rows.append(torch.stack([sin * mirror, cos, shift[:, 1]], 1))
    theta = torch.stack(rows, 1).repeat_interleave(repeats, dim=0).to(images)  # (T, 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    if not recipe.masked:
        return moved
    # Between a masked background and the finding nothing lies: the rim keeps its own values.
    share = F.grid_sample(
        (images > 0).to(images), grid, padding_mode="reflection", align_corners=False
    )
    return torch.where(share > 0.5, moved / share.clamp(min=0.5), 0)


def _shade(images: Tensor, recipe: Recipe, repeats: Tensor, generator: torch.Generator) -> Tensor:
    """Change gamma, contrast and brightness; add blur and noise."""
    count = len(repeats)

    def per_slice(values: Tensor) -> Tensor:
        spread = values.view(count, -1, 1, 1).repeat_interleave(repeats.to(values.device), dim=0)
        return spread.to(images)

    # Black stays black: padding and masked background carry no intensity of their own.
    inside = (images > 0).to(images.dtype)
    if recipe.gamma > 1:
        gamma = _uniform(1 / recipe.gamma, recipe.gamma, count, generator, log=True)
        images = images.clamp(min=1e-6) ** per_slice(gamma)
    contrast = per_slice(_uniform(1 / recipe.contrast, recipe.contrast, count, generator, log=True))
    brightness = per_slice(_uniform(-recipe.brightness, recipe.brightness, count, generator))
    mean = per_slice(torch.stack([scan.mean() for scan in torch.split(images, repeats.tolist())]))
    images = ((images - mean) * contrast + mean + brightness) * inside
    if recipe.blur:
        chosen = per_slice((torch.rand(count, generator=generator) < recipe.blur).float())
        images = images + chosen * (_binomial(images) - images)
    if recipe.noise:
        level = per_slice(_uniform(0, recipe.noise, count, generator))
        white = torch.randn(images.shape, generator=generator).to(images)
        images = images + level * white * inside
    return images


def _binomial(images: Tensor) -> Tensor:
    """Smooth by the separable filter (1, 2, 1) / 4."""
    channels = images.shape[1]
    row = torch.tensor([0.25, 0.5, 0.25]).to(images)
    kernel = (row[:, None] * row[None, :]).expand(channels, 1, 3, 3)
    return F.conv2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), kernel, groups=channels)
