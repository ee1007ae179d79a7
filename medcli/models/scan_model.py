"""The one model shape: slices → backbone → aggregator → embedding → head."""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medcli.config import ModelConfig
from medcli.models.registry import AGGREGATORS, BACKBONES, resolve


class ScanOutput(NamedTuple):
    """What the model says of a batch of N scans with up to S slices.

    logits (N, K); embedding (N, D) unit length; slice_embeddings (N, S, D) unit
    length; attention (N, S), 0 on padding.
    """

    logits: Tensor
    embedding: Tensor
    slice_embeddings: Tensor
    attention: Tensor


class ScanModel(nn.Module):
    """(N, S, C, H, W) scans, (N, S) mask of real slices → `ScanOutput`.

    A scan and a slice share one embedding space: both are projected by the same
    layer, so a single picture can be compared with slices and with whole scans.
    The embedding has unit length; a learned scale gives the head its range.
    """

    def __init__(self, config: ModelConfig, channels: int, size: int, num_classes: int) -> None:
        super().__init__()
        self.backbone = resolve(BACKBONES, "architecture", config.arch)(channels, size)
        num_features = 2 * self.backbone.num_features  # average and maximum pooling
        self.aggregator = resolve(AGGREGATORS, "aggregator", config.aggregator)(num_features)
        self.projection = nn.Linear(num_features, config.embedding_dim)
        self.dropout = nn.Dropout(config.dropout)
        self.scale = nn.Parameter(torch.tensor(8.0))
        self.head = nn.Linear(config.embedding_dim, num_classes)

    def encode(self, images: Tensor) -> Tensor:
        """(T, C, H, W) slices → (T, F) pooled features."""
        feature_map = self.backbone(images)
        pooled = [feature_map.mean(dim=(2, 3)), feature_map.amax(dim=(2, 3))]
        return torch.cat(pooled, dim=1).float()

    def embed(self, features: Tensor) -> Tensor:
        """(…, F) features of slices or scans → (…, D) unit length."""
        return F.normalize(self.projection(features), dim=-1)

    def classify(self, embedding: Tensor) -> Tensor:
        """(N, D) embeddings → (N, K) logits."""
        return cast(Tensor, self.head(self.dropout(embedding) * self.scale))

    def aggregate(self, features: Tensor, mask: Tensor) -> ScanOutput:
        """(N, S, F) slice features → all outputs."""
        scan_features, attention = self.aggregator(features, mask)
        embedding = self.embed(scan_features)
        return ScanOutput(self.classify(embedding), embedding, self.embed(features), attention)

    def forward(self, images: Tensor, mask: Tensor) -> ScanOutput:
        """Padded batch in, all outputs out; the form that is exported."""
        count, slices = images.shape[:2]
        features = self.encode(images.flatten(0, 1))
        return self.aggregate(features.reshape(count, slices, -1), mask)

    def aggregate_ragged(self, features: Tensor, lengths: list[int]) -> ScanOutput:
        """(T, F) features of scans with `lengths` slices, T = sum(lengths) → all outputs.

        With `encode` before it the same answer as `forward` on the padded batch, without
        the arithmetic on padding; training uses it.
        """
        padded = nn.utils.rnn.pad_sequence(
            list(torch.split(features, lengths)), batch_first=True
        )  # (N, S, F)
        steps = torch.arange(padded.shape[1], device=features.device)
        mask = steps[None] < torch.tensor(lengths, device=features.device)[:, None]
        return self.aggregate(padded, mask)
