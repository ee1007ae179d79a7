"""How far a scan lies from the scans a model learnt from.

A scan is described by several views, each a vector (its tone and texture, its layout, …).
In each view the training scans have a mean and a covariance; the distance from that mean,
measured by that covariance, is divided by the limit that all but a few of the validation
scans stay below. The score is the largest over the views: above 1 is out of distribution.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

BUDGET = 0.05  # share of scans like those of the training that may be flagged
_SMALLEST_SPREAD = 0.005  # of a feature; keeps one that never varied from deciding alone
_RIDGE = 0.01  # added to the variances of standardised features

Views = Mapping[str, np.ndarray]
"""View → (N, F) features of N scans, or (F,) of one."""


@dataclass(frozen=True, slots=True)
class Reference:
    """What the scans of the training part look like.

    Attributes
    ----------
    means : view → (F,) float32
    whitenings : view → (F, F) float32; (features - mean) @ whitening has, as its length,
        the distance in units of the view's limit
    """

    means: Mapping[str, np.ndarray]
    whitenings: Mapping[str, np.ndarray]

    def scores(self, views: Views) -> np.ndarray:
        """(N,) scores of N scans, or () of one: 0 is the mean of the training, 1 the limit."""
        lengths = [
            np.linalg.norm((views[name] - mean) @ self.whitenings[name], axis=-1)
            for name, mean in self.means.items()
        ]
        return np.asarray(np.max(lengths, axis=0))


def fit_reference(training: Views, validation: Views, budget: float = BUDGET) -> Reference:
    """Mean and covariance of each view on the training part, the limit on the validation part.

    Parameters
    ----------
    training, validation : view → (N, F) features, the same views
    budget : share of the validation scans whose score may be above 1. Fewer than
        1 / budget - 1 scans cannot show that share; then none of them is above 1

    References
    ----------
    Lee et al. 2018, arXiv:1807.03888 (Mahalanobis distance); the covariance: Ledoit, Wolf
    2004, doi:10.1016/S0047-259X(03)00096-4; the limit: Laxhammar, Falkman 2010,
    doi:10.1109/ICMLA.2010.86 (conformal anomaly detection)
    """
    means, whitenings, distances = {}, {}, []
    for name, features in training.items():
        mean, whitening = _whitening(np.asarray(features, dtype=np.float64))
        lengths = np.linalg.norm((validation[name] - mean) @ whitening, axis=1)
        limit = _limit(lengths, budget)
        means[name], whitenings[name] = mean, whitening / limit
        distances.append(lengths / limit)
    joint = _limit(np.max(distances, axis=0), budget)
    return Reference(
        {name: mean.astype(np.float32) for name, mean in means.items()},
        {name: (matrix / joint).astype(np.float32) for name, matrix in whitenings.items()},
    )


def _whitening(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N, F) → mean (F,) and the (F, F) that makes the covariance of the features one."""
    from sklearn.covariance import ledoit_wolf

    mean = features.mean(axis=0)
    spread = np.maximum(features.std(axis=0), _SMALLEST_SPREAD)
    covariance, _ = ledoit_wolf((features - mean) / spread, assume_centered=True)
    precision = np.linalg.inv(covariance + _RIDGE * np.eye(len(mean)))
    return mean, np.linalg.cholesky(precision) / spread[:, np.newaxis]


def _limit(values: np.ndarray, budget: float) -> float:
    """The value that a further one of the same kind exceeds with probability `budget`."""
    rank = min(len(values), math.ceil((len(values) + 1) * (1 - budget) - 1e-9))
    return max(float(np.sort(values)[rank - 1]), 1e-6)


def stack_views(scans: Sequence[Views]) -> dict[str, np.ndarray]:
    """The (F,) views of N scans as view → (N, F)."""
    return {name: np.stack([views[name] for views in scans]) for name in scans[0]}
