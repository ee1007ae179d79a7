"""Approximate indexes: a graph (HNSW) or inverted lists of codes (IVF-PQ), on request only.

They propose scans; the scores of an answer are always made from the stored float16 vectors. The
graph holds these itself; what the codes propose is scored with those of the catalogue, each
compared with its checksum. Where fewer are found than were asked for, exact search answers.

Vectors of removed scans stay in the index under the id -1, which no search returns, until a
quarter of it is such; new ones are added to it. So a write costs no new graph.

References
----------
Malkov and Yashunin, Efficient and robust approximate nearest neighbor search using
Hierarchical Navigable Small World graphs, 2016. Jégou, Douze and Schmid, Product quantization
for nearest neighbor search, 2011.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

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
from medcli.retrieval.choice import ApproximateKind, Choice
from medcli.retrieval.vectors import VectorIndex, deserialized, rounding, serialized

_faiss: Any = faiss  # its type hints do not know what its Python layer adds
_LINKS = 32  # of a node of the graph
_BUILD_EFFORT = 80  # candidates for the links of a new node
_VALUES_A_CODE = 4  # of a vector, told by one byte
_TRAINING_ROWS_A_LIST = 64
_ITERATIONS = 10  # of k-means
_BREADTH = {"hnsw": 4, "ivfpq": 20}  # vectors proposed for each scan that is wanted
_LEAST_BREADTH = 64
_MOST_DEAD = 0.25
_CHUNK_ROWS = 1 << 16
_DEAD = -1


class Truth(Protocol):
    """What lies behind an approximate index."""

    def exact(self) -> VectorIndex:
        """The exact index of the same rows."""

    def rows(self, scans: Iterable[int] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The (N, D) float16 vectors, of all scans or of `scans`, and the (N,) ids of theirs."""


