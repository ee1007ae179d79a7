"""The one model shape: slices → backbone → aggregator → embedding → head."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medcli.config import ModelConfig
from medcli.layers.layout import Layout
from medcli.models.registry import (
    AGGREGATORS,
    BACKBONES,
    REGIONS,
    VOLUMES,
    check_network,
    resolve,
)


class ScanOutput(NamedTuple):
    """What the model says of a batch of N scans with up to S slices.

    logits (N, K), the columns of `medcli.models.heads`; embedding (N, V) unit length;
    slice_embeddings (N, S, V) unit length; attention (N, S), 0 on padding. V is
    `ModelConfig.vector_dim`.
    """

    logits: Tensor
    embedding: Tensor
    slice_embeddings: Tensor
    attention: Tensor


class SliceFeatures(NamedTuple):
    """What is known of each of T slices: learnt features (T, F), layout (T, grid²).

    measured (T, R) are the sums that a `MeasuredModel` makes its measures of. Of scans that are
    padded to S slices the first axis is N, S in place of T.
    """

    learnt: Tensor
    layout: Tensor
    measured: Tensor | None = None

    def each(self, change: Callable[[Tensor], Tensor]) -> SliceFeatures:
        """Every part changed."""
        measured = None if self.measured is None else change(self.measured)
        return SliceFeatures(change(self.learnt), change(self.layout), measured)


class ScanModel(nn.Module):
    """(N, S, C, H, W) scans, (N, S) mask of real slices → `ScanOutput`.

    A scan and a slice share one embedding space: both are made by the same layers, so a
    single picture can be compared with slices and with whole scans. An embedding joins two
    parts into one unit vector. The learnt part says what kind of scan it is, and the head
    sees it alone. The layout says where bright and dark lie: a network that was trained to
    tell classes apart maps neighbouring slices onto nearly one point, and the layout is
    what tells them apart when a picture asks for its slice.

    `num_classes` are the columns of the head: the classes of one task, or of several and their
    router (`medcli.models.heads.head_width`).
    """

    memory_format = torch.channels_last  # the order of the kernels that trains fastest

    def __init__(self, config: ModelConfig, channels: int, size: int, num_classes: int) -> None:
        super().__init__()
        num_features = self._build_features(config, channels, size)
        self.projection = nn.Linear(num_features, config.embedding_dim)
        self.layout = Layout(size, config.layout_grid)
        self.layout_share = config.layout_share
        self.dropout = nn.Dropout(config.dropout)
        self.scale = nn.Parameter(torch.tensor(8.0))
        self.head = nn.Linear(config.embedding_dim, num_classes)

    def _build_features(self, config: ModelConfig, channels: int, size: int) -> int:
        """Make backbone and aggregator; the length of a scan's features."""
        self.backbone = resolve(BACKBONES, "architecture", config.arch)(channels, size)
        num_features = 2 * int(self.backbone.num_features)  # average and maximum pooling
        self.aggregator = resolve(AGGREGATORS, "aggregator", config.aggregator)(num_features)
        return num_features

    def prepare(self, images: Tensor, lengths: list[int]) -> None:
        """Look at the training part once before training; most networks have no need to.

        Parameters
        ----------
        images : (T, C, H, W) slices in 0–1 of scans with `lengths` slices
        """

    def encode(self, images: Tensor) -> SliceFeatures:
        """(T, C, H, W) slices → pooled features and layout."""
        feature_map = self.backbone(images)
        pooled = [feature_map.mean(dim=(2, 3)), feature_map.amax(dim=(2, 3))]
        return SliceFeatures(torch.cat(pooled, dim=1).float(), self.layout(images).float())

    def project(self, features: Tensor) -> Tensor:
        """(…, F) features of slices or scans → (…, D) unit length, the learnt part."""
        return F.normalize(self.projection(features), dim=-1)

    def classify(self, learnt: Tensor) -> Tensor:
        """(N, D) learnt parts → (N, K) logits."""
        return cast(Tensor, self.head(self.dropout(learnt) * self.scale))

    def join(self, learnt: Tensor, layout: Tensor) -> Tensor:
        """(…, D) and (…, grid²), unit length → (…, V) unit length.

        The cosine of two of them is the mean of the parts' cosines, weighted by share.
        """
        parts = [learnt * (1 - self.layout_share) ** 0.5, layout * self.layout_share**0.5]
        return F.normalize(torch.cat(parts, dim=-1), dim=-1)

    def aggregate(self, features: SliceFeatures, mask: Tensor) -> ScanOutput:
        """Features of (N, S) slices and their mask → all outputs."""
        scan_features, attention = self.aggregator(features.learnt, mask)
        slices = self.project(self.aggregator.single(features.learnt))
        return self._output(self.project(scan_features), slices, features.layout, attention)

    def _output(
        self, learnt: Tensor, slices: Tensor, layout: Tensor, attention: Tensor
    ) -> ScanOutput:
        """(N, D), (N, S, D) learnt parts, (N, S, grid²) layouts, (N, S) weights → all outputs."""
        scan_layout = F.normalize(torch.einsum("ns,nsg->ng", attention, layout), dim=-1)
        return ScanOutput(
            logits=self.classify(learnt),
            embedding=self.join(learnt, scan_layout),
            slice_embeddings=self.join(slices.expand(*layout.shape[:2], -1), layout),
            attention=attention,
        )

    def forward(self, images: Tensor, mask: Tensor) -> ScanOutput:
        """Padded batch in, all outputs out; the form that is exported."""
        count, slices = images.shape[:2]
        features = self.encode(images.flatten(0, 1))
        return self.aggregate(
            features.each(lambda part: part.reshape(count, slices, *part.shape[1:])), mask
        )

    def aggregate_ragged(self, features: SliceFeatures, lengths: list[int]) -> ScanOutput:
        """Features of scans with `lengths` slices, T = sum(lengths) → all outputs.

        With `encode` before it the same answer as `forward` on the padded batch, without
        the arithmetic on padding; training uses it.
        """
        mask = torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]
        rows = mask.flatten().nonzero().flatten()
        device = features.learnt.device
        mask, rows = (each.to(device, non_blocking=True) for each in (mask, rows))
        return self.aggregate(features.each(lambda part: _padded(part, mask, rows)), mask)


def _padded(part: Tensor, mask: Tensor, rows: Tensor) -> Tensor:
    """(T, …) of slices → (N, S, …), zero beyond a scan's slices; `rows` are the True of `mask`."""
    if len(part) == mask.numel():
        return part.reshape(*mask.shape, *part.shape[1:])
    empty = part.new_zeros(mask.numel(), *part.shape[1:])
    return empty.index_copy(0, rows, part).reshape(*mask.shape, *part.shape[1:])


def build_model(config: ModelConfig, channels: int, size: int, num_classes: int) -> ScanModel:
    """The untrained model that `config` names, for inputs of `channels` and `size` px.

    Raises
    ------
    UsageError : names that are not registered, or do not go together
    """
    check_network(config.arch, config.aggregator)
    if config.arch in VOLUMES:
        from medcli.models.volume_model import VolumeModel

        return VolumeModel(config, channels, size, num_classes)
    if config.arch in REGIONS:
        from medcli.models.region_model import RegionModel

        return RegionModel(config, channels, size, num_classes)
    if config.measured_columns is not None:
        from medcli.models.measured_model import MeasuredModel

        return MeasuredModel(config, channels, size, num_classes)
    return ScanModel(config, channels, size, num_classes)
