"""A backbone with a region proposal network on it, and a head for what it proposes."""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medcli.config import DetectionConfig, ModelConfig
from medcli.errors import UsageError
from medcli.layers.region import (
    POOLED,
    Anchors,
    PooledRegions,
    RegionHead,
    TopDown,
    decode,
)
from medcli.models.registry import BACKBONES, resolve


class Proposed(NamedTuple):
    """(N, F, h, w) features; (N, A) logits of objectness; (N, A, 4) boxes; (N, A, 4) shifts."""

    features: Tensor
    objectness: Tensor
    boxes: Tensor
    shifts: Tensor


class Judged(NamedTuple):
    """(R, 1 + K) logits, the first for none of the classes; (R, 4) boxes; (R, 4) shifts."""

    logits: Tensor
    boxes: Tensor
    shifts: Tensor


class Stages(nn.Module):
    """A backbone up to each of its resolutions from a stride on: one map each, fine to coarse."""

    def __init__(self, arch: str, channels: int, size: int, stride: int) -> None:
        super().__init__()
        builder = resolve(BACKBONES, "architecture", arch)
        self.backbone = builder(channels, size)
        self.ends, self.widths = self._ends(channels, size, stride)
        if not self.ends:
            raise UsageError(
                f"{arch} has no feature map at a stride of {stride} px",
                "Give another --arch or --size",
            )

    @torch.no_grad()
    def _ends(self, channels: int, size: int, stride: int) -> tuple[list[int], list[int]]:
        """The last layer of each resolution from `stride` on, and the width of its map."""
        last: dict[int, tuple[int, int]] = {}
        layers = self.backbone.layers
        layers.eval()
        images = torch.zeros(1, channels, size, size)
        for number, layer in enumerate(layers):
            images = layer(images)
            last[images.shape[2]] = number, images.shape[1]
        layers.train()
        fields = -(-size // stride)
        kept = [ends for side, ends in last.items() if side <= fields]
        if not kept or fields not in last:
            return [], []
        return [number for number, _ in kept], [width for _, width in kept]

    def forward(self, images: Tensor) -> list[Tensor]:
        """(N, C, H, W) → [(N, F_i, h_i, w_i)]."""
        maps = []
        for number, layer in enumerate(self.backbone.layers):
            images = layer(images)
            if number in self.ends:
                # What follows may work in place.
                maps.append(images if number == self.ends[-1] else images.clone())
        return maps


class RegionJudge(nn.Module):
    """(R, F, POOLED, POOLED) pooled regions → their classes and their boxes, once more.

    The classes come from the head that classifies scans: average and maximum pooling, a
    projection to unit length, a scale, dropout, one linear layer.
    """

    def __init__(self, width: int, embedding_dim: int, dropout: float, num_classes: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.projection = nn.Linear(2 * width, embedding_dim)
        self.dropout = nn.Dropout(dropout)
        self.scale = nn.Parameter(torch.tensor(8.0))
        self.head = nn.Linear(embedding_dim, 1 + num_classes)
        last = nn.Linear(embedding_dim, 4)
        nn.init.normal_(last.weight, std=0.001)
        nn.init.zeros_(last.bias)
        self.shift = nn.Sequential(nn.Linear(width * POOLED**2, embedding_dim), nn.ReLU(), last)

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """(R, 1 + K) logits and (R, 4) shifts."""
        hidden = self.conv(pooled)
        features = torch.cat([hidden.mean(dim=(2, 3)), hidden.amax(dim=(2, 3))], dim=1)
        learnt = F.normalize(self.projection(features), dim=-1)
        logits = self.head(self.dropout(learnt) * self.scale)
        return logits, self.shift(hidden.flatten(1))


class DetectionModel(nn.Module):
    """Slices → proposals → judged regions. All boxes are in pixels of the input.

    Parameters
    ----------
    model : architecture, length of the embedding and dropout of the head
    detection : stride and width of the map, anchors
    size : rows and columns of the input
    """

    def __init__(
        self,
        model: ModelConfig,
        detection: DetectionConfig,
        channels: int,
        size: int,
        num_classes: int,
    ) -> None:
        super().__init__()
        self.size, width = size, detection.width
        self.stages = Stages(model.arch, channels, size, detection.stride)
        self.top_down = TopDown(self.stages.widths, width)
        self.anchors = Anchors(
            detection.anchor_sizes, detection.anchor_ratios, size, detection.stride
        )
        self.regions = RegionHead(width, self.anchors.per_field)
        self.pooled = PooledRegions(detection.stride)
        self.judge_pooled = RegionJudge(width, model.embedding_dim, model.dropout, num_classes)

    @property
    def backbone(self) -> nn.Module:
        """The part that `--weights` may bring."""
        return cast(nn.Module, self.stages.backbone)

    def propose(self, images: Tensor) -> Proposed:
        """(N, C, H, W) standardised slices → what every anchor says."""
        features = self.top_down(self.stages(images)).float()
        objectness, shifts = self.regions(features)
        anchors = self.anchors.boxes.expand(images.shape[0], -1, -1)
        return Proposed(features, objectness, decode(shifts, anchors, "first", self.size), shifts)

    def judge(self, features: Tensor, regions: Tensor) -> Judged:
        """(N, F, h, w) features and (R, 5) regions, number of the slice first → the answers."""
        logits, shifts = self.judge_pooled(self.pooled(features, regions))
        return Judged(logits, decode(shifts, regions[:, 1:], "second", self.size), shifts)
