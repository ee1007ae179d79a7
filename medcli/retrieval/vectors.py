"""The vector index of a gallery: FAISS, exact, float16, a disposable cache.

A gallery has two indexes, one a level: "scan" (one vector a scan) and "slice"
(the slices of scans with several). The FAISS id of a vector is the id of its
scan, so a search names scans without asking the catalogue.

A cache file is one JSON line (what it was made from), one line with the SHA-256
of all the rest, then FAISS's own bytes. FAISS parses them only after the
checksum has been compared: its reader takes damaged files without complaint, and
its writer hides a full disk, so reading and writing are done here.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, Self

import faiss
import numpy as np

from medcli.files import replace_file
from medcli.records import ScanWarning

Level = Literal["scan", "slice"]
LEVELS: tuple[Level, ...] = ("scan", "slice")
REBUILT = "index_rebuilt"
NOT_SAVED = "index_not_saved"

_CHUNK_BYTES = 1 << 20
_CHUNK_ROWS = 1 << 16
_PASS_ROWS = 1 << 13  # decoded at a time
_MAX_HEADER_BYTES = 4096


class CacheUnusableError(Exception):
    """A cache file that must not be used; `reason` says why.

    `newer` is set where another process has written it for a later generation.
    """

    def __init__(self, reason: str, *, newer: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.newer = newer


@dataclass(frozen=True, slots=True)
class Stamp:
    """What an index was made from; a cache file is used only if all of it agrees."""

    gallery: str
    level: Level
    generation: int
    count: int
    dim: int


class VectorIndex:
    """Exact inner-product search over float16 vectors."""

    def __init__(self, index: faiss.Index) -> None:
        self._index = index

    @classmethod
    def build(cls, vectors: np.ndarray, ids: np.ndarray) -> Self:
        """(N, D) float16 unit vectors and the (N,) ids of their scans → index."""
        flat = faiss.IndexScalarQuantizer(
            vectors.shape[1], faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
        )
        index = faiss.IndexIDMap(flat)
        for start in range(0, len(vectors), _CHUNK_ROWS):  # widened a part at a time
            rows = slice(start, start + _CHUNK_ROWS)
            index.add_with_ids(vectors[rows].astype(np.float32), ids[rows].astype(np.int64))
        return cls(index)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def candidates(
        self,
        query: np.ndarray,
        k: int,
        excluded: Iterable[int] = (),
        among: Iterable[int] | None = None,
        groups: Mapping[int, int] | None = None,
    ) -> set[int]:
        """Ids of all scans that may be the best of the `k` best groups of this index.

        Parameters
        ----------
        query : (D,) float32, unit length
        excluded : ids of scans to leave out before the search
        among : ids of the scans that may answer; None: all
        groups : the group of each scan; without it, and where it knows none, a scan is one

        Notes
        -----
        A scan's score here is the best of its vectors. Vectors of one scan can fill
        the answer of FAISS, so the scans found are left out and the search goes on,
        each time twice as deep, until `k` groups are found and the next one is worse by
        more than rounding can explain; then exact scores can decide, ties included.
        """
        margin = rounding(query)
        found: dict[int, float] = {}  # best first
        best: dict[int, float] = {}  # of each group; that of a lone scan has a negative number
        left_out = set(excluded)
        allowed = None if among is None else set(among)
        depth = max(64, 4 * k)
        while True:
            scores, ids = self._search(query, depth, left_out, allowed)
            for scan, score in zip(ids.tolist(), scores.tolist(), strict=True):
                found.setdefault(scan, score)
                group = scan if groups is None else groups.get(scan, -scan)
                best[group] = max(best.get(group, -np.inf), score)
            ranked = sorted(best.values(), reverse=True)
            bound = ranked[k - 1] - margin if len(ranked) >= k else -np.inf
            if len(ids) < depth or scores[-1] < bound:
                return {scan for scan, score in found.items() if score >= bound}
            left_out |= found.keys()
            depth *= 2

    def _search(
        self, query: np.ndarray, depth: int, left_out: set[int], allowed: set[int] | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Scores (M,) and scan ids (M,) of the best vectors, M ≤ depth, best first."""
        depth = min(depth, len(self))
        if depth == 0:
            return np.empty(0, np.float32), np.empty(0, np.int64)
        parameters = None
        if left_out or allowed is not None:
            chosen = left_out if allowed is None else allowed - left_out
            batch = faiss.IDSelectorBatch(np.fromiter(chosen, np.int64, len(chosen)))
            selector = batch if allowed is not None else faiss.IDSelectorNot(batch)
            parameters = faiss.SearchParameters()
            parameters.sel = selector  # a bare pointer: `selector` and `batch` must live on
        scores, ids = self._index.search(query[np.newaxis], depth, params=parameters)
        real = ids[0] >= 0  # FAISS pads with -1
        return scores[0][real], ids[0][real]

    def _owners(self) -> np.ndarray:
        """(N,) int64, the scan of each vector, in the order of FAISS's codes.

        Not by `id_map`: that is a C++ vector, which SWIG takes for one of SimpleITK's where
        that was imported. A vector of zeros is as like to all, and a range search names all.
        """
        nothing = np.zeros((1, self._index.d), np.float32)
        owners: np.ndarray = self._index.range_search(nothing, -1.0)[2]
        return owners

    def best_of_scans(
        self,
        queries: np.ndarray,
        excluded: Collection[int] = (),
        among: Collection[int] | None = None,
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
        owners = self._owners()
        kept = np.ones(len(owners), bool) if among is None else _is_in(owners, among)
        (rows,) = (kept & ~_is_in(owners, excluded)).nonzero()
        rows = rows[np.argsort(owners[rows], kind="stable")]
        ids, places = np.unique(owners[rows], return_inverse=True)
        best = np.full((len(ids), len(queries)), -np.inf, np.float32)
        mapped: Any = self._index
        flat: Any = faiss.downcast_index(mapped.index)
        size = flat.code_size
        codes = faiss.rev_swig_ptr(flat.codes.data(), flat.ntotal * size).reshape(-1, size)
        columns = np.ascontiguousarray(queries.T, np.float32)
        for start in range(0, len(rows), _PASS_ROWS):
            part = slice(start, start + _PASS_ROWS)
            products = flat.sa_decode(codes[rows[part]]) @ columns
            (first,) = np.diff(places[part], prepend=-1).nonzero()
            scans = places[part][first]
            best[scans] = np.maximum(best[scans], np.maximum.reduceat(products, first))
        return ids, best


def scores_of_scans(
    indexes: Sequence[VectorIndex],
    queries: np.ndarray,
    excluded: Collection[int] = (),
    among: Collection[int] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """`VectorIndex.best_of_scans` over several indexes together."""
    parts = [index.best_of_scans(queries, excluded, among) for index in indexes]
    ids = np.unique(np.concatenate([own for own, _ in parts]))
    scores = np.full((len(ids), len(queries)), -np.inf, np.float32)
    for own, best in parts:
        places = np.searchsorted(ids, own)
        scores[places] = np.maximum(scores[places], best)
    return ids, scores


def best_scans(
    indexes: Sequence[VectorIndex],
    queries: np.ndarray,
    k: int,
    excluded: Collection[int] = (),
    among: Collection[int] | None = None,
    groups: Mapping[int, int] | None = None,
) -> set[int]:
    """Ids of all scans that may be the best of the `k` best groups by the mean over `queries`.

    Parameters are those of `VectorIndex.candidates`, for (S, D) queries: a scan's score is
    the mean, over the queries, of the best of its vectors.
    """
    ids, scores = scores_of_scans(indexes, queries, excluded, among)
    means = scores.mean(axis=1, dtype=np.float64)
    if groups is None:
        best = means
    else:
        own = np.array([groups.get(scan, -scan) for scan in ids.tolist()], np.int64)
        numbers, places = np.unique(own, return_inverse=True)
        best = np.full(len(numbers), -np.inf)
        np.maximum.at(best, places, means)
    if len(best) <= k:
        return set(ids.tolist())
    bound = np.partition(best, -k)[-k] - rounding(queries[0])
    return set(ids[means >= bound].tolist())


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
        notes += saved(path, lambda: write_index(path, index, stamp))
    return index, tuple(notes)


def saved(path: Path, write: Callable[[], None]) -> list[ScanWarning]:
    """Save a cache file by `write`; where the system refuses, the note that says so."""
    try:
        write()
    except OSError as error:
        reason = error.strerror or str(error)
        return [ScanWarning(NOT_SAVED, f"{path.name} could not be saved: {reason}")]
    return []


def write_index(path: Path, index: VectorIndex, stamp: Stamp) -> None:
    """Replace the cache file `path` atomically and durably.

    Raises
    ------
    OSError : the disk is full, or the folder cannot be written
    """
    write_cache(path, serialized(index._index), stamp)


def write_cache(path: Path, parts: Sequence[bytes], stamp: Stamp, **more: int) -> None:
    """Replace the cache file `path` by `parts`, made from `stamp`; `more` goes with that."""
    size = sum(map(len, parts))
    head = json.dumps({**dataclasses.asdict(stamp), **more, "bytes": size}).encode() + b"\n"
    digest = hashlib.sha256(head)
    for part in parts:
        digest.update(part)
    replace_file(path, (head, digest.hexdigest().encode() + b"\n", *parts))


def serialized(index: faiss.Index) -> list[bytes]:
    """FAISS's own bytes, in parts.

    Not by `serialize_index`: it hands over a C++ vector, which SWIG takes for one of
    SimpleITK's where that was imported later.
    """
    parts: list[bytes] = []
    writer = faiss.PyCallbackIOWriter(parts.append, _CHUNK_BYTES)  # type: ignore[attr-defined]
    faiss.write_index(index, writer)
    return parts


def deserialized(payload: np.ndarray) -> faiss.Index:
    """The index of FAISS's own bytes (N,) uint8; see `serialized`.

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

    reader = faiss.PyCallbackIOReader(read, _CHUNK_BYTES)  # type: ignore[attr-defined]
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
    payload, made_from = read_cache(path)
    check_stamp(made_from, stamp)
    index = deserialized(payload)
    if index.d != stamp.dim or index.ntotal != stamp.count:
        raise CacheUnusableError("damaged")
    return VectorIndex(index)


def read_cache(path: Path) -> tuple[np.ndarray, dict[str, Any]]:
    """The content (N,) uint8 of a cache file that is whole, and what it was made from.

    Raises
    ------
    CacheUnusableError : absent, damaged, or unreadable here
    """
    try:
        with path.open("rb") as file:
            return _checked_payload(file)
    except FileNotFoundError as error:
        raise CacheUnusableError("absent") from error
    except OSError as error:
        raise CacheUnusableError(f"unreadable ({error.strerror or error})") from error


def check_stamp(made_from: dict[str, Any], stamp: Stamp) -> None:
    """Refuse a cache that was not made from `stamp`.

    Raises
    ------
    CacheUnusableError : it was not
    """
    if any(made_from.get(name) != value for name, value in dataclasses.asdict(stamp).items()):
        raise CacheUnusableError("stale", newer=made_from.get("generation", 0) > stamp.generation)


def _checked_payload(file: BinaryIO) -> tuple[np.ndarray, dict[str, Any]]:
    """The bytes (N,) uint8 behind the first two lines, and the first line, after all checks."""
    head, checksum = file.readline(_MAX_HEADER_BYTES), file.readline(_MAX_HEADER_BYTES)
    values = _parsed(head)
    size = values.get("bytes")
    if not isinstance(size, int) or file.seek(0, 2) != len(head) + len(checksum) + size:
        raise CacheUnusableError("damaged")
    file.seek(len(head) + len(checksum))
    payload = np.empty(size, np.uint8)
    digest = hashlib.sha256(head)
    for start in range(0, size, _CHUNK_BYTES):
        part = payload.data[start : start + _CHUNK_BYTES]
        if file.readinto(part) != part.nbytes:  # type: ignore[attr-defined]
            raise CacheUnusableError("damaged")
        digest.update(part)
    if checksum != digest.hexdigest().encode() + b"\n":
        raise CacheUnusableError("damaged")
    return payload, values


def _parsed(head: bytes) -> dict[str, Any]:
    """The JSON object of a cache file's first line."""
    try:
        values = json.loads(head)
    except ValueError as error:  # also bytes that are no UTF-8
        raise CacheUnusableError("damaged") from error
    if not isinstance(values, dict):
        raise CacheUnusableError("damaged")
    return values
