"""Operating points, fixed on the validation part and kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np


@dataclass(frozen=True, slots=True)
class Choice:
    """How a threshold was chosen, and what it reaches on the scans it was chosen on.

    Attributes
    ----------
    rule : "youden", or "sensitivity" where the wanted one is reached
    wanted : the sensitivity that was asked for, None where none was
    sensitivity, specificity : at `threshold`, on `n_positive` and `n_negative` scans
    """

    threshold: float
    rule: Literal["youden", "sensitivity"]
    wanted: float | None
    sensitivity: float
    specificity: float
    n_positive: int
    n_negative: int

    @property
    def missed(self) -> bool:
        """Whether a sensitivity was asked for that no useful threshold reaches."""
        return self.wanted is not None and self.rule != "sensitivity"


def choose_threshold(
    positive: np.ndarray, probabilities: np.ndarray, wanted: float | None = None
) -> Choice:
    """Youden's threshold, or the one that reaches a wanted sensitivity.

    Where only calling every scan positive reaches it, Youden's is taken and the choice
    says that it `missed`.

    Parameters
    ----------
    positive : (N,) bool
    probabilities : (N,) of the positive class
    wanted : sensitivity, above 0 and up to 1

    Raises
    ------
    ValueError : one of the two classes is absent
    """
    is_positive = np.asarray(positive, dtype=bool)
    found = None if wanted is None else sensitivity_threshold(is_positive, probabilities, wanted)
    threshold = youden_threshold(is_positive, probabilities) if found is None else found
    called = np.asarray(probabilities) >= threshold
    return Choice(
        threshold=threshold,
        rule="youden" if found is None else "sensitivity",
        wanted=wanted,
        sensitivity=float(called[is_positive].mean()),
        specificity=float((~called[~is_positive]).mean()),
        n_positive=int(is_positive.sum()),
        n_negative=int((~is_positive).sum()),
    )


def sensitivity_threshold(
    positive: np.ndarray, probabilities: np.ndarray, wanted: float
) -> float | None:
    """The highest threshold at which at least `wanted` of the positives are called positive.

    It lies half-way between two neighbouring observed probabilities. Of n positives at most
    ⌊n · (1 - wanted)⌋ may be missed: with few of them all must be found.

    Parameters
    ----------
    positive, probabilities : as for `youden_threshold`
    wanted : above 0 and up to 1

    Returns
    -------
    None where only a threshold that calls every scan positive reaches it

    Raises
    ------
    ValueError : one of the two classes is absent, or `wanted` is no sensitivity
    """
    if not 0 < wanted <= 1:
        raise ValueError(f"{wanted} is no sensitivity")
    values, missed, specificity = _cuts(positive, probabilities)
    # The tolerance keeps 1 - 1/20 from falling below 0.95.
    reaching = np.flatnonzero((1 - missed >= wanted - 1e-12) & (specificity > 0))
    return _between(values, int(reaching[-1])) if len(reaching) else None


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
    values, missed, specificity = _cuts(positive, probabilities)
    youden = specificity - missed
    if not len(youden) or youden.max() <= 0:
        return 0.5
    return _between(values, int(np.flatnonzero(youden >= youden.max() - 1e-12)[0]))


def _cuts(
    positive: np.ndarray, probabilities: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(V,) different probabilities, and the (V - 1,) share of positives missed and specificity.

    Entry i of the latter two belongs to the cut between values i and i + 1.
    """
    is_positive = np.asarray(positive, dtype=bool)
    n_positive = int(is_positive.sum())
    n_negative = len(is_positive) - n_positive
    if not n_positive or not n_negative:
        raise ValueError("a threshold needs positive and negative scans")
    values, place = np.unique(np.asarray(probabilities, dtype=np.float64), return_inverse=True)
    positives = np.bincount(place, weights=is_positive, minlength=len(values))
    negatives = np.bincount(place, weights=~is_positive, minlength=len(values))
    missed = np.cumsum(positives)[:-1] / n_positive
    return values, missed, np.cumsum(negatives)[:-1] / n_negative


def _between(values: np.ndarray, place: int) -> float:
    """The middle of value `place` and the next."""
    return float((values[place] + values[place + 1]) / 2)
