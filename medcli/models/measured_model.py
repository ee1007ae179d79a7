"""The model shape with a regression on measures of the finding beside the network.

A network learns from pixels, and of a few hundred findings it learns less of their size, density
and edges than a regression that is told them. Both are asked, and their logits are added (a
logarithmic opinion pool: Genest, Zidek: Combining Probability Distributions, Statistical Science
1986). Embeddings are the network's alone.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medcli.config import ModelConfig
from medcli.layers.measures import MEASURES, measure_scans
from medcli.layers.quantiles import QuantileScores
from medcli.models.region_model import measured
from medcli.models.scan_model import ScanModel, ScanOutput, SliceFeatures

SIDE = 64  # pixels a side of a crop that is measured, whatever side the network sees


class MeasuredModel(ScanModel):
    """(N, S, C, H, W) scans around one finding, (N, S) mask of real slices → `ScanOutput`.

    The regression answers for the columns that `ModelConfig.measured_columns` names; it is
    fitted once the network is trained (`medcli.training.regression`).
    """

    def __init__(self, config: ModelConfig, channels: int, size: int, num_classes: int) -> None:
        super().__init__(config, channels, size, num_classes)
        assert config.measured_columns is not None
        first, end = config.measured_columns
        self.around = (first, num_classes - end)  # columns that the regression has no say in
        self.regression = MeasureRegression(end - first)
        self.register_buffer("pixel_mean", torch.zeros(channels))
        self.register_buffer("pixel_std", torch.ones(channels))

    def encode(self, images: Tensor) -> SliceFeatures:
        """(T, C, H, W) standardised slices → features as of every model, and what is measured."""
        return super().encode(images)._replace(measured=self.measure(images))

    @torch.no_grad()
    def measure(self, images: Tensor) -> Tensor:
        """(T, C, H, W) standardised slices → (T, R) sums (`medcli.layers.measures`)."""
        mean, std = (self.get_buffer(name).view(-1, 1, 1) for name in ("pixel_mean", "pixel_std"))
        grey = (images * std + mean).mean(dim=1, keepdim=True)
        if images.shape[-1] != SIDE:
            grey = F.interpolate(grey, (SIDE, SIDE), mode="bilinear", align_corners=False)
        return measured(grey)[0]

    def aggregate(self, features: SliceFeatures, mask: Tensor) -> ScanOutput:
        """As of every model; the logits are those of both."""
        assert features.measured is not None
        output = super().aggregate(features, mask)
        answers = self.regression(measure_scans(features.measured, mask))
        return output._replace(logits=output.logits + F.pad(answers, self.around))


class MeasureRegression(nn.Module):
    """(N, M) measures of scans → (N, K) logits, linear in the measures' normal scores."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.scores = QuantileScores(len(MEASURES))
        self.linear = nn.Linear(len(MEASURES), classes)

    def forward(self, measures: Tensor) -> Tensor:
        """The logits of each class."""
        logits: Tensor = self.linear(self.scores(measures))
        return logits
