"""Operating points, fixed on the validation part and kept."""

from __future__ import annotations

import numpy as np


def youden_threshold(positive: np.ndarray, probabilities: np.ndarray) -> float:
    """The threshold that maximises sensitivity + specificity - 1, "positive" meaning ≥ it.

    It lies half-way between two neighbouring observed probabilities, so that
    rounding cannot move a scan across it. Of equal ones the lowest is taken, which
    has the higher sensitivity. Where no threshold beats chance it is 0.5.

    Parameters
    ----------
    positive : (N,) bool or 0/1
    probabilities : (N,) of the positive class

    Raises
    ------
    ValueError : one of the two classes is absent

    References
    ----------
    Youden 1950, doi:10.1002/1097-0142(1950)3:1<32::AID-CNCR2820030106>3.0.CO;2-3
    """
    is_positive = np.asarray(positive, dtype=bool)
    n_positive = int(is_positive.sum())
    n_negative = len(is_positive) - n_positive
    if not n_positive or not n_negative:
        raise ValueError("a threshold needs positive and negative scans")
    values, place = np.unique(np.asarray(probabilities, dtype=np.float64), return_inverse=True)
    positives = np.bincount(place, weights=is_positive, minlength=len(values))
    negatives = np.bincount(place, weights=~is_positive, minlength=len(values))
    # Entry i belongs to the cut between values[i] and values[i + 1].
    missed = np.cumsum(positives)[:-1] / n_positive
    specificity = np.cumsum(negatives)[:-1] / n_negative
    youden = specificity - missed
    if not len(youden) or youden.max() <= 0:
        return 0.5
    best = int(np.flatnonzero(youden >= youden.max() - 1e-12)[0])
    return float((values[best] + values[best + 1]) / 2)
