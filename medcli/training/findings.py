"""Several findings of one scan: what training minimises, and what is fixed and measured after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from medcli.config import Calibration, TrainConfig
from medcli.data.arrays import ScanArrays
from medcli.data.mixing import Mixing
from medcli.evaluation.calibration import fit_platt, sigmoid
from medcli.evaluation.findings import finding_baselines, finding_metrics
from medcli.evaluation.thresholds import youden_threshold
from medcli.imaging.preprocess import sample_slices
from medcli.models.scan_model import ScanModel, ScanOutput
from medcli.records import Case, Task
from medcli.training.calibrating import REFERENCE_SCANS, unit_images
from medcli.training.losses import Target

HEAVIEST = 20.0  # weight of a scan that has a finding; rarer ones than 1 in 21 weigh no more


class FindingsObjective:
    """Binary cross-entropy, each finding a question of its own.

    Scans with a finding weigh as much as those without it, up to `HEAVIEST` times one
    without. As with classes, slices of a stack are asked alone too.

    Parameters
    ----------
    train : the training part, (N, F) labels of 0 and 1
    """

    def __init__(self, config: TrainConfig, train: ScanArrays, device: torch.device) -> None:
        self._config = config
        self.chances = None
        self._labels = torch.from_numpy(train.labels).float().to(device)
        with_it = torch.from_numpy(train.labels).float().sum(dim=0)
        weights = (len(train.labels) - with_it) / with_it.clamp(min=1)
        self._weights = weights.clamp(max=HEAVIEST).to(device)

    def target(self, batch: np.ndarray, mixing: Mixing | None = None) -> Target:
        """(N, F) what the scans numbered in `batch` have, mixed where they were mixed."""
        rows = torch.from_numpy(batch).to(self._labels.device, non_blocking=True)
        labels = self._labels[rows]
        if mixing is None:
            return Target(labels, labels)
        own = mixing.shares[:, None]
        return Target(labels, own * labels + (1 - own) * labels[mixing.partners])

    def __call__(
        self,
        model: ScanModel,
        output: ScanOutput,
        features: Tensor,
        target: Target,
        lengths: list[int],
    ) -> Tensor:
        """The loss to go down; (T, F) slice features, T = sum(lengths)."""
        labels = target.shares
        loss = self._loss(output.logits, labels).mean()
        if not self._config.slice_loss or max(lengths) == 1 or model.aggregator is None:
            return loss
        repeats = torch.tensor(lengths).to(labels.device, non_blocking=True)
        logits = model.classify(model.project(model.aggregator.single(features)))
        every = {"dim": 0, "output_size": len(features)}
        each = self._loss(logits, labels.repeat_interleave(repeats, **every)).mean(dim=1)
        share = (1 / repeats).repeat_interleave(repeats, **every)
        return loss + self._config.slice_loss * (each * share).sum() / len(lengths)

    def validation(self, logits: Tensor, labels: Tensor) -> float:
        """The loss of (N, F) logits on the CPU; breaks ties between epochs."""
        return float(self._loss(logits, labels).mean())

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """(N, F) losses."""
        smoothing = self._config.label_smoothing
        targets = labels.float() * (1 - smoothing) + smoothing / 2
        weights = self._weights.to(logits.device)
        return F.binary_cross_entropy_with_logits(
            logits, targets, pos_weight=weights, reduction="none"
        )


def calibrate_findings(
    task: Task, labels: np.ndarray, logits: np.ndarray
) -> tuple[Task, Calibration]:
    """Scale and offset of each finding, and the task with their thresholds (Youden's).

    Parameters
    ----------
    labels : (N, F) of 0 and 1, of the validation part
    logits : (N, F)
    """
    platt = tuple(fit_platt(labels[:, f] == 1, logits[:, f]) for f in range(labels.shape[1]))
    probabilities = sigmoid(logits, platt)
    thresholds = tuple(
        youden_threshold(labels[:, f] == 1, probabilities[:, f])
        if 0 < labels[:, f].sum() < len(labels)
        else 0.5
        for f in range(labels.shape[1])
    )
    return replace(task, thresholds=thresholds), Calibration(platt=platt)


def measure_findings(
    task: Task,
    calibration: Calibration,
    train: ScanArrays,
    held_out: ScanArrays,
    logits: np.ndarray,
    cases: Sequence[Case],
    seed: int,
    sites: Sequence[str | None] | None = None,
) -> dict[str, Any]:
    """The numbers of a held-out part, and what thumbnails and histograms alone reach there.

    Parameters
    ----------
    logits : (N, F) of `held_out`, whose N scans are those of `cases`
    """
    patients = [case.patient_id for case in cases]
    metrics = finding_metrics(
        held_out.labels,
        sigmoid(logits, calibration.platt),
        findings=task.classes,
        thresholds=task.thresholds,
        patients=patients,
        sites=sites,
        seed=seed,
    )
    known = train.select(sample_slices(len(train.labels), REFERENCE_SCANS))
    parts = ((list(unit_images(scans)), scans.labels) for scans in (known, held_out))
    baselines = finding_baselines(*parts, patients=patients, seed=seed)
    return {**metrics, "label_sets": None, "baselines": baselines}
