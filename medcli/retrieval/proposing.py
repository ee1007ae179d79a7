"""Ids of all scans that may be among the best for a query; scores are made afterwards, of these.

What a query asks more than once, for its hits and for the nearest of each class, shares a pass
over the vectors; many queries of one vector each share theirs.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from medcli.records import ScanWarning
from medcli.retrieval.cache_files import Level
from medcli.retrieval.columns import Column, Members
from medcli.retrieval.query import Compare, Wanted

if TYPE_CHECKING:
    from medcli.retrieval.caches import Index
    from medcli.retrieval.gallery import Gallery
    from medcli.retrieval.rows import State
    from medcli.retrieval.vectors import Nearest, VectorIndex

MOST_CLASSES = 20  # whose nearest scan is told
_LEAST_FIRST = 256  # vectors of a first pass, in which most classes are met


class Proposals(Protocol):
    """Who may be among the best for one query."""

    def best(self, k: int, groups: Column | None) -> set[int]:
        """All scans that may be the best of the `k` best groups."""

    def of_classes(self, labels: Column) -> set[int]:
        """All scans that may be the best of one of the most frequent classes."""


@dataclass(frozen=True, slots=True, eq=False)
class Indexes:
    """The indexes that answer, one a level, with notes on how they came about.

    Parameters
    ----------
    levels : exact or not
    exact : the same where all of them must be, else empty
    """

    levels: tuple[Index, ...]
    exact: tuple[VectorIndex, ...]
    notes: tuple[ScanWarning, ...]

    @classmethod
    def of(cls, gallery: Gallery, state: State, compare: Compare, *, exact: bool) -> Indexes:
        """Those of a gallery; with `exact` the exact ones, whichever it asks first."""
        names: tuple[Level, ...] = ("scan",) if compare == "scan" else ("scan", "slice")
        notes: dict[ScanWarning, None] = {}
        levels: list[Index] = []
        exact_levels: list[VectorIndex] = []
        for name in names:
            if exact:
                index, remarks = gallery.caches.exact(name, state)
                exact_levels.append(index)
                levels.append(index)
            else:
                either, remarks = gallery.caches.index(name, state)
                levels.append(either)
            notes.update(dict.fromkeys(remarks))
        return cls(tuple(levels), tuple(exact_levels), tuple(notes))


def first_passes(
    indexes: Sequence[VectorIndex], vectors: np.ndarray, wanted: Wanted
) -> list[tuple[Nearest, ...]]:
    """For each of (Q, D) vectors what a pass over each index finds."""
    from medcli.retrieval.vectors import depth_for

    depth = max(depth_for(wanted.k), _LEAST_FIRST if wanted.contrast else 0)
    return list(zip(*(each.nearest_of_each(vectors, depth) for each in indexes), strict=True))


class ByPasses:
    """Of a query of one vector: passes over the indexes, the first of them shared."""

    def __init__(
        self,
        indexes: Sequence[Index],
        vector: np.ndarray,
        excluded: Collection[int],
        among: Members | None,
        first: Sequence[Nearest] | None,
    ) -> None:
        self._indexes = indexes
        self._vector = vector
        self._excluded = excluded
        self._among = among
        self._first: Sequence[Nearest | None] = first or [None] * len(indexes)

    def best(self, k: int, groups: Column | None) -> set[int]:
        """All scans that may be the best of the `k` best groups."""
        return self._found(k, self._among, groups)

    def of_classes(self, labels: Column) -> set[int]:
        """All scans that may be the best of one of the most frequent classes."""
        found: set[int] = set()
        for number in labels.most_frequent(MOST_CLASSES):
            members = labels.members(number)
            found |= self._found(1, members if self._among is None else members & self._among)
        return found

    def _found(self, k: int, among: Members | None, groups: Column | None = None) -> set[int]:
        found: set[int] = set()
        for index, first in zip(self._indexes, self._first, strict=True):
            found |= index.candidates(
                self._vector, k, self._excluded, among=among, groups=groups, first=first
            )
        return found


class ByMeans:
    """Of a query of several vectors: the score of every scan, from one pass over the indexes."""

    def __init__(
        self,
        indexes: Sequence[VectorIndex],
        vectors: np.ndarray,
        excluded: Collection[int],
        among: Members | None,
    ) -> None:
        from medcli.retrieval.vectors import rounding, scores_of_scans

        self._ids, scores = scores_of_scans(indexes, vectors, excluded, among)
        self._means = scores.mean(axis=1, dtype=np.float64)
        self._margin = rounding(vectors[0])

    def best(self, k: int, groups: Column | None) -> set[int]:
        """All scans that may be the best of the `k` best groups."""
        own = self._ids if groups is None else groups.groups(self._ids)
        numbers, places = np.unique(own, return_inverse=True)
        best = np.full(len(numbers), -np.inf)
        np.maximum.at(best, places, self._means)
        if len(best) <= k:
            return set(self._ids.tolist())
        bound = np.partition(best, -k)[-k] - self._margin
        return set(self._ids[self._means >= bound].tolist())

    def of_classes(self, labels: Column) -> set[int]:
        """All scans that may be the best of one of the most frequent classes."""
        found: set[int] = set()
        own = labels.numbers[self._ids]
        for number in labels.most_frequent(MOST_CLASSES):
            (rows,) = (own == number).nonzero()
            if len(rows):
                near = self._means[rows] >= self._means[rows].max() - self._margin
                found.update(self._ids[rows[near]].tolist())
        return found
