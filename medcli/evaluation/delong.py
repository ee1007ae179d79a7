"""The variance of an AUROC without resampling, and the interval that follows from it."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np


def delong_variance(
    positive: np.ndarray, scores: np.ndarray, groups: np.ndarray | None = None
) -> float | None:
    """Variance of the AUROC of `scores`, from ranks, in O(N log N).

    Parameters
    ----------
    positive : (N,) bool
    scores : (N,) finite, higher means more likely positive
    groups : (N,) patient of each row, 0 … G-1: rows of one patient may resemble each other;
        None: all rows are independent

    Returns
    -------
    None with fewer than two patients who have a positive row, or a negative one

    References
    ----------
    DeLong et al. 1988, doi:10.2307/2531595; by ranks: Sun, Xu 2014,
    doi:10.1109/LSP.2014.2337313; with patients: Obuchowski 1997, doi:10.2307/2533958
    """
    positive = np.asarray(positive, dtype=bool)
    patients = np.arange(len(positive)) if groups is None else groups
    n_patients = int(patients.max()) + 1
    sides = [positive, ~positive]
    counts = [np.bincount(patients[side], minlength=n_patients) for side in sides]
    if min(np.count_nonzero(count) for count in counts) < 2:
        return None
    placements = _placements(positive, np.asarray(scores))
    area = placements[positive].mean()
    # Of each patient and side: how far its placements lie from the mean, summed.
    excess = [
        np.bincount(patients[side], weights=placements[side] - area, minlength=n_patients)
        for side in sides
    ]
    variance = 2 * n_patients / (n_patients - 1) * (excess[0] @ excess[1])
    variance /= positive.sum() * (~positive).sum()
    for side, count, own in zip(sides, counts, excess, strict=True):
        with_rows = np.count_nonzero(count)
        variance += with_rows / (with_rows - 1) * (own @ own) / side.sum() ** 2
    return max(0.0, float(variance))


def delong_interval(
    positive: np.ndarray,
    scores: np.ndarray,
    groups: np.ndarray | None = None,
    level: float = 0.95,
) -> list[float] | None:
    """Interval of the AUROC from its variance, symmetric on the logit scale.

    Parameters
    ----------
    positive, scores, groups : as for `delong_variance`
    level : coverage, 0–1

    Returns
    -------
    two bounds inside 0–1; None where the variance is undefined or 0, as with an AUROC of 1

    References
    ----------
    Pepe 2003, "The statistical evaluation of medical tests", section 5.2 (logit scale)
    """
    variance = delong_variance(positive, scores, groups)
    if not variance:
        return None
    area = _placements(positive, scores)[np.asarray(positive, dtype=bool)].mean()
    if not 0 < area < 1:
        return None
    half = NormalDist().inv_cdf((1 + level) / 2) * variance**0.5 / (area * (1 - area))
    ends = np.log(area / (1 - area)) + half * np.array([-1, 1])
    return [float(1 / (1 + np.exp(-end))) for end in ends]


def _placements(positive: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """(N,) share of the other class that each row is on the right side of; ties count half."""
    ranks = _midranks(scores)
    placements = np.empty(len(scores))
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    placements[positive] = (ranks[positive] - _midranks(scores[positive])) / n_negative
    beaten = (ranks[~positive] - _midranks(scores[~positive])) / n_positive
    placements[~positive] = 1 - beaten
    return placements


def _midranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1; equal values share the mean of theirs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[place])