class ApproximateIndex:
    """An inner-product index that may miss neighbours, with the exact one behind it.

    Parameters
    ----------
    ids : (N,) int64, the scan of each vector; -1 where that was removed
    effort : see `Choice`
    """

    def __init__(
        self,
        kind: ApproximateKind,
        index: Any,
        ids: np.ndarray,
        effort: int,
        truth: Truth,
    ) -> None:
        self._kind = kind
        self._index = index
        self._ids = ids
        self._effort = effort
        self._truth = truth
        self._has_dead = bool((ids == _DEAD).any())

    def __len__(self) -> int:
        return int((self._ids != _DEAD).sum())

    @property
    def stored_bytes(self) -> int:
        """The size of its cache file, but for two lines."""
        return sum(map(len, serialized(self._index))) + self._ids.nbytes

    def with_effort(self, effort: int) -> ApproximateIndex:
        """The same index, searched with another effort."""
        return ApproximateIndex(self._kind, self._index, self._ids, effort, self._truth)

    def candidates(
        self, query: np.ndarray, k: int, excluded: Iterable[int] = (), **exactly: Any
    ) -> set[int]:
        """Ids of scans that are probably the `k` best, ties included.

        Parameters
        ----------
        query, excluded : as `VectorIndex.candidates` takes them
        exactly : what only exact search can do; given, that answers
        """
        excluded = set(excluded)
        if not any(value is not None for value in exactly.values()):
            found = self._proposed(query, k, excluded)
            if len(found) >= k:
                bound = sorted(found.values(), reverse=True)[k - 1] - rounding(query)
                return {scan for scan, score in found.items() if score >= bound}
        return self._truth.exact().candidates(query, k, excluded, **exactly)

    def _proposed(self, query: np.ndarray, k: int, excluded: set[int]) -> dict[int, float]:
        """Scans and the scores of the best of their vectors that were found.

        The vectors of one scan may fill an answer: then the search is repeated deeper.
        """
        breadth = max(_LEAST_BREADTH, _BREADTH[self._kind] * k)
        found: dict[int, float] = {}
        for depth in (breadth, 4 * breadth, 16 * breadth):
            scores, rows = self._search(query, min(depth, len(self._ids)), excluded)
            ids = self._ids[rows]
            if self._kind == "ivfpq":  # its scores are those of codes
                vectors, ids = self._truth.rows(set(ids.tolist()))
                scores = vectors.astype(np.float32) @ query
            for scan, score in zip(ids.tolist(), scores.tolist(), strict=True):
                found[scan] = max(score, found.get(scan, -np.inf))
            if len(found) >= k or depth >= len(self._ids):
                break
        return found

    def _search(
        self, query: np.ndarray, depth: int, excluded: set[int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Scores (M,) and rows (M,) of the best vectors found, M ≤ depth."""
        allowed = None
        if excluded or self._has_dead:
            left_out = np.fromiter({*excluded, _DEAD}, np.int64)
            allowed = np.packbits(~np.isin(self._ids, left_out), bitorder="little")
        selector = None if allowed is None else _faiss.IDSelectorBitmap(allowed)
        if self._kind == "hnsw":
            effort = max(self._effort, depth)
            parameters = _faiss.SearchParametersHNSW(efSearch=effort, sel=selector)
        else:
            parameters = _faiss.SearchParametersIVF(nprobe=self._effort, sel=selector)
        scores, rows = self._index.search(query[np.newaxis], depth, params=parameters)
        real = rows[0] >= 0  # FAISS pads with -1
        return scores[0][real], rows[0][real]

    def follows(self, vectors: np.ndarray, ids: np.ndarray) -> bool:
        """Take in that the rows are now these, or say that it must be built anew.

        Parameters
        ----------
        vectors, ids : (N, D) float16 and (N,); the vectors of a scan never change
        """
        gone = ~np.isin(self._ids, ids)
        new = ~np.isin(ids, self._ids)
        rows = len(self._ids) + int(new.sum())
        if gone.sum() > _MOST_DEAD * rows or self._outgrown(rows):
            return False
        add_rows(self._index, vectors[new])
        self._ids = np.concatenate([np.where(gone, _DEAD, self._ids), ids[new]])
        self._has_dead = bool(gone.any())
        return True

    def _outgrown(self, rows: int) -> bool:
        """Whether there are far more rows than the lists were learnt for."""
        return self._kind == "ivfpq" and lists_for(rows) > 2 * int(self._index.nlist)

    def save(self, path: Path, stamp: Stamp) -> list[ScanWarning]:
        """Write the cache file; the note says where that was not possible."""
        return saved(path, lambda: write_cache(path, self._ids, serialized(self._index), stamp))


def build_index(kind: ApproximateKind, vectors: np.ndarray, *, seed: int = 0) -> Any:
    """(N, D) float16 unit vectors → an index of FAISS of `kind` over their rows."""
    dim = vectors.shape[1]
    if kind == "hnsw":
        index = _faiss.IndexHNSWSQ(
            dim, faiss.ScalarQuantizer.QT_fp16, _LINKS, faiss.METRIC_INNER_PRODUCT
        )
        index.hnsw.efConstruction = _BUILD_EFFORT
    else:
        lists = lists_for(len(vectors))
        quantizer = faiss.IndexFlatIP(dim)
        index = _faiss.IndexIVFPQ(
            quantizer, dim, lists, _codes_for(dim), 8, faiss.METRIC_INNER_PRODUCT
        )
        index.cp.niter = _ITERATIONS
        index.cp.seed = index.pq.cp.seed = seed
        most = max(_TRAINING_ROWS_A_LIST * lists, 256 * 64)
        rng = np.random.default_rng(seed)
        chosen = np.sort(rng.permutation(len(vectors))[:most])
        index.train(vectors[chosen].astype(np.float32))
    add_rows(index, vectors)
    return index


def lists_for(count: int) -> int:
    """How many lists `count` vectors are spread over: four times the root, 39 vectors a list."""
    return max(1, min(int(4 * count**0.5), count // 39))


def _codes_for(dim: int) -> int:
    """Bytes a vector: the number of equal parts of at least four values."""
    return next(n for n in range(max(1, dim // _VALUES_A_CODE), 0, -1) if dim % n == 0)


def add_rows(index: faiss.Index, vectors: np.ndarray) -> None:
    """Add (N, D) float16 vectors, widened a part at a time."""
    for start in range(0, len(vectors), _CHUNK_ROWS):
        index.add(vectors[start : start + _CHUNK_ROWS].astype(np.float32))


def open_approximate(
    path: Path,
    stamp: Stamp,
    choice: Choice,
    truth: Truth,
    save: bool,
) -> tuple[ApproximateIndex, tuple[ScanWarning, ...]]:
    """The index of `stamp` from its cache file, brought up to date, or built anew.

    Parameters
    ----------
    save : what was changed may replace the file
    """
    older, reason = None, "stale"
    try:
        found, made_from = read_approximate(path, choice, truth)
        try:
            check_current(found, made_from, stamp)
            return found, ()
        except CacheUnusableError as error:
            save = save and not error.newer
            same = all(made_from.get(name) == getattr(stamp, name) for name in _UNCHANGING)
            older = found if same and error.reason == "stale" and not error.newer else None
    except CacheUnusableError as error:
        reason = error.reason
    vectors, ids = truth.rows()
    if older is None or not older.follows(vectors, ids):
        older = ApproximateIndex(
            choice.kind, build_index(choice.kind, vectors), ids, choice.effort, truth
        )
    notes = [ScanWarning(REBUILT, f"{path.name} was {reason}: brought up to date")]
    return older, tuple(notes + (older.save(path, stamp) if save else []))


def check_current(index: ApproximateIndex, made_from: dict[str, Any], stamp: Stamp) -> None:
    """Refuse an index that is not that of `stamp`.

    Raises
    ------
    CacheUnusableError : it is not
    """
    check_stamp(made_from, stamp)
    if len(index) != stamp.count:
        raise CacheUnusableError("damaged")


_UNCHANGING = ("gallery", "level", "dim")  # what an index that is only old has in common


def read_approximate(
    path: Path, choice: Choice, truth: Truth
) -> tuple[ApproximateIndex, dict[str, Any]]:
    """The index of a cache file that is whole, and what it was made from.

    Raises
    ------
    CacheUnusableError : absent, damaged, or unreadable here
    """
    content = read_cache(path)
    if content.ids is None:
        raise CacheUnusableError("damaged")
    index = deserialized(content.index)
    if index.ntotal != len(content.ids) or index.d != content.made_from.get("dim"):
        raise CacheUnusableError("damaged")
    ids = content.ids.astype(np.int64)
    return ApproximateIndex(choice.kind, index, ids, choice.effort, truth), content.made_from
