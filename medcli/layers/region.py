"""Region proposals: a feature pyramid, anchors with a score and a shift each, pooled regions.

Boxes are (x0, y0, x1, y1) in pixels of the input, x1 and y1 exclusive.

References
----------
Ren et al.: Faster R-CNN, NeurIPS 2015 (anchors, objectness, box regression, two stages).
Lin et al.: Feature Pyramid Networks for Object Detection, CVPR 2017 (the top-down path).
He et al.: Mask R-CNN, ICCV 2017 (RoIAlign).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import roi_align

POOLED = 7  # rows and columns of a pooled region
PRIOR = 0.01  # share of anchors that are taken for lesions before anything is learnt


class TopDown(nn.Module):
    """Maps of falling resolution → one at that of the first, which has seen them all."""

    def __init__(self, widths: Sequence[int], width: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(each, width, 1, bias=False) for each in widths)
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for _ in widths)
        self.smooth = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """[(N, F_i, h_i, w_i)], fine to coarse → (N, width, h_0, w_0)."""
        parts = [
            norm(lateral(each))
            for each, lateral, norm in zip(maps, self.lateral, self.norms, strict=True)
        ]
        joined = parts[-1]
        for part in reversed(parts[:-1]):
            joined = part + F.interpolate(joined, size=part.shape[2:], mode="nearest")
        smoothed: Tensor = self.smooth(F.relu(joined))
        return smoothed


class Anchors(nn.Module):
    """Boxes of several sizes and ratios around every field of a map.

    Parameters
    ----------
    sizes : square roots of their areas, pixels of the input
    ratios : height divided by width
    side : rows and columns of the input, pixels
    stride : pixels of the input between two fields of the map
    """

    boxes: Tensor  # (A, 4)

    def __init__(
        self, sizes: Sequence[float], ratios: Sequence[float], side: int, stride: int
    ) -> None:
        super().__init__()
        generator = AnchorGenerator((tuple(sizes),), (tuple(ratios),))
        fields = -(-side // stride)
        corners = generator.grid_anchors([[fields, fields]], [torch.tensor([stride, stride])])[0]
        self.per_field = len(sizes) * len(ratios)
        # torchvision centres anchors on the corner of a field.
        self.register_buffer("boxes", corners + stride / 2, persistent=False)


class RegionHead(nn.Module):
    """(N, F, h, w) map → objectness and shift of each anchor, (N, A) and (N, A, 4)."""

    def __init__(self, width: int, per_field: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)
        self.objectness = nn.Conv2d(width, per_field, 1)
        self.shift = nn.Conv2d(width, 4 * per_field, 1)
        for layer in (self.conv, self.objectness, self.shift):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        nn.init.constant_(self.objectness.bias, -math.log(1 / PRIOR - 1))  # type: ignore[arg-type]

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Anchors in the order of `Anchors.boxes`: by row, column, then kind."""
        hidden = F.relu(self.conv(features))
        count = features.shape[0]  # len() would fix it in an exported graph
        scores = self.objectness(hidden).permute(0, 2, 3, 1).reshape(count, -1)
        shifts = self.shift(hidden)
        _, _, rows, columns = shifts.shape
        shifts = shifts.reshape(count, -1, 4, rows, columns).permute(0, 3, 4, 1, 2)
        return scores, shifts.reshape(count, -1, 4)


class PooledRegions(nn.Module):
    """Regions of a map, cut out to one size without rounding: (R, F, POOLED, POOLED)."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.scale = 1 / stride

    def forward(self, features: Tensor, regions: Tensor) -> Tensor:
        """(N, F, h, w) map and (R, 5) regions, the number of their picture first."""
        pooled: Tensor = roi_align(
            features, regions, POOLED, spatial_scale=self.scale, sampling_ratio=2, aligned=True
        )
        return pooled


BOX_WEIGHTS = {"first": (1.0, 1.0, 1.0, 1.0), "second": (10.0, 10.0, 5.0, 5.0)}
"""What the four numbers of a shift are multiplied by, as in Faster R-CNN."""


def box_coder(stage: str) -> BoxCoder:
    """Boxes ⇄ shifts from reference boxes, for one of the two stages."""
    return BoxCoder(BOX_WEIGHTS[stage])


def decode(shifts: Tensor, boxes: Tensor, stage: str, side: int) -> Tensor:
    """(…, 4) shifts from (…, 4) boxes → (…, 4) boxes inside the square of `side` pixels."""
    shape = shifts.shape
    moved: Tensor = box_coder(stage).decode_single(shifts.reshape(-1, 4), boxes.reshape(-1, 4))
    return moved.reshape(shape).clamp(0, side)
