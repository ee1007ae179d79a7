"""Search in memory and rows into a gallery, beside FAISS, SQLite and the memory's bandwidth."""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from medcli.bench.measure import Measure, compared, seconds_in_turns
from medcli.records import Embedding, GalleryEntry
from medcli.retrieval.gallery import Gallery
from medcli.retrieval.query import Query, Wanted
from medcli.retrieval.search import search

DIM = 256
K = 10
SEED = 0
_TRANSACTION = 64  # rows, as `Gallery.add`
_BANDWIDTH_BYTES = 2**28  # beyond every cache
_NO_SLICES = np.empty((0, DIM), np.float32)
_NO_NUMBERS = np.empty(0, np.int64)


def unit_vectors(count: int, seed: int = SEED) -> np.ndarray:
    """(count, 256) float32 random vectors of unit length."""
    rows = np.random.default_rng(seed).standard_normal((count, DIM), np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def measure_search(vectors: int, queries: int, turns: int) -> Iterator[Measure]:
    """One query and several over random vectors in memory, beside FAISS and the hardware."""
    import faiss

    from medcli.retrieval.vectors import VectorIndex, depth_for

    rows, asked = unit_vectors(vectors), unit_vectors(queries, SEED + 1)
    ours = VectorIndex.build(rows.astype(np.float16), np.arange(1, vectors + 1))
    alone = faiss.IndexScalarQuantizer(
        DIM, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
    )
    alone.add(rows)
    stored = vectors * DIM * 2
    one = {
        "ours": lambda: [ours.candidates(query, K) for query in asked],
        "faiss": lambda: [alone.search(query[np.newaxis], K) for query in asked],
        "bandwidth": lambda: read_bytes(stored * queries),
    }
    seconds = seconds_in_turns(one, turns)
    name = f"one of {vectors:,} × {DIM}"
    pairs = (("faiss", "FAISS alone"), ("bandwidth", "bytes over bandwidth"))
    for way, beside in pairs:
        yield compared("search", name, "ms", seconds["ours"], beside, seconds[way], queries)

    def at_once() -> list[set[int]]:
        firsts = ours.nearest_of_each(asked, depth_for(K))
        return [
            ours.candidates(query, K, first=first)
            for query, first in zip(asked, firsts, strict=True)
        ]

    together = {
        "ours": at_once,
        "faiss": lambda: alone.search(asked, K),
        "product": lambda: asked @ rows.T,
    }
    seconds = seconds_in_turns(together, turns)
    name = f"each of {queries} queries"
    for way, beside in (("faiss", "FAISS alone"), ("product", "matrix product")):
        yield compared("search", name, "ms", seconds["ours"], beside, seconds[way], queries)


def read_bytes(count: int) -> float:
    """Read so many bytes of memory by one thread, in NumPy."""
    words = _memory()
    total, left = 0.0, count // words.itemsize
    while left > 0:
        part = words[: min(left, words.size)]
        total += float(part.dot(part))
        left -= part.size
    return total


@cache
def _memory() -> np.ndarray:
    return np.ones(_BANDWIDTH_BYTES // 4, np.float32)


def measure_gallery(rows: int, queries: int, turns: int) -> Iterator[Measure]:
    """Rows into a gallery and one query of it, each synced to disk as `index build` does."""
    import faiss

    vectors, asked = unit_vectors(rows), unit_vectors(queries, SEED + 1)
    with TemporaryDirectory(prefix="medcli-bench-") as scratch:
        folder = Path(scratch)
        filled: dict[str, list[float]] = {"ours": [], "sqlite": []}
        for turn in range(turns):
            filled["ours"].append(fill_gallery(folder / str(turn), vectors))
            filled["sqlite"].append(fill_sqlite(folder / f"{turn}.sqlite", vectors))
        name = f"{rows:,} rows in"
        ours, theirs = filled.values()
        yield compared("gallery", name, "rows/s", ours, "SQLite alone", theirs, rows)
        alone = faiss.IndexFlatIP(DIM)
        alone.add(vectors)
        with Gallery.open(folder / "0") as gallery:
            ways = {
                "ours": lambda: [ask(gallery, query) for query in asked],
                "faiss": lambda: [alone.search(query[np.newaxis], K) for query in asked],
            }
            seconds = seconds_in_turns(ways, turns)
        ours, theirs = seconds.values()
        name = f"one query, {rows:,} scans"
        yield compared("gallery", name, "ms", ours, "FAISS alone", theirs, queries)


def ask(gallery: Gallery, vector: np.ndarray) -> int:
    """The whole of a search: the hits with their rows, vote and percentiles; how many."""
    query = Query("query", vector, _NO_SLICES, _NO_NUMBERS)
    return len(search(gallery, query, Wanted(K)).hits)


def fill_gallery(path: Path, vectors: np.ndarray) -> float:
    """Make a gallery of scans of one slice that have these vectors; seconds of adding them.

    Nothing is read or embedded; the index and the calibration are part of it.
    """
    package = path.with_name("model")
    package.mkdir(exist_ok=True)
    (package / "model.json").write_text("{}")
    with Gallery.build(path, model_dir=package, fingerprint="0" * 64, dim=DIM) as gallery:
        start = time.perf_counter()
        gallery.add(map(entry, range(len(vectors)), vectors))
        return time.perf_counter() - start


def entry(number: int, vector: np.ndarray) -> GalleryEntry:
    """A scan of one slice with that (D,) vector; two of each patient."""
    path = f"/archive/{number // 1000:04}/{number:08}.dcm"
    none = np.empty((0, len(vector)), np.float32)
    return GalleryEntry(
        path=path,
        scan_id=path,
        files=(path,),
        slice_files=(path,),
        embedding=Embedding(
            vector, np.zeros(2, np.float32), none, _NO_NUMBERS, (), np.ones(1, np.float32)
        ),
        label=("benign", "malignant")[number % 2],
        patient_id=f"P{number // 2}",
        modality="CT",
        pixel_sha256=hashlib.sha256(path.encode()).hexdigest(),
    )


def fill_sqlite(path: Path, vectors: np.ndarray) -> float:
    """The same vectors, names and labels in one table of SQLite, as durable; seconds."""
    connection: Any = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("CREATE TABLE scan (id INTEGER PRIMARY KEY, path, label, vector)")
        start = time.perf_counter()
        for first in range(0, len(vectors), _TRANSACTION):
            part = vectors[first : first + _TRANSACTION].astype(np.float16)
            rows = [
                (f"/archive/{first + number:08}.dcm", "benign", row.tobytes())
                for number, row in enumerate(part)
            ]
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany("INSERT INTO scan (path, label, vector) VALUES (?, ?, ?)", rows)
            connection.execute("COMMIT")
        return time.perf_counter() - start
    finally:
        connection.close()
