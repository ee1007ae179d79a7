"""The model shape for a crop around one finding: what lies in its region is seen and measured."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medcli.config import ModelConfig
from medcli.layers.finding import crop_middle, find_region, region_mean
from medcli.layers.measures import MEASURES, RAW, measure_scans, measure_slices
from medcli.layers.pooling import Aggregator
from medcli.layers.quantiles import QuantileScores
from medcli.models.registry import AGGREGATORS, REGIONS, resolve
from medcli.models.scan_model import ScanModel, SliceFeatures

SEEN = 32  # pixels a side that the convolutions see
MEASURED = 48  # and those that are measured
MIXED = 64  # features that learnt ones and measures are mixed to
FORGOTTEN = 0.5  # share of the measures that a training step does without: they are alike


class RegionModel(ScanModel):
    """(N, S, C, H, W) scans of values in 0–1, (N, S) mask → `ScanOutput`.

    The features of a slice are what the network sees in the region, and the sums that its
    measures are made from. Sums of slices add up to those of the stack, so a scan is measured
    as a volume and a slice as a volume of one.
    """

    def _build_features(self, config: ModelConfig, channels: int, size: int) -> int:
        self.backbone = resolve(REGIONS, "architecture", config.arch)(channels, size)
        learnt = int(self.backbone.num_features)
        inner = resolve(AGGREGATORS, "aggregator", config.aggregator)(learnt)
        self.aggregator = MeasuringAggregator(inner, learnt, config.dropout)
        return MIXED

    def encode(self, images: Tensor) -> SliceFeatures:
        """(T, C, H, W) slices in 0–1 → pooled features beside raw measures, and layout."""
        grey = images.mean(dim=1, keepdim=True)
        raw, region = measured(grey)
        seen, inside = crop_middle(grey, SEEN), crop_middle(region, SEEN)
        coarse, fine = self.backbone(seen, inside)
        halved = F.max_pool2d(inside, 2, ceil_mode=True)
        pooled = [
            region_mean(fine, inside),
            region_mean(coarse, halved),
            (coarse * halved).amax(dim=(2, 3)),
        ]
        learnt = torch.cat([*(part.float() for part in pooled), raw], dim=1)
        return SliceFeatures(learnt, self.layout(images).float())

    @torch.no_grad()
    def prepare(self, images: Tensor, lengths: list[int]) -> None:
        """Learn how the measures of the training part are distributed.

        Parameters
        ----------
        images : (T, C, H, W) slices in 0–1 of scans with `lengths` slices
        """
        raw = torch.cat(
            [measured(p.mean(dim=1, keepdim=True))[0] for p in torch.split(images, 256)]
        )
        padded = nn.utils.rnn.pad_sequence(list(torch.split(raw, lengths)), batch_first=True)
        mask = torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]
        self.aggregator.scores.fit(measure_scans(padded, mask))


@torch.no_grad()
def measured(grey: Tensor) -> tuple[Tensor, Tensor]:
    """(T, 1, H, W) values in 0–1 → (T, len(RAW)) sums and the region; nothing here is learnt."""
    grey = grey.float()
    region = find_region(grey)
    return measure_slices(crop_middle(grey, MEASURED), crop_middle(region, MEASURED)), region


class MeasuringAggregator(Aggregator):
    """(N, S, F + R) learnt features beside raw measures, (N, S) mask → (N, `MIXED`), (N, S).

    Parameters
    ----------
    inner : what makes one of the learnt features of the slices
    learnt : F, how many these are
    """

    def __init__(self, inner: Aggregator, learnt: int, dropout: float) -> None:
        super().__init__()
        self.inner, self.learnt = inner, learnt
        self.scores = QuantileScores(len(MEASURES))
        self.dropout, self.forget = nn.Dropout(dropout), nn.Dropout(FORGOTTEN)
        self.mix = nn.Sequential(nn.Linear(learnt + len(MEASURES), MIXED), nn.GELU())

    def forward(self, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Aggregate what was learnt, measure the volume, mix both."""
        raw = features[..., self.learnt :]
        whole, weights = self.inner(features[..., : self.learnt], mask)
        return self._mixed(whole, measure_scans(raw, mask)), weights

    def single(self, features: Tensor) -> Tensor:
        """(…, F + R) slices → (…, `MIXED`) of each as a scan of its own."""
        raw = features[..., self.learnt :].reshape(-1, 1, len(RAW))
        mask = torch.ones_like(raw[..., 0], dtype=torch.bool)
        measures = measure_scans(raw, mask).reshape(*features.shape[:-1], len(MEASURES))
        return self._mixed(self.inner.single(features[..., : self.learnt]), measures)

    def _mixed(self, learnt: Tensor, measures: Tensor) -> Tensor:
        parts = [self.dropout(learnt), self.forget(self.scores(measures))]
        mixed: Tensor = self.mix(torch.cat(parts, dim=-1))
        return mixed
