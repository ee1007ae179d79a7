"""The model shape with a 3-D network: slices are seen together, there is nothing to aggregate."""

from __future__ import annotations

import torch
from torch import Tensor

from medcli.config import ModelConfig
from medcli.models.registry import VOLUMES, resolve
from medcli.models.scan_model import ScanModel, ScanOutput, SliceFeatures


class VolumeModel(ScanModel):
    """(N, S, C, H, W) scans, (N, S) mask of real slices → `ScanOutput`, by 3-D convolution.

    A slice has the embedding of a scan that is this slice alone, as with every model, so a
    single picture finds the slice of a volume; each is sent through the network by itself.
    The slices of a scan weigh the same in its attention.
    """

    memory_format = torch.channels_last_3d

    def _build_features(self, config: ModelConfig, channels: int, size: int) -> int:
        self.backbone = resolve(VOLUMES, "architecture", config.arch)(channels, size)
        self.aggregator = None
        return 2 * int(self.backbone.num_features)

    def encode(self, images: Tensor) -> SliceFeatures:
        """(T, C, H, W) slices as they are, and their layout: a volume is looked at as a whole."""
        return SliceFeatures(images, self.layout(images).float())

    def aggregate(self, features: SliceFeatures, mask: Tensor) -> ScanOutput:
        """(N, S, C, H, W) slices with their layouts, and the mask → all outputs."""
        learnt = self.project(self._pooled(features.learnt, mask))
        attention = mask / mask.sum(dim=1, keepdim=True)
        # Training asks for no slices; the network over each alone would cost it most of its time.
        slices = learnt[:, None] if self.training else self._each_alone(features.learnt)
        return self._output(learnt, slices, features.layout, attention)

    def _each_alone(self, slices: Tensor) -> Tensor:
        """(N, S, C, H, W) → (N, S, D) learnt parts of volumes of one slice."""
        alone = slices.flatten(0, 1).unsqueeze(1)  # (N·S, 1, C, H, W)
        mask = torch.ones(alone.shape[:2], dtype=torch.bool, device=alone.device)
        return self.project(self._pooled(alone, mask)).reshape(*slices.shape[:2], -1)

    def _pooled(self, slices: Tensor, mask: Tensor) -> Tensor:
        """(N, S, C, H, W) → (N, F): average and maximum over the feature map's real slices."""
        feature_map, kept = self.backbone(slices.transpose(1, 2), mask)
        flat = feature_map.float().amax(dim=(3, 4))  # zero on padding, never below
        mean = feature_map.float().mean(dim=(3, 4)).sum(dim=2) / kept.sum(dim=1, keepdim=True)
        return torch.cat([mean, flat.amax(dim=2)], dim=1)
