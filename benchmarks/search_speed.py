"""Search at size: one query and a thousand beside FAISS alone; a cold process; memory; growth.

    python benchmarks/search_speed.py [--rows 1000000] [--queries 50] [--batch 1000] [--runs 3]
    python benchmarks/search_speed.py --rows 10000 100000 1000000 --picture growth.png

Vectors are random but clustered, rows as in scale.py but written in bulk (bulk_rows.py), 256
values each; the gallery searches exactly, so its recall against float64 is that of rounding to
float16, and is printed. "Warm" is the whole of `medcli.retrieval.search.search` in a process that
has searched before: index, rows of the hits with their checksums, percentiles; "classes" the same
with the nearest scan of each class, as `medcli search` asks. FAISS alone searches the same
float16 vectors, in turns in the same process. The batch goes through `search_many`; of it FAISS,
which takes queries one by one, is given the first hundred. "Cold" is a process from its start to
its first answer with classes, Python and imports included, the model left out. Memory is what a
process holds at most above what it holds after its imports, beside the bytes of the float16
vectors. The limit of a query is the bytes of the vectors over the bandwidth that one thread gets,
measured in the same turns. With OMP_NUM_THREADS=1 all have one thread; without it, of 500,000
vectors on, medcli uses several for one query. Growth is told by --rows.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from bulk_rows import fill_in_bulk
from machine import draw_growth, package_of, print_head, print_machine, print_row
from scale import DIM, K, memory, vectors

from medcli.bench.measure import seconds_in_turns
from medcli.bench.processes import clean_environment, run_measured
from medcli.bench.searching import read_bytes
from medcli.records import SearchResult
from medcli.retrieval.query import Query, Wanted

FAISS_BATCH = 100  # queries


def ask_all(path: Path, queries: Path, batch: int, runs: int) -> dict[str, Any]:
    """Everything that is measured in a process of its own, which has done nothing before."""
    import faiss

    from medcli.retrieval.cache_files import read_cache
    from medcli.retrieval.gallery import Gallery
    from medcli.retrieval.search import search, search_many

    rows = np.load(queries)
    one, many = rows[:-batch], rows[-batch:]
    some = many[:FAISS_BATCH]
    before = memory()
    with Gallery.open(path) as gallery:

        def ask(row: np.ndarray, contrast: bool = False) -> list[int]:
            return ids_of(search(gallery, query_of(row), Wanted(K, contrast=contrast)))

        ask(one[0], True)
        held = memory() - before
        content = read_cache(path / "scan.faiss")
        assert content.ids is not None  # of this version
        alone = faiss.deserialize_index(content.index)
        stored = 2 * DIM * alone.ntotal
        ways: dict[str, Callable[[], object]] = {
            "warm": lambda: [ask(row) for row in one],
            "faiss": lambda: [alone.search(row[np.newaxis], K) for row in one],
            "classes": lambda: [ask(row, True) for row in one],
            "bytes": lambda: read_bytes(stored * len(one)),
        }
        seconds = seconds_in_turns(ways, runs)
        asked = list(map(query_of, many))
        together: dict[str, Callable[[], object]] = {
            "batch": lambda: search_many(gallery, asked, Wanted(K)),
            "faiss, batch": lambda: alone.search(some, K),
        }
        seconds |= seconds_in_turns(together, runs)
        found = [ask(row) for row in one]
        agreed = all(
            ids_of(result) == ask(row)
            for row, result in zip(
                one, search_many(gallery, list(map(query_of, one)), Wanted(K)), strict=True
            )
        )
    assert agreed, "queries asked together have other answers"
    exact = _exact(alone, content.ids, one)
    recall = np.mean([len(set(a) & set(b)) / K for a, b in zip(found, exact, strict=True)])
    return {"seconds": seconds, "held": held, "bytes": stored, "recall": float(recall)}


def query_of(row: np.ndarray) -> Query:
    """A query of one slice."""
    return Query("query", row, np.empty((0, DIM), np.float32), np.empty(0, np.int64))


def ids_of(result: SearchResult) -> list[int]:
    """The ids of the hits."""
    return [hit.id for hit in result.hits]


def _exact(index: Any, ids: np.ndarray, queries: np.ndarray) -> list[list[int]]:
    """The ids of the best of brute force in float64, some rows at a time."""
    best = np.full((len(queries), K), -np.inf)
    named = np.zeros((len(queries), K), np.int64)
    for start in range(0, len(ids), 16384):
        own = ids[start : start + 16384]
        part = index.reconstruct_n(start, len(own)).astype(np.float64)
        scores = np.hstack([best, queries.astype(np.float64) @ part.T])
        known = np.hstack([named, np.tile(own, (len(queries), 1))])
        order = np.argsort(-scores, axis=1, kind="stable")[:, :K]
        best, named = np.take_along_axis(scores, order, 1), np.take_along_axis(known, order, 1)
    return [row.tolist() for row in named]


def first_answer(path: Path, queries: Path) -> None:
    """What a cold process does."""
    from medcli.retrieval.gallery import Gallery
    from medcli.retrieval.search import search

    with Gallery.open(path) as gallery:
        print(len(search(gallery, query_of(np.load(queries)[0]), Wanted(K, contrast=True)).hits))


def measure(rows: int, options: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Print the rows of a gallery of `rows` scans; what grows."""
    path, queries = folder / "gallery", folder / "queries.npy"
    count = options.queries + options.batch
    # `vectors` goes on behind the stored ones: the last rows are no part of the gallery.
    last = deque(vectors(rows + count, options.seed, rows), maxlen=2 + count // 4096)
    np.save(queries, np.concatenate(last)[-count:])
    del last
    fill_in_bulk(path, rows, options.seed)
    own = [sys.executable, __file__]
    with clean_environment() as environment:
        cold = [
            run_measured([*own, "--cold", str(path), str(queries)], environment)
            for _ in range(options.runs + 1)
        ][1:]
        asked = [*own, "--ask", str(path), str(queries), str(options.batch), str(options.runs)]
        done = subprocess.run(asked, capture_output=True, text=True, check=True, env=environment)
    told = json.loads(done.stdout)
    counts = {"batch": options.batch, "faiss, batch": min(options.batch, FAISS_BATCH)}
    each = {
        name: 1000 * np.array(seconds) / counts.get(name, options.queries)
        for name, seconds in told["seconds"].items()
    }
    ms = {name: float(np.median(times)) for name, times in each.items()}
    pairs = (("warm", "faiss"), ("classes", "faiss"), ("batch", "faiss, batch"))
    ratio = {ours: float(np.median(each[ours] / each[theirs])) for ours, theirs in pairs}
    mib = told["bytes"] / 2**20
    seconds = statistics.median(taken for taken, _ in cold)
    print_row(
        [
            *(f"{rows:,}", f"{told['recall']:.4f}", ms["warm"], ms["faiss"], ratio["warm"]),
            *(ms["classes"], ratio["classes"], ms["bytes"]),
            *(ms["batch"], ms["faiss, batch"], ratio["batch"], seconds),
            *(told["held"], mib, told["held"] / mib),
        ]
    )
    return {"warm query, ms": ms["warm"], "cold process, s": seconds, "memory, MiB": told["held"]}


def main() -> None:
    """Parse the options, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="*", default=[1_000_000])
    parser.add_argument("--queries", type=int, default=50)
    parser.add_argument("--batch", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where the galleries are made; on a disk")
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--ask", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--cold", nargs=2, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.cold:
        first_answer(*options.cold)
        return
    if options.ask:
        path, queries, batch, runs = options.ask
        print(json.dumps(ask_all(Path(path), Path(queries), int(batch), int(runs))))
        return
    print_machine(package_of(None))
    print(f"{DIM} values a vector, {options.queries} queries, then {options.batch} together;")
    print(f"{options.runs} turns, medians; ms a query\n")
    print_head(
        *("rows", "recall@10", "warm", "FAISS", "×", "classes", "×", "bytes/bandwidth"),
        *(f"of {options.batch}", "FAISS", "×", "cold s", "MiB", "vectors, MiB", "×"),
    )
    curves: dict[str, Any] = {}
    for rows in options.rows:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            for name, amount in measure(rows, options, Path(folder)).items():
                curves.setdefault(name, []).append((rows, amount))
    if options.picture and len(options.rows) > 1:
        draw_growth(options.picture, "Search", curves)


if __name__ == "__main__":
    main()
