"""Label sets that hold the true class with a stated probability.

Split conformal prediction: a class stands in the set of a scan where its probability
reaches the level that all but a tenth of that class's own calibration scans reach. The
guarantee holds class by class, so a change of prevalence between hospitals does not touch
it; it asks that the scans of a class come from where the calibration scans came from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from medcli.evaluation.intervals import Statistic, patient_bootstrap


def label_set_levels(labels: np.ndarray, probabilities: np.ndarray, coverage: float) -> np.ndarray:
    """The probability from which each class stands in a label set.

    Of the n calibration scans of a class, the level is the ⌊(n + 1)(1 - coverage)⌋-th
    smallest probability of that class among them; with too few scans to leave one out it
    is 0, and the class stands in every set.

    Parameters
    ----------
    labels : (N,) class indices of scans that the model did not learn from
    probabilities : (N, K)
    coverage : wanted share of scans, of each class, whose set holds their class

    Returns
    -------
    (K,) levels, 0–1

    References
    ----------
    Sadinle, Lei, Wasserman 2019, doi:10.1080/01621459.2017.1395341 (least ambiguous sets
    with class-specific coverage); Angelopoulos, Bates 2021, arXiv:2107.07511
    """
    levels = np.zeros(probabilities.shape[1])
    for k in range(len(levels)):
        own = np.sort(probabilities[labels == k, k])
        # The tolerance keeps (n + 1)(1 - coverage) from falling below a whole number.
        left_out = int((len(own) + 1) * (1 - coverage) + 1e-9)
        levels[k] = own[left_out - 1] if left_out else 0.0
    return levels


def label_sets(probabilities: np.ndarray, levels: Sequence[float] | np.ndarray) -> np.ndarray:
    """(…, K) probabilities and (K,) levels → (…, K) bool: which classes stand in the set."""
    return np.asarray(probabilities >= np.asarray(levels))


def label_set_metrics(
    labels: np.ndarray,
    sets: np.ndarray,
    groups: np.ndarray,
    *,
    classes: Sequence[str],
    target: float,
    seed: int = 0,
    resamples: int = 1000,
) -> dict[str, Any]:
    """How often the sets hold the true class, and how often they settle on one class.

    Parameters
    ----------
    labels : (N,) class indices
    sets : (N, K) bool
    groups : (N,) patient of each row, 0 … G-1

    Returns
    -------
    `target`, `coverage` and `coverage_ci` (mean over the classes present), `per_class`
    {class: coverage}, and the shares of scans whose set holds `one`, `several` or `none`
    """
    held = sets[np.arange(len(labels)), labels]
    sizes = sets.sum(axis=1)
    present = np.unique(labels)
    mean = _mean_over_classes(labels, held, present)
    interval = patient_bootstrap({"coverage": mean}, groups, seed=seed, resamples=resamples)
    return {
        "target": target,
        "coverage": float(mean(np.ones((1, len(labels))))[0]),
        "coverage_ci": interval["coverage"].bounds,
        "per_class": {
            name: float(held[labels == k].mean()) if k in present else None
            for k, name in enumerate(classes)
        },
        "one": float((sizes == 1).mean()),
        "several": float((sizes > 1).mean()),
        "none": float((sizes == 0).mean()),
    }


def _mean_over_classes(labels: np.ndarray, held: np.ndarray, present: np.ndarray) -> Statistic:
    """Coverage, averaged over the classes; undefined where a resample misses one."""
    members = np.eye(int(labels.max()) + 1)[labels][:, present]  # (N, P)

    def statistic(weights: np.ndarray) -> np.ndarray:
        counts = weights @ members
        right = (weights * held) @ members
        shares = np.divide(right, counts, out=np.full(counts.shape, np.nan), where=counts > 0)
        return np.asarray(shares.mean(axis=1))

    return statistic
