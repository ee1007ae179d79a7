"""Area under the ROC curve, for one sample and for many weighted resamples at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medcli.evaluation.intervals import Statistic, mean_statistic


def auroc(positive: np.ndarray, scores: np.ndarray) -> float | None:
    """Probability that a positive scores above a negative; a tie counts one half.

    Parameters
    ----------
    positive : (N,) bool
    scores : (N,) finite, higher means more likely positive

    Returns
    -------
    0–1, None where one of the two classes is absent
    """
    value = float(auroc_statistic(positive, scores)(np.ones((1, len(scores))))[0])
    return None if np.isnan(value) else value


def auroc_statistic(positive: np.ndarray, scores: np.ndarray) -> Statistic:
    """The AUROC as a function of row weights: (B, N) weights → (B,), NaN where undefined.

    The rows are sorted once; each resample then costs a weighted Mann–Whitney
    count over the groups of equal scores.

    References
    ----------
    Hanley, McNeil 1982, doi:10.1148/radiology.143.1.7063747
    """
    order = np.argsort(scores, kind="stable")
    is_positive = np.asarray(positive, dtype=bool)[order]
    ties_start = np.flatnonzero(np.diff(scores[order], prepend=-np.inf))

    def statistic(weights: np.ndarray) -> np.ndarray:
        ordered = weights[:, order]
        positives = np.add.reduceat(ordered * is_positive, ties_start, axis=1)
        negatives = np.add.reduceat(ordered * ~is_positive, ties_start, axis=1)
        negatives_below = np.cumsum(negatives, axis=1) - negatives
        won = (positives * (negatives_below + negatives / 2)).sum(axis=1)
        pairs = positives.sum(axis=1) * negatives.sum(axis=1)
        area: np.ndarray = np.divide(won, pairs, out=np.full(len(weights), np.nan), where=pairs > 0)
        return area

    return statistic


def mean_auroc_statistic(
    labels: np.ndarray, scores: np.ndarray, columns: Sequence[int]
) -> Statistic:
    """Mean AUROC of `columns` of (N, K) scores, each class against the rest.

    NaN where a resample misses one of these classes.
    """
    return mean_statistic([auroc_statistic(labels == k, scores[:, k]) for k in columns])


def average_precision_statistic(positive: np.ndarray, scores: np.ndarray) -> Statistic:
    """The average precision as a function of row weights: (B, N) → (B,), NaN without positives.

    Rows of equal score enter together, as in scikit-learn.

    References
    ----------
    Davis, Goadrich 2006, doi:10.1145/1143844.1143874 (why points are not joined by lines)
    """
    order = np.argsort(-scores, kind="stable")
    is_positive = np.asarray(positive, dtype=bool)[order]
    ties_start = np.flatnonzero(np.diff(-scores[order], prepend=-np.inf))

    def statistic(weights: np.ndarray) -> np.ndarray:
        ordered = weights[:, order]
        found = np.add.reduceat(ordered * is_positive, ties_start, axis=1)
        seen = np.cumsum(np.add.reduceat(ordered, ties_start, axis=1), axis=1)
        precision = np.divide(
            np.cumsum(found, axis=1), seen, out=np.zeros(seen.shape), where=seen > 0
        )
        total = found.sum(axis=1)
        undefined = np.full(len(weights), np.nan)
        area = (found * precision).sum(axis=1)
        mean: np.ndarray = np.divide(area, total, out=undefined, where=total > 0)
        return mean

    return statistic
