"""Logits and pictures of the validation part → how the model's answers are read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from medcli.config import Calibration
from medcli.data.arrays import ScanArrays
from medcli.errors import UsageError
from medcli.evaluation.baselines import (
    histogram_features,
    logistic_baseline,
    thumbnail_features,
)
from medcli.evaluation.calibration import fit_scaling
from medcli.evaluation.conformal import label_set_levels, label_set_metrics, label_sets
from medcli.evaluation.intervals import patient_groups
from medcli.evaluation.metrics import classification_metrics
from medcli.evaluation.out_of_distribution import Reference, fit_reference, stack_views
from medcli.evaluation.thresholds import Choice, choose_threshold
from medcli.imaging.preprocess import LEVELS, sample_slices
from medcli.imaging.statistics import picture_views
from medcli.models.heads import answer_probabilities
from medcli.models.held_out import HeldOut
from medcli.records import Case, Task

REFERENCE_SCANS = 2000


def check_sensitivity(task: Task, wanted: float | None) -> None:
    """Raise where a sensitivity is wanted of a task that has no threshold.

    Raises
    ------
    UsageError : more than two classes, or not a number above 0 and up to 1
    """
    if wanted is None:
        return
    if not 0 < wanted <= 1:
        raise UsageError(f"--sensitivity {wanted:g}: not above 0 and up to 1", "Give 0.95, say")
    if task.positive is None:
        raise UsageError(
            f"--sensitivity sets the threshold of the positive one of two classes; {task.name!r} "
            f"has {len(task.classes)}, and its answer is the most probable one",
            "Leave --sensitivity out, or keep two classes with --classes",
        )


def calibrate(
    task: Task,
    labels: np.ndarray,
    logits: np.ndarray,
    sensitivity: float | None = None,
    *,
    evened: bool = False,
) -> tuple[Task, Calibration]:
    """Temperature, offsets and label sets, and the task with its threshold.

    Threshold and levels lie on the calibrated probabilities. The same scans chose the
    weights, so what holds on them holds elsewhere only nearly: the label sets cover a
    little less than they say. The numbers of the test part show by how much.

    Parameters
    ----------
    labels : (N,) class indices of the validation part
    logits : (N, K)
    sensitivity : wanted of the threshold; None, or out of reach: Youden's
    evened : the training took the classes for equally frequent
    """
    calibration = Calibration(*fit_scaling(labels, logits, evened=evened))
    probabilities = answer_probabilities(task, calibration, logits)
    levels = label_set_levels(labels, probabilities, calibration.coverage)
    calibration = replace(calibration, label_set_levels=tuple(map(float, levels)))
    choice = operating_point(task, calibration, labels, logits, sensitivity)
    return replace(task, threshold=choice.threshold if choice else None), calibration


def operating_point(
    task: Task,
    calibration: Calibration,
    labels: np.ndarray,
    logits: np.ndarray,
    sensitivity: float | None = None,
) -> Choice | None:
    """How the threshold of a task is chosen; None for a task without a positive class.

    Parameters are those of `calibrate`.
    """
    if task.positive is None:
        return None
    column = task.classes.index(task.positive)
    scores = answer_probabilities(task, calibration, logits)[:, column]
    return choose_threshold(labels == column, scores, sensitivity)


def held_out_answers(
    task: Task,
    calibration: Calibration,
    labels: np.ndarray,
    logits: np.ndarray,
    cases: Sequence[Case],
) -> HeldOut:
    """What `measure` or `measure_findings` measures, to be kept beside the numbers."""
    limits = task.thresholds if task.multi_label else task.threshold
    shape = labels.shape  # of findings one threshold each
    return HeldOut(
        groups=patient_groups([case.patient_id for case in cases], len(labels)),
        folds=np.zeros(len(labels), dtype=np.intp),
        labels=labels,
        probabilities=answer_probabilities(task, calibration, logits),
        thresholds=np.broadcast_to(np.nan if limits is None else np.array(limits), shape).copy(),
    )


def measure(
    task: Task,
    calibration: Calibration,
    labels: np.ndarray,
    logits: np.ndarray,
    cases: Sequence[Case],
    seed: int,
    sites: Sequence[str] | None = None,
) -> dict[str, Any]:
    """The numbers of a held-out part: (N,) `labels`, (N, K) `logits`, and its N `cases`.

    With `sites`, one a scan, those of each site besides.
    """
    probabilities = answer_probabilities(task, calibration, logits)
    patients = [case.patient_id for case in cases]
    metrics = classification_metrics(
        labels,
        probabilities,
        classes=task.classes,
        positive=task.positive,
        threshold=task.threshold,
        patients=patients,
        sites=sites,
        seed=seed,
    )
    levels = calibration.label_set_levels
    assert levels is not None  # `calibrate` made them
    metrics["label_sets"] = label_set_metrics(
        labels,
        label_sets(probabilities, levels),
        patient_groups(patients, len(labels)),
        classes=task.classes,
        target=calibration.coverage,
        seed=seed,
    )
    return metrics


def reference_scans(training: ScanArrays, validation: ScanArrays) -> Reference:
    """What the training scans look like, from at most `REFERENCE_SCANS` of them."""
    chosen = sample_slices(len(training.labels), REFERENCE_SCANS)
    return fit_reference(scan_views(training.select(chosen)), scan_views(validation))


def flagged_share(reference: Reference, scans: ScanArrays) -> float:
    """Share of `scans` beyond the limit of `reference`."""
    return float((reference.scores(scan_views(scans)) > 1).mean())


def scan_views(scans: ScanArrays) -> dict[str, np.ndarray]:
    """View → (N, F) features of N scans, as prediction computes them."""
    return stack_views([picture_views(images) for images in unit_images(scans)])


def unit_images(scans: ScanArrays) -> Iterator[np.ndarray]:
    """The (S, C, H, W) slices of each scan in 0–1."""
    for start, end in pairwise(scans.offsets):
        yield scans.images[start:end].astype(np.float32) / LEVELS


def picture_baselines(
    task: Task,
    training: ScanArrays,
    held_out: ScanArrays,
    cases: Sequence[Case],
    seed: int,
) -> dict[str, Any]:
    """What thumbnails and histograms alone reach on the held-out part, whose `cases` these are."""
    each = REFERENCE_SCANS // len(task.classes)
    own = [np.flatnonzero(training.labels == k) for k in range(len(task.classes))]
    rows = np.concatenate([scans[sample_slices(len(scans), each)] for scans in own])
    chosen = training.select(rows)
    features = {"thumbnail": thumbnail_features, "histogram": histogram_features}
    return {
        name: logistic_baseline(
            *(
                (np.stack([describe(images) for images in unit_images(scans)]), scans.labels)
                for scans in (chosen, held_out)
            ),
            classes=task.classes,
            positive=task.positive,
            patients=[case.patient_id for case in cases],
            seed=seed,
        )
        for name, describe in features.items()
    }
