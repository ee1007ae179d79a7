"""Augmentation of whole batches of slices, as tensors.

All slices of a scan get the same change, as they come from one acquisition.
Every random number comes from the generator passed in, so a seed repeats a run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from medcli.config import Augmentation
from medcli.data.acquisition import add_noise, blank_edges, coarsen, hide_patch, soften
from medcli.data.draws import Draws
from medcli.data.stain import recolour, restain


@dataclass(frozen=True, slots=True)
class Recipe:
    """Ranges of the random changes; each is drawn uniformly per scan.

    Attributes
    ----------
    rotation : degrees, ±
    quarter_turns : besides, a turn by 0, 90, 180 or 270 degrees, which costs no sharpness
    scale : factor, between 1/scale and scale
    aspect : factor between width and height, between 1/aspect and aspect
    shift : share of the side, ±
    flip : mirror left and right with probability one half; any rotation makes it any mirror
    brightness : added to the 0–1 values, ±
    contrast : factor about the mean of the scan, between 1/contrast and contrast
    gamma : exponent, between 1/gamma and gamma
    slope : brightness at one edge above that at the other, ±, in both directions
    noise : highest standard deviation of white noise
    blur : share of scans smoothed by a 3 × 3 binomial filter
    masked : black is a background of its own, and does not run into what it borders on
    sharpening : most of the same filter's difference that as many others gain at their edges
    coarse, coarse_side : share of scans that lose resolution, and the least side left of them
    border, border_width : share of scans with black strips at the edges, and their width
    patch, patch_side : share of scans with a grey rectangle over a place, and its half side
    stain : factor of each dye, between 1/stain and stain (colour)
    hue, saturation : share of the circle, ±; factor, between 1/saturation and saturation (colour)
    """

    rotation: float = 0.0
    quarter_turns: bool = False
    scale: float = 1.0
    aspect: float = 1.0
    shift: float = 0.0
    flip: bool = False
    brightness: float = 0.0
    contrast: float = 1.0
    gamma: float = 1.0
    slope: float = 0.0
    noise: float = 0.0
    blur: float = 0.0
    masked: bool = False
    sharpening: float = 0.0
    coarse: float = 0.0
    coarse_side: int = 40
    border: float = 0.0
    border_width: float = 0.1
    patch: float = 0.0
    patch_side: float = 0.35
    stain: float = 1.0
    hue: float = 0.0
    saturation: float = 1.0


# The size and density of a nodule are findings, so CT is hardly scaled or brightened, and not
# blurred: that would draw the black of a masked background into its rim.
# Sides matter in a radiograph (heart, liver) and may matter in what is not known ("grey"), so
# these are never mirrored; in a tile of tissue or a nodule they do not.
# A film says the same whatever the exposure, the window it was saved with, the sharpness of the
# apparatus and the edge of the collimator: children's films of one hospital are told apart by
# those, too, and a network that learns them fails elsewhere.
# Hue carries the stain, so it is turned by a little only. Absorbance is the negative logarithm of
# the value (Beer, Lambert), so one gamma for all channels makes a stain stronger or weaker, as
# between laboratories, and keeps its colour.
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
        scale=1.25,
        aspect=1.15,
        shift=0.08,
        brightness=0.12,
        contrast=1.5,
        gamma=1.6,
        slope=0.15,
        noise=0.06,
        blur=0.3,
        sharpening=1.5,
        coarse=0.3,
        border=0.25,
        border_width=0.1,
        patch=0.2,
    ),
    "colour": Recipe(
        rotation=15,
        quarter_turns=True,
        scale=1.2,
        shift=0.08,
        flip=True,
        brightness=0.08,
        contrast=1.25,
        gamma=1.2,
        noise=0.03,
        blur=0.2,
        sharpening=1.0,
        coarse=0.15,
        coarse_side=56,
        stain=1.25,
        hue=0.02,
        saturation=1.3,
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
    draws = Draws(torch.tensor(lengths), generator, images.device)
    return retake(_move(images, recipe, draws), recipe, draws)


def retake(moved: Tensor, recipe: Recipe, draws: Draws) -> Tensor:
    """(T, C, H, W) slices in 0–1, as they are → as if taken otherwise: all that moves nothing."""
    # Black stays black: padding and masked background carry no intensity of their own.
    inside = (moved > 0).any(dim=1, keepdim=True)
    shaded = _shade(restain(moved, recipe.stain, draws), recipe, draws)
    coloured = recolour(shaded, recipe.hue, recipe.saturation, draws) * inside
    taken = _take(coloured.clamp(0, 1), recipe, draws, inside)
    return blank_edges(taken, recipe.border, recipe.border_width, draws).clamp_(0, 1)


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
        # Numbers, not a mask: what a mask takes a GPU has to be waited for to know.
        slices = scans.repeat_interleave(repeats).nonzero().flatten()
        slices = slices.to(images.device, non_blocking=True)
        changed[slices] = augment(images[slices], repeats[scans].tolist(), kind, generator)
    return changed


def _move(images: Tensor, recipe: Recipe, draws: Draws) -> Tensor:
    """Rotate, scale, stretch, shift and mirror about the centre.

    What comes in from outside is the picture reflected: black corners would be the
    strongest edges of the picture, and small sets learn nothing beside them.
    """
    count, generator = len(draws.repeats), draws.generator
    angle = torch.deg2rad(draws.uniform(-recipe.rotation, recipe.rotation))
    if recipe.quarter_turns:
        angle += torch.randint(0, 4, (count,), generator=generator) * (torch.pi / 2)
    factor = draws.uniform(1 / recipe.scale, recipe.scale, log=True)
    wider = draws.uniform(1 / recipe.aspect, recipe.aspect, log=True).sqrt()
    shift = [2 * draws.uniform(-recipe.shift, recipe.shift) for _ in range(2)]
    mirror = torch.ones(count)
    if recipe.flip:
        mirror = torch.randint(0, 2, (count,), generator=generator).float() * 2 - 1
    cos, sin = torch.cos(angle) / factor, torch.sin(angle) / factor
    rows = [torch.stack([cos * mirror, -sin, shift[0]], 1) / wider[:, None]]
    rows.append(torch.stack([sin * mirror, cos, shift[1]], 1) * wider[:, None])
    theta = torch.stack(rows, 1).repeat_interleave(draws.repeats, dim=0)
    theta = theta.to(images, non_blocking=True)  # (T, 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    if not recipe.masked:
        return moved
    # Between a masked background and the finding nothing lies: the rim keeps its own values.
    share = F.grid_sample(
        (images > 0).to(images), grid, padding_mode="reflection", align_corners=False
    )
    return torch.where(share > 0.5, moved / share.clamp(min=0.5), 0)


def _shade(images: Tensor, recipe: Recipe, draws: Draws) -> Tensor:
    """Change gamma, contrast and brightness, the last also from edge to edge."""
    if recipe.gamma > 1:
        images = images.clamp(min=1e-6) ** draws.factor(recipe.gamma)
    contrast = draws.factor(recipe.contrast)
    brightness = draws.within(-recipe.brightness, recipe.brightness)
    if recipe.slope:
        brightness = brightness + _slope(images, recipe.slope, draws)
    mean = draws.means(images)
    return (images - mean) * contrast + mean + brightness


def _slope(images: Tensor, most: float, draws: Draws) -> Tensor:
    """(T, 1, H, W) that rises by up to `most` from one edge to the other, 0 in the middle."""
    rows, columns = (
        torch.linspace(-0.5, 0.5, length, device=images.device) for length in images.shape[-2:]
    )
    down, right = draws.within(-most, most), draws.within(-most, most)
    return down * rows.view(-1, 1) + right * columns


def _take(images: Tensor, recipe: Recipe, draws: Draws, inside: Tensor) -> Tensor:
    """Lose resolution, blur or sharpen, add noise and cover a place, as of another apparatus."""
    images = coarsen(images, recipe.coarse_side, recipe.coarse, draws)
    images = soften(images, recipe.blur, recipe.sharpening, draws)
    noisy = add_noise(images, recipe.noise, draws)
    images = images + (noisy - images) * inside
    return hide_patch(images, recipe.patch, recipe.patch_side, draws)
