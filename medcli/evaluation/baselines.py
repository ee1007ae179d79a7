"""What is reached with little or without looking: the rows beside every model's number."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from medcli.evaluation.area import foreground_area
from medcli.evaluation.intervals import patient_bootstrap, patient_groups
from medcli.evaluation.metrics import classification_metrics
from medcli.evaluation.ranking import auroc, auroc_statistic, mean_auroc_statistic

THUMBNAIL_SIDE = 16
HISTOGRAM_BINS = 32


def majority_baseline(
    labels: np.ndarray, training_labels: np.ndarray | None = None
) -> dict[str, float | None]:
    """Accuracy and AUROC of always answering with the most frequent class.

    Parameters
    ----------
    labels : (N,) class indices of the scans evaluated
    training_labels : (M,) where the class is chosen; None: on `labels`
    """
    known = labels if training_labels is None else training_labels
    majority = int(np.bincount(known).argmax())
    # A constant score ties every pair; without two classes there are no pairs.
    tied = auroc(labels == labels[0], np.zeros(len(labels)))
    return {"accuracy": float((labels == majority).mean()), "auroc": tied}


def area_scores(stacks: Iterable[np.ndarray]) -> np.ndarray:
    """(N,) foreground area of each (S, H, W, C) stack, in pixels."""
    return np.fromiter((foreground_area(pixels) for pixels in stacks), dtype=np.float64)


def area_baseline(
    positive: np.ndarray,
    areas: np.ndarray,
    *,
    training: tuple[np.ndarray, np.ndarray] | None = None,
    patients: Sequence[str | None] | None = None,
    seed: int = 0,
    resamples: int = 1000,
) -> dict[str, Any]:
    """AUROC of the area alone, with its interval by patient.

    Parameters
    ----------
    positive : (N,) bool
    areas : (N,) of the scans evaluated
    training : the same two of the training part, where the direction is settled;
        None: larger means positive
    patients : one a row, None or blank where unknown

    Returns
    -------
    `auroc`, `auroc_ci` and `direction` ("larger" or "smaller" means positive)
    """
    in_training = auroc(*training) if training else None
    larger = in_training is None or in_training >= 0.5
    scores = areas if larger else -areas
    interval = patient_bootstrap(
        {"auroc": auroc_statistic(positive, scores)},
        patient_groups(patients, len(areas)),
        seed=seed,
        resamples=resamples,
    )["auroc"]
    return {
        "auroc": auroc(positive, scores),
        "auroc_ci": interval.bounds,
        "direction": "larger" if larger else "smaller",
    }


def score_baseline(
    labels: np.ndarray,
    scores: np.ndarray,
    *,
    patients: Sequence[str | None] | None = None,
    seed: int = 0,
    resamples: int = 1000,
) -> dict[str, Any]:
    """AUROC of another classifier's scores, with its interval by patient.

    Parameters
    ----------
    labels : (N,) class indices of the scans evaluated
    scores : (N, K), higher means more likely; the mean over the classes present, each
        against the rest. Of two classes either column must rank as the other, reversed
    patients : one a row, None or blank where unknown

    Returns
    -------
    `auroc` and `auroc_ci`, None where fewer than two classes are present
    """
    present = np.unique(labels).tolist()
    if len(present) < 2:
        return {"auroc": None, "auroc_ci": None}
    statistic = mean_auroc_statistic(labels, scores, present)
    interval = patient_bootstrap(
        {"auroc": statistic},
        patient_groups(patients, len(labels)),
        seed=seed,
        resamples=resamples,
    )["auroc"]
    (value,) = statistic(np.ones((1, len(labels))))
    return {"auroc": float(value), "auroc_ci": interval.bounds}


def thumbnail_features(images: np.ndarray) -> np.ndarray:
    """(S, C, H, W) in 0–1 → (C · 256,) means of 16 × 16 fields, averaged over the slices.

    A mark at one place, a border or the size of the patient is all they can see.
    """
    mean = images.mean(axis=0)  # (C, H, W)
    for axis in (1, 2):
        ends = np.linspace(0, mean.shape[axis], THUMBNAIL_SIDE + 1).astype(int)
        sums = np.add.reduceat(mean, np.minimum(ends[:-1], mean.shape[axis] - 1), axis=axis)
        sizes = np.maximum(np.diff(ends), 1)
        mean = sums / np.expand_dims(sizes, tuple({0, 1, 2} - {axis}))
    return np.asarray(mean.ravel())


def histogram_features(images: np.ndarray) -> np.ndarray:
    """(S, C, H, W) in 0–1 → (C · 32,) share of each level of grey or colour, whatever its place."""
    steps = np.minimum((images * HISTOGRAM_BINS).astype(np.intp), HISTOGRAM_BINS - 1)
    return np.concatenate(
        [
            np.bincount(channel.ravel(), minlength=HISTOGRAM_BINS) / channel.size
            for channel in np.moveaxis(steps, 1, 0)
        ]
    )


def logistic_baseline(
    training: tuple[np.ndarray, np.ndarray],
    held_out: tuple[np.ndarray, np.ndarray],
    *,
    classes: Sequence[str],
    positive: str | None,
    patients: Sequence[str | None] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """What a logistic regression on simple features reaches; close to the model, it warns.

    Parameters
    ----------
    training, held_out : (N, F) features and (N,) class indices of each part; every class
        stands in the training part
    classes, positive, patients, seed : as for `classification_metrics`

    Returns
    -------
    `auroc`, `auroc_ci`, `accuracy`, `accuracy_ci`

    References
    ----------
    Geirhos et al. 2020, arXiv:2004.07780 (shortcut learning)
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    regression = LogisticRegression(C=0.1, class_weight="balanced", max_iter=2000)
    model = make_pipeline(StandardScaler(), regression).fit(*training)
    metrics = classification_metrics(
        held_out[1],
        model.predict_proba(held_out[0]),
        classes=classes,
        positive=positive,
        patients=patients,
        seed=seed,
    )
    return {name: metrics[name] for name in ("auroc", "auroc_ci", "accuracy", "accuracy_ci")}
