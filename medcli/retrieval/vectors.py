"""The vector index of a gallery: FAISS, exact, float16, a disposable cache.

A gallery has two indexes, one a level: "scan" (one vector a scan) and "slice" (the slices of scans
with several). Beside FAISS's vectors stands the id of each one's scan, so a search names scans
without asking the catalogue.

A pass over all vectors is what costs. One query makes one, on as many threads as FAISS may use;
many together share one, in which blocks of vectors are widened once and multiplied with all.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import faiss
import numpy as np

from medcli.records import ScanWarning
from medcli.retrieval.cache_files import (
    REBUILT,
    CacheUnusableError,
    Stamp,
    check_stamp,
    read_cache,
    saved,
    write_cache,
)
from medcli.retrieval.columns import Column, Members

_faiss: Any = faiss  # its type hints do not know what its Python layer adds
_CHUNK_BYTES = 1 << 20
_CHUNK_ROWS = 1 << 16
_PASS_ROWS = 1 << 13  # decoded at a time
_TOGETHER_ROWS = 1 << 15  # decoded at a time for many queries
_FEWEST_TOGETHER = 8  # queries that cost less together than one by one
_ROWS_A_THREAD = 250_000  # of one query; fewer are not worth waking a thread
_LEAST_DEPTH = 64
_MOST_DROPPED = 256  # of those left out, that are looked for and dropped


@dataclass(frozen=True, slots=True, eq=False)
class Nearest:
    """What a pass over an index has found most like one query.

    Parameters
    ----------
    scores : (M,) float32, falling
    ids : (M,) int64, the scan of each vector
    rest : no vector that was not found has a higher score; -inf: there is no other
    """

    scores: np.ndarray
    ids: np.ndarray
    rest: float

    @classmethod
    def found(cls, scores: np.ndarray, ids: np.ndarray, depth: int) -> Nearest:
        """What came of asking for `depth` vectors, at least one."""
        return cls(scores, ids, float(scores[-1]) if len(ids) == depth else -np.inf)

    def of(self, excluded: Collection[int], among: Members | None) -> Iterator[tuple[int, float]]:
        """Scan and score of each vector whose scan may answer."""
        kept = np.ones(len(self.ids), bool) if among is None else among.marks(self.ids)
        if excluded:
            kept &= ~_is_in(self.ids, excluded)
        return zip(self.ids[kept].tolist(), self.scores[kept].tolist(), strict=True)


class VectorIndex:
    """Exact inner-product search over float16 vectors.

    Parameters
    ----------
    index : the vectors, a flat index of FAISS
    ids : (N,) int64, the scan of each vector
    behind : what must live as long as `index`
    """

    def __init__(self, index: Any, ids: np.ndarray, *behind: object) -> None:
        self._index = index
        self._ids = ids
        self._behind = behind

    @classmethod
    def build(cls, vectors: np.ndarray, ids: np.ndarray) -> Self:
        """(N, D) float16 unit vectors and the (N,) ids of their scans → index."""
        index = faiss.IndexScalarQuantizer(
            vectors.shape[1], faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
        )
        for start in range(0, len(vectors), _CHUNK_ROWS):  # widened a part at a time
            index.add(vectors[start : start + _CHUNK_ROWS].astype(np.float32))
        return cls(index, ids.astype(np.int64))

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def save(self, path: Path, stamp: Stamp) -> None:
        """Replace the cache file `path` atomically and durably.

        Raises
        ------
        OSError : the disk is full, or the folder cannot be written
        """
        write_cache(path, self._ids, serialized(self._index), stamp)

    def candidates(
        self,
        query: np.ndarray,
        k: int,
        excluded: Collection[int] = (),
        among: Members | None = None,
        groups: Column | None = None,
        first: Nearest | None = None,
    ) -> set[int]:
        """Ids of all scans that may be the best of the `k` best groups of this index.

        Parameters
        ----------
        query : (D,) float32, unit length
        excluded : ids of scans to leave out
        among : the scans that may answer; None: all
        groups : the group of each scan; without it, and where it knows none, a scan is one
        first : what a pass over all vectors has found, those left out included

        Notes
        -----
        A scan's score here is the best of its vectors. A first pass asks for more than what
        is left out and drops that, since a pass with a condition is slower. Vectors of one scan
        can fill the answer of FAISS, so the scans found are left out and the search goes on,
        each time twice as deep, until `k` groups are found and the next one is worse by
        more than rounding can explain; then exact scores can decide, ties included.
        """
        left_out = set(excluded)
        found: set[int] = set()
        best: set[int] = set()  # groups; that of a lone scan has a negative number
        bound = -np.inf  # no scan with a lower score is among the best
        depth = depth_for(k)
        if first is None and (among is None or 2 * len(among) > len(self)):
            first = self.nearest(query, depth + min(len(left_out), _MOST_DROPPED))
        near = first or self.nearest(query, depth, left_out, among)
        while True:
            for scan, score in near.of(left_out, among):
                if score < bound:
                    break
                found.add(scan)
                best.add(scan if groups is None else groups.group(scan))
                if len(best) == k and bound == -np.inf:
                    bound = score - rounding(query)
            if near.rest < bound or near.rest == -np.inf:
                return found
            near = self.nearest(query, depth, left_out | found, among)
            depth *= 2

    def nearest(
        self,
        query: np.ndarray,
        depth: int,
        excluded: Collection[int] = (),
        among: Members | None = None,
    ) -> Nearest:
        """The at most `depth` vectors most like (D,) `query`, of scans that may answer."""
        allowed = None if among is None else among.marks(self._ids)
        if excluded:
            others = ~_is_in(self._ids, excluded)
            allowed = others if allowed is None else allowed & others
        if len(self) == 0:
            return Nearest.found(np.empty(0, np.float32), np.empty(0, np.int64), depth)
        scores, rows = self._pass(query[np.newaxis], min(depth, len(self)), allowed)
        return Nearest.found(scores, self._ids[rows], depth)

    def _pass(
        self, query: np.ndarray, depth: int, allowed: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Scores (M,) and rows (M,) of the best vectors for (1, D) `query`, best first.

        FAISS gives one query one thread, while others wait for it at full speed. Here of a large
        index each thread looks at rows of its own.
        """
        if self._threads < 2:
            with _one_thread():
                return self._found(query, depth, allowed, None)
        cuts = np.linspace(0, len(self), self._threads + 1).astype(int).tolist()
        parts = self._pool.map(
            lambda rows: self._found(query, depth, allowed, rows), itertools.pairwise(cuts)
        )
        scores, rows = map(np.concatenate, zip(*parts, strict=True))
        order = np.argsort(-scores, kind="stable")[:depth]
        return scores[order], rows[order]

    @property
    def _threads(self) -> int:
        """For one query."""
        return min(faiss.omp_get_max_threads(), len(self) // _ROWS_A_THREAD)

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        # FAISS's number of threads is that of the calling one: these bring up no others
        return ThreadPoolExecutor(
            self._threads, initializer=faiss.omp_set_num_threads, initargs=(1,)
        )

    def _found(
        self,
        query: np.ndarray,
        depth: int,
        allowed: np.ndarray | None,
        part: tuple[int, int] | None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `_pass`, of the rows of one part, first and end, by this thread."""
        parameters = selector = None
        if allowed is not None:
            if part is not None:
                whole, allowed = allowed, np.zeros_like(allowed)
                allowed[slice(*part)] = whole[slice(*part)]
            selector = _faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
        elif part is not None:
            selector = faiss.IDSelectorRange(*part)
        if selector is not None:
            parameters = faiss.SearchParameters()
            parameters.sel = selector  # a bare pointer: `selector` must live on
        scores, rows = self._index.search(query, depth, params=parameters)
        real = rows[0] >= 0  # FAISS pads with -1
        return scores[0][real], rows[0][real]

    def nearest_of_each(self, queries: np.ndarray, depth: int) -> list[Nearest]:
        """The `depth` vectors most like each of (Q, D) `queries`."""
        if len(queries) < _FEWEST_TOGETHER or len(self) == 0:
            return [self.nearest(query, depth) for query in queries]
        scores = np.empty((len(queries), 0), np.float32)
        found = np.empty((len(queries), 0), np.int64)
        for start in range(0, len(self), _TOGETHER_ROWS):
            block = self._decoded(slice(start, start + _TOGETHER_ROWS))
            with _one_product():
                own, rows = _faiss.knn(
                    queries, block, min(depth, len(block)), metric=faiss.METRIC_INNER_PRODUCT
                )
            scores = np.hstack([scores, own])
            found = np.hstack([found, self._ids[start + rows]])
            order = np.argsort(-scores, axis=1, kind="stable")[:, :depth]
            scores = np.take_along_axis(scores, order, axis=1)
            found = np.take_along_axis(found, order, axis=1)
        return [Nearest.found(*each, depth) for each in zip(scores, found, strict=True)]

    def _decoded(self, rows: slice | np.ndarray) -> np.ndarray:
        """(M, D) float32, some of the vectors."""
        size = self._index.code_size
        codes = faiss.rev_swig_ptr(self._index.codes.data(), len(self) * size).reshape(-1, size)
        vectors: np.ndarray = self._index.sa_decode(codes[rows])
        return vectors

    def best_of_scans(
        self,
        queries: np.ndarray,
        excluded: Collection[int] = (),
        among: Members | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """For each scan the best score of its vectors for each query, by one pass over all.

        Parameters
        ----------
        queries : (S, D) float32, unit length
        excluded, among : as in `candidates`

        Returns
        -------
        ids (M,) rising, and scores (M, S) float32
        """
        kept = np.ones(len(self), bool) if among is None else among.marks(self._ids)
        (rows,) = (kept & ~_is_in(self._ids, excluded)).nonzero()
        rows = rows[np.argsort(self._ids[rows], kind="stable")]
        ids, places = np.unique(self._ids[rows], return_inverse=True)
        best = np.full((len(ids), len(queries)), -np.inf, np.float32)
        columns = np.ascontiguousarray(queries.T, np.float32)
        for start in range(0, len(rows), _PASS_ROWS):
            part = slice(start, start + _PASS_ROWS)
            products = self._decoded(rows[part]) @ columns
            (first,) = np.diff(places[part], prepend=-1).nonzero()
            scans = places[part][first]
            best[scans] = np.maximum(best[scans], np.maximum.reduceat(products, first))
        return ids, best


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Let FAISS use no other thread than this one meanwhile."""
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)


@contextlib.contextmanager
def _one_product() -> Iterator[None]:
    """Let FAISS multiply matrices meanwhile, which it otherwise does for some hundred queries."""
    least = _faiss.cvar.distance_compute_blas_threshold
    _faiss.cvar.distance_compute_blas_threshold = 1
    try:
        yield
    finally:
        _faiss.cvar.distance_compute_blas_threshold = least


def depth_for(k: int) -> int:
    """Vectors that are asked for, for the `k` best scans."""
    return max(_LEAST_DEPTH, 4 * k)


def scores_of_scans(
    indexes: Sequence[VectorIndex],
    queries: np.ndarray,
    excluded: Collection[int] = (),
    among: Members | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """`VectorIndex.best_of_scans` over several indexes together."""
    parts = [index.best_of_scans(queries, excluded, among) for index in indexes]
    ids = np.unique(np.concatenate([own for own, _ in parts]))
    scores = np.full((len(ids), len(queries)), -np.inf, np.float32)
    for own, best in parts:
        places = np.searchsorted(ids, own)
        scores[places] = np.maximum(scores[places], best)
    return ids, scores


def _is_in(owners: np.ndarray, scans: Collection[int]) -> np.ndarray:
    return np.isin(owners, np.fromiter(scans, np.int64, len(scans)))


def rounding(query: np.ndarray) -> float:
    """|Error| of a float32 dot product with (D,) `query`, on both sides of a comparison."""
    return 2.0 * query.size * float(np.finfo(np.float32).eps)


def open_index(
    path: Path,
    stamp: Stamp,
    rows: Callable[[], tuple[np.ndarray, np.ndarray]],
    save: bool,
) -> tuple[VectorIndex, tuple[ScanWarning, ...]]:
    """The index of `stamp` from its cache file, else rebuilt, with notes on what was done.

    Parameters
    ----------
    rows : gives the (N, D) float16 vectors and the (N,) ids to rebuild from
    save : the rebuilt index may replace the file
    """
    if stamp.count == 0:
        return VectorIndex.build(np.empty((0, stamp.dim), np.float16), np.empty(0, np.int64)), ()
    try:
        return read_index(path, stamp), ()
    except CacheUnusableError as error:
        reason, save = error.reason, save and not error.newer
    index = VectorIndex.build(*rows())
    notes = [ScanWarning(REBUILT, f"{path.name} was {reason}: rebuilt from the catalogue")]
    if save:
        notes += saved(path, lambda: index.save(path, stamp))
    return index, tuple(notes)


def serialized(index: faiss.Index) -> list[bytes]:
    """FAISS's own bytes, in parts.

    Not by `serialize_index`: it hands over a C++ vector, which SWIG takes for one of
    SimpleITK's where that was imported later.
    """
    parts: list[bytes] = []
    writer = faiss.PyCallbackIOWriter(parts.append, _CHUNK_BYTES)  # type: ignore[attr-defined]
    faiss.write_index(index, writer)
    return parts


def deserialized(payload: np.ndarray, *, in_place: bool = False) -> faiss.Index:
    """The index of FAISS's own bytes (N,) uint8; see `serialized`.

    Parameters
    ----------
    in_place : vectors stay where they lie in `payload`, which must live as long; nothing
        can be added to such an index

    Raises
    ------
    CacheUnusableError : FAISS refuses them
    """
    position = 0

    def read(size: int) -> bytes:
        nonlocal position
        part = payload[position : position + size].tobytes()
        position += len(part)
        return part

    if in_place:
        reader = _faiss.ZeroCopyIOReader(faiss.swig_ptr(payload), len(payload))
    else:
        reader = _faiss.PyCallbackIOReader(read, _CHUNK_BYTES)
    try:
        return faiss.read_index(reader)
    except RuntimeError as error:
        raise CacheUnusableError("not readable by this version of faiss") from error


def read_index(path: Path, stamp: Stamp) -> VectorIndex:
    """The index of the cache file `path`, if it is whole and made from `stamp`.

    Raises
    ------
    CacheUnusableError : absent, damaged, of another generation, or unreadable here
    """
    content = read_cache(path)
    check_stamp(content.made_from, stamp)
    index, ids = deserialized(content.index, in_place=True), content.ids
    if index.d != stamp.dim or index.ntotal != stamp.count:
        raise CacheUnusableError("damaged")
    if ids is None:
        mapped: Any = index  # of an earlier version
        flat = faiss.downcast_index(mapped.index)
        return VectorIndex(flat, _ids_of(mapped), mapped, content.index)
    if len(ids) != stamp.count:
        raise CacheUnusableError("damaged")
    return VectorIndex(index, ids, content.index)


def _ids_of(index: Any) -> np.ndarray:
    """(N,) int64, the ids that an index of FAISS holds itself.

    Not by `id_map`: that is a C++ vector, which SWIG takes for one of SimpleITK's where that
    was imported. A vector of zeros is as like to all, and a range search names all.
    """
    nothing = np.zeros((1, index.d), np.float32)
    ids: np.ndarray = index.range_search(nothing, -1.0)[2]
    return ids
