"""Pictures moved together with their boxes.

Turns are by quarters only, so that a box around a lesion stays one. What comes in from
outside is black: a reflected picture would hold lesions without a box.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from medcli.config import Augmentation
from medcli.data.augment import RECIPES, retake
from medcli.data.draws import Draws

SCALE = 1.35  # factor, between 1/SCALE and SCALE
SHIFT = 0.12  # share of the side, ±
VISIBLE = 0.4  # a box of which less is left is cut off

Boxes = Sequence[Tensor]


def augment(
    images: Tensor, boxes: Boxes, labels: Boxes, kind: Augmentation, generator: torch.Generator
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """(T, C, H, W) slices in 0–1 with (n, 4) boxes and (n,) labels each → changed ones."""
    if kind == "none":
        return images, list(boxes), list(labels)
    recipe = replace(RECIPES[kind], border=0, patch=0)  # these would cover what a box is around
    theta = _moves(len(images), recipe.flip, recipe.quarter_turns, generator).to(images)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, padding_mode="zeros", align_corners=False)
    seen, kept = [], []
    for each, own, marked in zip(theta, boxes, labels, strict=True):
        where, visible = _moved(own, each, images.shape[-1])
        seen.append(where[visible])
        kept.append(marked[visible])
    draws = Draws(torch.ones(len(images), dtype=torch.long), generator, images.device)
    return retake(moved, recipe, draws), seen, kept


def _moves(count: int, flip: bool, quarter_turns: bool, generator: torch.Generator) -> Tensor:
    """(T, 2, 3): where each place of the new picture lies in the old, −1 to 1."""

    def uniform(reach: float) -> Tensor:
        return (torch.rand(count, generator=generator) * 2 - 1) * reach

    turns = torch.randint(0, 4, (count,), generator=generator) * int(quarter_turns)
    cos = torch.tensor([1.0, 0.0, -1.0, 0.0])[turns]
    sin = torch.tensor([0.0, 1.0, 0.0, -1.0])[turns]
    mirror = torch.randint(0, 2, (count,), generator=generator) * 2.0 - 1 if flip else 1.0
    factor = torch.exp(uniform(float(torch.tensor(SCALE).log())))
    rows = [torch.stack([cos * mirror / factor, -sin / factor, 2 * uniform(SHIFT)], 1)]
    rows.append(torch.stack([sin * mirror / factor, cos / factor, 2 * uniform(SHIFT)], 1))
    return torch.stack(rows, 1)


def _moved(boxes: Tensor, theta: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """(n, 4) boxes in the new picture, cut at its border, and which of them are left."""
    corners = boxes.reshape(-1, 2, 2) * 2 / side - 1  # (n, 2 corners, xy)
    placed = (corners - theta[:, 2]) @ torch.linalg.inv(theta[:, :2]).T
    ends = (placed + 1) * side / 2
    whole = torch.cat([ends.amin(dim=1), ends.amax(dim=1)], dim=1)
    cut = whole.clamp(0, side)
    share = _area(cut) / _area(whole).clamp(min=1e-6)
    return cut, (share >= VISIBLE) & ((cut[:, 2:] - cut[:, :2]) >= 1).all(dim=1)


def _area(boxes: Tensor) -> Tensor:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
