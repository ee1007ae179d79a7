"""Confidence intervals that resample patients, not scans.

Scans of one patient resemble each other, so a bootstrap over scans gives
intervals that are too narrow. Here whole patients are drawn with replacement,
and a resample is a weight a row: how often its patient was drawn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Statistic = Callable[[np.ndarray], np.ndarray]
"""(B, N) row weights → (B,) values, NaN where a resample leaves it undefined."""

_CHUNK = 1 << 20  # weights held at once: 8 MB


@dataclass(frozen=True, slots=True)
class Interval:
    """A percentile interval; `bounds` is None where none can be given.

    `skipped` counts the resamples that left the statistic undefined, for
    example those that drew one class only.
    """

    bounds: list[float] | None
    skipped: int = 0


def patient_groups(patients: Sequence[str | None] | None, n: int) -> np.ndarray:
    """(N,) group of each row: rows of one patient share it, a blank patient is unknown.

    An unknown patient is never equal to another: each such row is its own group.
    """
    names = [None] * n if patients is None else list(patients)
    if len(names) != n:
        raise ValueError(f"{len(names)} patients for {n} rows")
    numbers: dict[str | int, int] = {}
    keys = [name if name and name.strip() else row for row, name in enumerate(names)]
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.intp)


def patient_bootstrap(
    statistics: Mapping[str, Statistic],
    groups: np.ndarray,
    *,
    seed: int = 0,
    resamples: int = 1000,
    level: float = 0.95,
) -> dict[str, Interval]:
    """Percentile intervals of several statistics over the same resamples of patients.

    Parameters
    ----------
    statistics : name → function of (B, N) row weights
    groups : (N,) patient of each row, 0 … G-1
    level : coverage, 0–1

    Returns
    -------
    name → interval; its bounds are None with fewer than two patients, or where more
    than half of the resamples leave the statistic undefined

    References
    ----------
    Field, Welsh 2007, doi:10.1111/j.1467-9868.2007.00593.x (cluster bootstrap)
    """
    if not len(groups) or groups.max() == 0:
        return {name: Interval(None) for name in statistics}
    drawn: dict[str, list[np.ndarray]] = {name: [] for name in statistics}
    for weights in _resampled_weights(groups, seed, resamples):
        for name, statistic in statistics.items():
            drawn[name].append(statistic(weights))
    return {name: _percentile(np.concatenate(values), level) for name, values in drawn.items()}


def weighted_mean(values: np.ndarray) -> Statistic:
    """The mean of (N,) `values` as a function of row weights."""

    def statistic(weights: np.ndarray) -> np.ndarray:
        mean: np.ndarray = weights @ values / weights.sum(axis=1)
        return mean

    return statistic


def weighted_share(flags: np.ndarray, among: np.ndarray) -> Statistic:
    """Share of `flags` in the rows of `among`, both (N,) bool; NaN where there are none."""
    counted, hits = np.asarray(among, dtype=float), np.asarray(flags & among, dtype=float)

    def statistic(weights: np.ndarray) -> np.ndarray:
        total = weights @ counted
        undefined = np.full(len(weights), np.nan)
        share: np.ndarray = np.divide(weights @ hits, total, out=undefined, where=total > 0)
        return share

    return statistic


def mean_statistic(parts: Sequence[Statistic]) -> Statistic:
    """The mean of several statistics; NaN where one of them is."""

    def statistic(weights: np.ndarray) -> np.ndarray:
        mean: np.ndarray = np.mean([part(weights) for part in parts], axis=0)
        return mean

    return statistic


def patient_band(
    curve: Statistic,
    groups: np.ndarray,
    *,
    seed: int = 0,
    resamples: int = 1000,
    level: float = 0.95,
) -> np.ndarray | None:
    """Percentile bounds of a curve, point by point, over resamples of patients.

    Parameters
    ----------
    curve : (B, N) row weights → (B, P) heights, NaN rows where a resample leaves it undefined
    groups : (N,) patient of each row, 0 … G-1

    Returns
    -------
    (2, P) lower and upper bounds; None where `patient_bootstrap` would give none
    """
    if not len(groups) or groups.max() == 0:
        return None
    drawn = np.concatenate([curve(w) for w in _resampled_weights(groups, seed, resamples)])
    defined = drawn[~np.isnan(drawn).any(axis=1)]
    if 2 * len(defined) <= len(drawn):
        return None
    tail = (1 - level) / 2
    return np.asarray(np.quantile(defined, [tail, 1 - tail], axis=0))


def _resampled_weights(groups: np.ndarray, seed: int, resamples: int) -> Iterator[np.ndarray]:
    """Row weights of the resamples, (B, N) float64 at a time."""
    rng = np.random.default_rng(seed)
    n_groups = int(groups.max()) + 1
    chunk = max(1, _CHUNK // max(len(groups), n_groups))
    for start in range(0, resamples, chunk):
        rows = min(chunk, resamples - start)
        draws = rng.integers(n_groups, size=(rows, n_groups))
        draws += n_groups * np.arange(rows)[:, None]
        counts = np.bincount(draws.ravel(), minlength=rows * n_groups).reshape(rows, n_groups)
        yield counts[:, groups].astype(np.float64)


def _percentile(values: np.ndarray, level: float) -> Interval:
    """The central `level` of the defined values."""
    defined = values[~np.isnan(values)]
    skipped = len(values) - len(defined)
    if len(defined) <= skipped:
        return Interval(None, skipped)
    tail = (1 - level) / 2
    low, high = np.quantile(defined, [tail, 1 - tail])
    return Interval([float(low), float(high)], skipped)


def wilson_interval(count: int, total: int) -> tuple[float, float]:
    """The 95 % interval of a share of `count` among `total`, 0–1; all of it without any.

    References
    ----------
    Wilson 1927, doi:10.1080/01621459.1927.10502953
    """
    if total == 0:
        return 0.0, 1.0
    z = 1.959963984540054
    share, scale = count / total, 1 + z * z / total
    middle = (share + z * z / (2 * total)) / scale
    half = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total)) / scale
    return max(0.0, middle - half), min(1.0, middle + half)
