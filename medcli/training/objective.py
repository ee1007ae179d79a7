"""What training minimises."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from medcli.config import TrainConfig
from medcli.data.arrays import ScanArrays
from medcli.data.mixing import Mixing
from medcli.models.scan_model import ScanModel, ScanOutput
from medcli.training.balancing import class_shares, class_weights, scan_weights
from medcli.training.losses import (
    Target,
    contrastive_loss,
    proxy_loss,
    scan_and_slice_loss,
)

WEIGHTED = ("weights", "sampler", "focal")  # modes in which a scan counts by its class's size


class Objective:
    """The loss of a batch, with what it has to know of the whole training part.

    Parameters
    ----------
    train : the training part, whose classes and domains are counted
    num_classes : columns of the logits

    Attributes
    ----------
    chances : (N,) how often each scan is to be drawn, relatively; None: each once an epoch
    """

    def __init__(
        self, config: TrainConfig, train: ScanArrays, num_classes: int, device: torch.device
    ) -> None:
        self._config = config
        mode = config.imbalance
        weights = scan_weights(train.labels, num_classes, train.domains, by_class=mode in WEIGHTED)
        drawn = mode == "sampler"
        self.chances = torch.from_numpy(weights) if drawn else None
        counts = torch.from_numpy(np.ones_like(weights) if drawn else weights).float()
        self._labels = torch.from_numpy(train.labels).to(device)
        one_hot = F.one_hot(self._labels, num_classes).float()
        self._shares = one_hot * counts.to(device)[:, None]
        self._offsets: Tensor | float = 0.0
        if mode == "logit-adjust":
            # Menon et al.: Long-tail learning via logit adjustment, ICLR 2021, eq. 10 with
            # tau = 1. In training only: the logits themselves then are those of even classes.
            log_shares = np.log(class_shares(train.labels, num_classes, weights))
            self._offsets = torch.from_numpy(log_shares).float().to(device)
        self._blocks: tuple[slice, ...] = (slice(None),)
        self._classes = num_classes
        even = class_weights(train.labels, num_classes)
        self._of_classes = torch.from_numpy(np.ones_like(even) if mode == "none" else even).float()

    def target(self, batch: np.ndarray, mixing: Mixing | None = None) -> Target:
        """What the scans numbered in `batch` are asked for, mixed where they were mixed."""
        rows = torch.from_numpy(batch).to(self._labels.device, non_blocking=True)
        labels, shares = self._labels[rows], self._shares[rows]
        if mixing is not None:
            own = mixing.shares[:, None]
            shares = own * shares + (1 - own) * shares[mixing.partners]
        return Target(labels, shares)

    def __call__(
        self,
        model: ScanModel,
        output: ScanOutput,
        features: Tensor,
        target: Target,
        lengths: list[int],
    ) -> Tensor:
        """The loss to go down; (T, F) slice features, T = sum(lengths)."""
        config = self._config
        loss = scan_and_slice_loss(
            *(model, output, features, target, lengths, config, self._offsets, self._blocks)
        )
        if config.metric_loss == "none":
            return loss
        learnt = learnt_part(model, output)
        if config.metric_loss == "supcon":
            metric = contrastive_loss(learnt, target.labels, target.shares.sum(dim=1))
        else:
            # The head's rows are what the classes are told apart by: no second set of proxies.
            metric = proxy_loss(learnt, target.labels, model.head.weight[: self._classes])
        return loss + config.metric_weight * metric

    def validation(self, logits: Tensor, labels: Tensor) -> float:
        """Cross-entropy of (N, K) logits on the CPU; breaks ties between epochs.

        Classes count alike, as the logits of every mode but "none" take them to be.
        """
        return float(F.cross_entropy(logits, labels, self._of_classes))


def learnt_part(model: ScanModel, output: ScanOutput) -> Tensor:
    """(N, D) of unit length: the embedding without its layout (`ScanModel.join`)."""
    return F.normalize(output.embedding[:, : model.projection.out_features], dim=1)
