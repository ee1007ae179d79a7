"""Which index pays? Approximate ones are measured against exact search before one is chosen."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from medcli.errors import UsageError
from medcli.retrieval.approximate import ApproximateIndex, build_index
from medcli.retrieval.cache_files import LEVELS, Level
from medcli.retrieval.caches import Behind
from medcli.retrieval.choice import FEWEST, ApproximateKind, Choice
from medcli.retrieval.vectors import VectorIndex

if TYPE_CHECKING:
    from medcli.retrieval.gallery import Gallery
    from medcli.retrieval.rows import State

EFFORTS = {"hnsw": (32, 64, 128, 256, 512), "ivfpq": (4, 8, 16, 32, 64, 128, 256)}
OnTrial = Callable[["Trial"], None]


@dataclass(frozen=True, slots=True)
class Trial:
    """An index as it was measured; of an exact one `effort` is None and `recall` 1.

    Parameters
    ----------
    level : "scan" or "slice": whole scans, or the slices of scans with several
    vectors : in the index
    recall : share of the nearest scans of exact search that it proposed
    milliseconds : of all threads, a query, median; what is read of the hits comes on top
    bytes : of the index, a vector
    seconds : of all threads, to build it
    """

    kind: str
    level: Level
    vectors: int
    effort: int | None
    recall: float
    milliseconds: float
    bytes: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Tuning:
    """What was measured, and what the gallery uses from now on; None: exact search."""

    trials: tuple[Trial, ...]
    choice: Choice | None


def tune(
    gallery: Gallery,
    kind: ApproximateKind,
    *,
    wanted: float = 0.99,
    k: int = 10,
    sample: int = 200,
    seed: int = 0,
    on_trial: OnTrial = lambda trial: None,
) -> Tuning:
    """Measure `kind` with rising effort until it finds `wanted` of what exact search finds.

    The lowest effort that does is kept in the settings of the gallery, opened for writing;
    where none does, exact search stays or comes back. Rows are not touched.

    Parameters
    ----------
    wanted : recall@`k`, averaged over the queries; on each level that is large enough
    sample : stored vectors that are the queries, drawn by `seed`; their own scan is left out

    Raises
    ------
    UsageError : the gallery is too small for this index
    DamagedError : a row does not match its checksum
    LockedError, StorageError : as `Gallery.add`
    """
    trials: list[Trial] = []

    def told(trial: Trial) -> Trial:
        trials.append(trial)
        on_trial(trial)
        return trial

    with gallery.snapshot() as state:
        levels = _levels(gallery, kind, state)
        measured = [_Measured(gallery, level, state, k, sample, seed) for level in levels]
        best = []
        for level in measured:
            told(level.exact_trial())
            best.append(level.lowest(kind, wanted, told))
        choice = None
        if all(each.recall >= wanted for each in best):
            choice = Choice(
                kind,
                effort=max(each.effort or 0 for each in best),
                recall=min(each.recall for each in best),
                k=k,
                queries=min(sample, *(each.vectors for each in best)),
                vectors=sum(each.vectors for each in best),
            )
            for level in measured:
                level.save(choice)
    use(gallery, choice)
    return Tuning(tuple(trials), choice)


def use(gallery: Gallery, choice: Choice | None) -> None:
    """Let a gallery, opened for writing, answer by `choice`; None: by exact search."""
    with gallery.writing():
        gallery.caches.choose(choice)
    gallery.refresh()


def _levels(gallery: Gallery, kind: ApproximateKind, state: State) -> list[Level]:
    """The levels that are large enough for `kind`."""
    counts = {level: gallery.caches.stamp(level, state).count for level in LEVELS}
    levels = [level for level in LEVELS if counts[level] >= FEWEST[kind]]
    if not levels:
        raise UsageError(
            f"{kind} needs {FEWEST[kind]:,} vectors; {gallery.path} holds "
            f"{counts['scan']:,} of scans and {counts['slice']:,} of slices",
            "exact search, the default, is faster there",
        )
    return levels


class _Measured:
    """The vectors of one level, queries among them, and what exact search says to these."""

    def __init__(
        self, gallery: Gallery, level: Level, state: State, k: int, sample: int, seed: int
    ) -> None:
        self._level = level
        self._k = k
        self._caches = gallery.caches
        self._behind = Behind(gallery.caches, gallery.caches.stamp(level, state), state)
        self._index: ApproximateIndex | None = None
        self._vectors, self._ids = self._behind.rows()
        drawn = np.random.default_rng(seed).permutation(len(self._ids))[:sample]
        rows = self._vectors[drawn].astype(np.float32)
        self._queries = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        self._own = [{int(scan)} for scan in self._ids[drawn]]
        self._truths, self._exact_ms = self._asked(self._behind.exact())

    def exact_trial(self) -> Trial:
        """Exact search, for comparison."""
        size = 2.0 * self._vectors.shape[1] + 8
        return self._trial("exact", None, self._truths, self._exact_ms, size, 0.0)

    def lowest(self, kind: ApproximateKind, wanted: float, told: Callable[[Trial], Trial]) -> Trial:
        """The trial of the lowest effort that reaches `wanted`, else of the highest."""
        started = time.process_time()
        built = build_index(kind, self._vectors)
        seconds = time.process_time() - started
        index = self._index = ApproximateIndex(kind, built, self._ids, 0, self._behind)
        size = index.stored_bytes / len(index)
        for effort in EFFORTS[kind]:
            found, ms = self._asked(index.with_effort(effort))
            trial = told(self._trial(kind, effort, found, ms, size, seconds))
            if trial.recall >= wanted:
                break
        return trial

    def save(self, choice: Choice) -> None:
        """Write the index that was measured; what cannot be saved is built again when asked."""
        if self._index is not None:
            self._index.save(self._caches.file(self._level, choice), self._behind.stamp)

    def _asked(self, index: VectorIndex | ApproximateIndex) -> tuple[list[set[int]], float]:
        """The scans that `index` proposes for each query, and milliseconds a query, median."""
        found, times = [], []
        for query, own in zip(self._queries, self._own, strict=True):
            started = time.process_time()
            found.append(index.candidates(query, self._k, own))
            times.append(time.process_time() - started)
        return found, 1000 * float(np.median(times))

    def _trial(
        self,
        kind: str,
        effort: int | None,
        found: list[set[int]],
        ms: float,
        size: float,
        seconds: float,
    ) -> Trial:
        recall = float(np.mean(list(map(self._recall, found, self._truths))))
        return Trial(kind, self._level, len(self._ids), effort, recall, ms, size, seconds)

    def _recall(self, found: set[int], truth: set[int]) -> float:
        """The share of the `k` nearest that is found; ties may make `truth` larger."""
        wanted = min(self._k, len(truth))
        return min(len(found & truth), wanted) / wanted if wanted else 1.0
