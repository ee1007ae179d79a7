"""How well boxes are found: average precision and free-response recall.

A box hits a true box of its class, which no better-scored one has hit, where both overlap
by the asked share (intersection over union). Whether it does depends on its own slice alone,
so a resample of patients is a weight for each slice, as in `medcli.evaluation.intervals`.

References
----------
Lin et al.: Microsoft COCO, ECCV 2014, and its evaluation code (101 points of recall, matches
taken by falling score). Bunch et al.: A free response approach, 1978 (FROC).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from medcli.evaluation.intervals import Statistic, patient_bootstrap
from medcli.evaluation.overlap import box_iou

OVERLAPS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
"""Shares of overlap that AP50–95 is the mean over."""
FALSE_POSITIVES = (1, 4, 8)
"""False boxes an image at which recall is given."""
_POINTS = np.linspace(0, 1, 101)


@dataclass(frozen=True, slots=True, eq=False)
class ImageBoxes:
    """True and found boxes of one image: (T, 4), (T,) classes; (F, 4), (F,) scores, classes."""

    truths: np.ndarray
    truth_classes: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class _Ranked:
    """All found boxes by falling score, and how many true ones there are.

    Attributes
    ----------
    scores, image : (F,) of each found box
    hits : (F,) bool
    truths : (N,) true boxes of each image
    """

    scores: np.ndarray
    image: np.ndarray
    hits: np.ndarray
    truths: np.ndarray


def detection_metrics(
    images: Sequence[ImageBoxes], groups: np.ndarray, num_classes: int, *, seed: int = 0
) -> dict[str, Any]:
    """AP50, AP50–95, recall at false positives an image, with intervals over patients.

    Parameters
    ----------
    images : one for each slice that was looked at
    groups : (N,) patient of each, as from `patient_groups`
    num_classes : classes count from 0; AP is the mean over those with true boxes

    Returns
    -------
    ap50, ap50_95, recall_at_fppi {"1": …}, n_images, n_boxes, ci {same keys}; None where
    there are no true boxes. Recall is at an overlap of 0.5, over the boxes of all classes
    """
    statistics = _statistics(images, num_classes)
    ones = np.ones((1, len(images)))
    values = {name: _value(statistic(ones)[0]) for name, statistic in statistics.items()}
    drawn = patient_bootstrap(statistics, groups, seed=seed)
    bounds = {name: None if values[name] is None else drawn[name].bounds for name in values}
    return {
        **_nested(values),
        "n_images": len(images),
        "n_boxes": sum(len(image.truths) for image in images),
        "ci": _nested(bounds),
    }


def _statistics(images: Sequence[ImageBoxes], num_classes: int) -> dict[str, Statistic]:
    """Every number as a function of row weights."""
    present = [k for k in range(num_classes) if any((i.truth_classes == k).any() for i in images)]
    ranked = {
        overlap: [_rank([_of_class(image, k) for image in images], overlap) for k in present]
        for overlap in OVERLAPS
    }
    pooled = _rank_pooled(images, num_classes)
    return {
        "ap50": _mean_precision([ranked[0.5]]),
        "ap50_95": _mean_precision(list(ranked.values())),
        **{f"recall_{limit}": _recall_at(pooled, limit) for limit in FALSE_POSITIVES},
    }


def _nested(values: dict[str, Any]) -> dict[str, Any]:
    recalls = {str(limit): values[f"recall_{limit}"] for limit in FALSE_POSITIVES}
    return {"ap50": values["ap50"], "ap50_95": values["ap50_95"], "recall_at_fppi": recalls}


def _value(number: float) -> float | None:
    return None if np.isnan(number) else float(number)


def _of_class(image: ImageBoxes, k: int) -> ImageBoxes:
    true, found = image.truth_classes == k, image.classes == k
    return ImageBoxes(
        image.truths[true],
        image.truth_classes[true],
        image.boxes[found],
        image.scores[found],
        image.classes[found],
    )


def _rank(images: Sequence[ImageBoxes], overlap: float) -> _Ranked:
    """The boxes of one class over all images."""
    hits = [matched(image.boxes, image.scores, image.truths, overlap) for image in images]
    return _sorted(
        np.concatenate([image.scores for image in images]),
        np.repeat(np.arange(len(images)), [len(each) for each in hits]),
        np.concatenate(hits),
        np.array([len(image.truths) for image in images], dtype=float),
    )


def _rank_pooled(images: Sequence[ImageBoxes], num_classes: int) -> _Ranked:
    """The boxes of all classes, each of which can hit those of its own alone, at half overlap."""
    parts = [(n, _of_class(i, k)) for k in range(num_classes) for n, i in enumerate(images)]
    hits = [matched(part.boxes, part.scores, part.truths, 0.5) for _, part in parts]
    return _sorted(
        np.concatenate([part.scores for _, part in parts]),
        np.repeat([number for number, _ in parts], [len(each) for each in hits]),
        np.concatenate(hits),
        np.array([len(image.truths) for image in images], dtype=float),
    )


def _sorted(scores: np.ndarray, image: np.ndarray, hits: np.ndarray, truths: np.ndarray) -> _Ranked:
    order = np.argsort(-scores, kind="stable")
    return _Ranked(scores[order], image[order], hits[order].astype(bool), truths)


def best_threshold(images: Sequence[ImageBoxes], num_classes: int) -> float:
    """The score from which boxes are to count so that F1 at half overlap is highest; else 0.5.

    F1 is the harmonic mean of recall and the share of boxes that hit.
    """
    ranked = _rank_pooled(images, num_classes)
    total = float(ranked.truths.sum())
    if not len(ranked.hits) or not total:
        return 0.5
    found, false = _counts(ranked, np.ones((1, len(images))))
    quality = 2 * found[0] / (found[0] + false[0] + total)
    best = int(quality.argmax())
    return float(ranked.scores[best]) if quality[best] > 0 else 0.5


def matched(
    boxes: np.ndarray, scores: np.ndarray, truths: np.ndarray, overlap: float
) -> np.ndarray:
    """(F,) whether each box hits a true one: by falling score, each the best that is left."""
    hits = np.zeros(len(boxes), dtype=bool)
    if not len(boxes) or not len(truths):
        return hits
    shares = box_iou(boxes, truths)
    for place in np.argsort(-scores, kind="stable"):
        best = int(shares[place].argmax())
        if shares[place, best] >= overlap:
            hits[place] = True
            shares[:, best] = -1
    return hits


def _mean_precision(ranked: Sequence[Sequence[_Ranked]]) -> Statistic:
    """The mean over overlaps and classes."""
    every = [each for of_overlap in ranked for each in of_overlap]

    def statistic(weights: np.ndarray) -> np.ndarray:
        if not every:
            return np.full(len(weights), np.nan)
        return np.asarray(np.mean([_average_precision(each, weights) for each in every], axis=0))

    return statistic


def _average_precision(ranked: _Ranked, weights: np.ndarray) -> np.ndarray:
    """(B, N) weights → (B,) mean of the precision at 101 points of recall."""
    found, false = _counts(ranked, weights)
    truths = weights @ ranked.truths
    recall = found / np.where(truths > 0, truths, np.nan)[:, None]
    precision = found / np.maximum(found + false, 1e-9)
    highest = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    highest = np.pad(highest, ((0, 0), (0, 1)))  # beyond the last box nothing is found
    result = np.full(len(weights), np.nan)
    for row in np.flatnonzero(truths > 0):
        places = np.searchsorted(recall[row], _POINTS, side="left")
        result[row] = highest[row, places].mean()
    return result


def _recall_at(ranked: _Ranked, limit: float) -> Statistic:
    """Recall at the lowest score at which there are at most `limit` false boxes an image."""

    def statistic(weights: np.ndarray) -> np.ndarray:
        found, false = _counts(ranked, weights)
        allowed = false <= limit * weights.sum(axis=1, keepdims=True) + 1e-9
        best = np.where(allowed, found, 0).max(axis=1, initial=0)
        truths = weights @ ranked.truths
        undefined = np.full(len(weights), np.nan)
        return np.asarray(np.divide(best, truths, out=undefined, where=truths > 0))

    return statistic


def _counts(ranked: _Ranked, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(B, F) boxes that hit and that do not, down to each score."""
    each = weights[:, ranked.image]
    return np.cumsum(each * ranked.hits, axis=1), np.cumsum(each * ~ranked.hits, axis=1)
