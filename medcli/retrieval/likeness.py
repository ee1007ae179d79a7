"""Pairs and neighbours among many vectors: arrays in, pairs out, in blocks that fit in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

_BLOCK = 2048  # rows whose products with all others are in memory at a time


@dataclass(frozen=True, slots=True)
class Pair:
    """Two rows and the cosine of their vectors; `first` < `second`."""

    first: int
    second: int
    cosine: float


def near_pairs(vectors: np.ndarray, threshold: float) -> Iterator[Pair]:
    """All pairs of rows of (N, D) unit vectors whose cosine is `threshold` or more.

    They come by `first`, then by `second`.
    """
    for start, products in _blocks(vectors):
        for row, scores in enumerate(products, start=start):
            (others,) = (scores[row + 1 :] >= threshold).nonzero()
            for second in (others + row + 1).tolist():
                yield Pair(row, second, float(np.clip(scores[second], -1, 1)))


def neighbours(vectors: np.ndarray, groups: Sequence[object], k: int) -> np.ndarray:
    """(N, k) rows most like each of (N, D) unit vectors, none of the row's own group; -1: none.

    A group of None is unknown: such a row is in no group but its own.
    """
    names: dict[object, int] = {}
    numbers = np.array(
        [
            len(groups) + row if group is None else names.setdefault(group, len(names))
            for row, group in enumerate(groups)
        ]
    )
    found = np.full((len(vectors), k), -1)
    for start, products in _blocks(vectors):
        own = numbers[start : start + len(products), None] == numbers[None, :]
        products[own] = -np.inf
        order = np.argsort(-products, axis=1, kind="stable")[:, :k]
        real = np.take_along_axis(products, order, axis=1) > -np.inf
        found[start : start + len(products), : order.shape[1]] = np.where(real, order, -1)
    return found


def nearest_rows(vectors: np.ndarray, rows: np.ndarray, k: int) -> np.ndarray:
    """(M, k) rows of (N, D) unit vectors most like each of the (M,) `rows`, none itself."""
    wide = vectors.astype(np.float32)
    found = []
    for start in range(0, len(rows), _BLOCK):
        asked = rows[start : start + _BLOCK]
        products = wide[asked] @ wide.T
        products[np.arange(len(asked)), asked] = -np.inf
        found.append(np.argsort(-products, axis=1, kind="stable")[:, :k])
    return np.concatenate(found)


@dataclass(frozen=True, slots=True)
class Agreement:
    """How often a neighbour has the row's own value, and how often any row has.

    `lift` is (share - chance) / (1 - chance): 0 as by chance, 1 always. None: undefined.
    """

    values: int
    rows: int
    share: float
    chance: float

    @property
    def lift(self) -> float | None:
        """How far neighbours follow the value, beyond chance."""
        return None if self.chance >= 1 else (self.share - self.chance) / (1 - self.chance)


def agreement(
    values: Sequence[object], groups: Sequence[object], nearest: np.ndarray
) -> Agreement | None:
    """How far the (N, k) `nearest` rows have the values of their rows; None: fewer than two values.

    Chance is the share of equal values among all rows of other groups. Rows without a
    value count on neither side.
    """
    names = sorted({str(value) for value in values if value is not None})
    if len(names) < 2:
        return None
    codes = np.array([-1 if value is None else names.index(str(value)) for value in values])
    asked, near = np.repeat(codes, nearest.shape[1]), nearest.ravel()
    counted = (near >= 0) & (asked >= 0) & (codes[near] >= 0)
    if not counted.any():
        return None
    same = asked[counted] == codes[near[counted]]
    chance = _chance(codes, groups, len(names))
    return Agreement(len(names), int((codes >= 0).sum()), float(same.mean()), chance)


def _chance(codes: np.ndarray, groups: Sequence[object], count: int) -> float:
    """The mean share of rows of other groups that have a row's own value."""
    known = codes >= 0
    totals = np.bincount(codes[known], minlength=count)
    own: dict[object, np.ndarray] = {}
    for row in known.nonzero()[0].tolist():
        group = groups[row]
        if group is not None:
            own.setdefault(group, np.zeros(count, int))[codes[row]] += 1
    shares = []
    for row in known.nonzero()[0].tolist():
        mine = own.get(groups[row]) if groups[row] is not None else None
        others = totals - (mine if mine is not None else np.eye(count, dtype=int)[codes[row]])
        if others.sum():
            shares.append(others[codes[row]] / others.sum())
    return float(np.mean(shares)) if shares else 1.0


def _blocks(vectors: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """The products (B, N) float32 of some rows with all, and the first of these rows."""
    wide = vectors.astype(np.float32)
    for start in range(0, len(wide), _BLOCK):
        yield start, wide[start : start + _BLOCK] @ wide.T
