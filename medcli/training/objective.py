"""What training minimises."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from medcli.config import TrainConfig
from medcli.data.arrays import ScanArrays
from medcli.models.scan_model import ScanModel, ScanOutput
from medcli.training.losses import class_weights, scan_and_slice_loss


class Objective:
    """The loss of a batch, with what it has to know of the whole training part.

    Parameters
    ----------
    train : the training part, whose classes are counted
    num_classes : columns of the logits
    """

    def __init__(
        self, config: TrainConfig, train: ScanArrays, num_classes: int, device: torch.device
    ) -> None:
        self._config = config
        self._weights = class_weights(torch.from_numpy(train.labels), num_classes).to(device)

    def __call__(
        self,
        model: ScanModel,
        output: ScanOutput,
        features: Tensor,
        labels: Tensor,
        lengths: list[int],
    ) -> Tensor:
        """The loss to go down; (T, F) slice features, (N,) labels, T = sum(lengths)."""
        return scan_and_slice_loss(
            model, output, features, labels, lengths, self._weights, self._config
        )

    def validation(self, logits: Tensor, labels: Tensor) -> float:
        """Weighted cross-entropy of (N, K) logits on the CPU; breaks ties between epochs."""
        return float(F.cross_entropy(logits, labels, self._weights.cpu()))
