"""The curves of a report: ROC with its band, precision over recall, reliability."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medcli.evaluation.calibration import ECE_BINS
from medcli.evaluation.intervals import Statistic, patient_band

GRID = np.linspace(0, 1, 101)  # false positive rates at which the band is given


@dataclass(frozen=True, slots=True)
class Roc:
    """One class against the rest.

    Attributes
    ----------
    false_positive, true_positive : (P,) rates, from (0, 0) to (1, 1)
    band : (2, 101) 95 % bounds of the true positive rate at `GRID`, None where none can be given
    """

    false_positive: np.ndarray
    true_positive: np.ndarray
    band: np.ndarray | None


@dataclass(frozen=True, slots=True)
class PrecisionRecall:
    """One class against the rest.

    Attributes
    ----------
    recall, precision : (P,), recall rising; each point is a threshold, joined by steps
    prevalence : what an order by chance would reach
    """

    recall: np.ndarray
    precision: np.ndarray
    prevalence: float


@dataclass(frozen=True, slots=True)
class Reliability:
    """How often events with a given probability happen, in equal-width bins that hold scans.

    Attributes
    ----------
    predicted, observed : (P,) mean probability and share of events
    bounds : (2, P) 95 % interval of the share (Wilson, each scan on its own)
    counts : (P,) scans
    """

    predicted: np.ndarray
    observed: np.ndarray
    bounds: np.ndarray
    counts: np.ndarray


def roc(
    positive: np.ndarray, scores: np.ndarray, groups: np.ndarray, *, seed: int = 0
) -> Roc | None:
    """The ROC curve and its band over resamples of patients; None with one class only.

    Parameters
    ----------
    positive : (N,) bool
    scores : (N,) higher means more likely positive
    groups : (N,) patient of each row, 0 … G-1
    """
    if positive.all() or not positive.any():
        return None
    from sklearn.metrics import roc_curve

    false_positive, true_positive, _ = roc_curve(positive, scores)
    band = patient_band(_roc_on_grid(positive, scores), groups, seed=seed)
    return Roc(false_positive, true_positive, band)


def _roc_on_grid(positive: np.ndarray, scores: np.ndarray) -> Statistic:
    """(B, N) row weights → (B, 101) true positive rates at `GRID`, joined by lines."""
    order = np.argsort(-scores, kind="stable")
    is_positive = np.asarray(positive, dtype=bool)[order]
    ties_start = np.flatnonzero(np.diff(-scores[order], prepend=-np.inf))

    def curve(weights: np.ndarray) -> np.ndarray:
        ordered = weights[:, order]
        sides = [
            np.add.reduceat(ordered * side, ties_start, axis=1)
            for side in (is_positive, ~is_positive)
        ]
        heights = np.full((len(weights), len(GRID)), np.nan)
        for row, (found, false) in enumerate(zip(*sides, strict=True)):
            if found.sum() and false.sum():
                rises = np.concatenate([[0.0], np.cumsum(found) / found.sum()])
                steps = np.concatenate([[0.0], np.cumsum(false) / false.sum()])
                # Where the curve rises upright its highest point counts.
                last = np.append(np.diff(steps) > 0, True)
                heights[row] = np.interp(GRID, steps[last], rises[last])
        return heights

    return curve


def precision_recall(positive: np.ndarray, scores: np.ndarray) -> PrecisionRecall | None:
    """Precision at each recall; None without positives. Arguments as for `roc`."""
    if not positive.any():
        return None
    from sklearn.metrics import precision_recall_curve

    precision, recall, _ = precision_recall_curve(positive, scores)
    return PrecisionRecall(recall[::-1], precision[::-1], float(positive.mean()))


def reliability(events: np.ndarray, probabilities: np.ndarray) -> Reliability:
    """How often events happen that are given a probability, in 15 bins as for the ECE.

    Parameters
    ----------
    events : (N,) bool
    probabilities : (N,) of each event

    References
    ----------
    Wilson 1927, doi:10.1080/01621459.1927.10502953 (the intervals)
    """
    bins = np.clip(np.ceil(probabilities * ECE_BINS).astype(np.intp) - 1, 0, ECE_BINS - 1)
    counts = np.bincount(bins, minlength=ECE_BINS)
    used = counts > 0
    n = counts[used]
    predicted = np.bincount(bins, weights=probabilities, minlength=ECE_BINS)[used] / n
    observed = np.bincount(bins, weights=events, minlength=ECE_BINS)[used] / n
    return Reliability(predicted, observed, wilson_bounds(observed, n), n)


def wilson_bounds(share: np.ndarray, n: np.ndarray, z: float = 1.959964) -> np.ndarray:
    """(2, …) bounds of a share of n independent scans."""
    centre = share + z**2 / (2 * n)
    half = z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return np.asarray(np.stack([centre - half, centre + half]) / (1 + z**2 / n))
