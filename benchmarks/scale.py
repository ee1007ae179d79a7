"""How large may a gallery grow? Rows in, bytes, query time, memory, recall; and a no-change update.

    python benchmarks/scale.py [--rows 10000 100000] [--files 100000] [--seed 0]
    python benchmarks/scale.py --rows 1000000 --indexes ivfpq --files 0

Vectors are random but clustered: a hundred to a centre, cosine .8 between two of one cluster. A
row is a scan of one slice with a label, a patient and no thumbnail, stored by `Gallery.add` in
transactions of 64, as `index build` does; nothing is decoded or embedded. Queries are further
vectors of the same clusters, which no index has seen.

Times are of the processor (one thread): where other jobs run, the clock on the wall tells of these.
Rows a second are told by both, since the wall's includes the disk. A cold query is the first of a
process: open the gallery, load the index, search; Python and its imports are not counted. A warm
one is the median of the others. MiB is what the process has grown by. Recall@10 is against exact
search.

The update looks at every stored scan, one small file each, none of which has changed.
HNSW is left out above 100,000 rows unless named: its graph takes an hour there. 5,000,000 rows
are a job for a night: `--rows 5000000 --indexes ivfpq --files 0`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from medcli.records import Embedding, GalleryEntry, Source

DIM = 256
CLUSTER = 100  # rows around one centre
SPREAD = 0.5  # of a cluster: the cosine of two of its rows is 1 / (1 + SPREAD²)
MOST_HNSW = 100_000
OLD = 1_700_000_000  # seconds; a file changed then has settled
K = 10
_CHUNK = 4096
_NONE = np.empty(0, np.int64)


def vectors(count: int, seed: int, rows: int) -> Iterator[np.ndarray]:
    """`count` vectors in parts (M, DIM) of unit length, of the clusters of `rows` rows."""
    rng = np.random.default_rng([seed, 1])
    centres = _unit(np.random.default_rng([seed, 0]).normal(size=(max(1, rows // CLUSTER), DIM)))
    for start in range(0, count, _CHUNK):
        part = min(_CHUNK, count - start)
        noise = rng.normal(size=(part, DIM)) * SPREAD / np.sqrt(DIM)
        yield _unit(centres[rng.integers(len(centres), size=part)] + noise)


def _unit(rows: np.ndarray) -> np.ndarray:
    unit: np.ndarray = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return unit


def entries(count: int, seed: int) -> Iterator[GalleryEntry]:
    """Scans of one slice."""
    number = 0
    for part in vectors(count, seed, count):
        for vector in part:
            yield entry(f"/archive/{number // 1000:04}/{number:08}.dcm", number, vector)
            number += 1


def entry(path: str, number: int, vector: np.ndarray, source: Source | None = None) -> GalleryEntry:
    """One scan."""
    embedding = Embedding(vector, np.zeros(2, np.float32), np.empty((0, DIM)), _NONE, (), _NONE)
    return GalleryEntry(
        path=path,
        scan_id=path,
        files=(path,),
        slice_files=(path,),
        embedding=embedding,
        label=("benign", "malignant")[number % 2],
        patient_id=f"P{number // 2}",
        modality="CT",
        pixel_sha256=hashlib.sha256(path.encode()).hexdigest(),
        source=source,
    )


def fill(path: Path, made: Iterator[GalleryEntry], root: str) -> None:
    """A gallery of `made`, whose model nobody runs."""
    from medcli.retrieval.gallery import Gallery

    package = package_beside(path)
    with Gallery.build(
        path, model_dir=package, fingerprint="0" * 64, dim=DIM, root=root
    ) as gallery:
        gallery.add(made)


def package_beside(path: Path) -> Path:
    """What stands for the model package of the gallery that will be at `path`."""
    package = path.with_name("package")
    package.mkdir(exist_ok=True)
    (package / "model.json").write_text("{}")
    return package


def timed(do: Callable[[], object]) -> tuple[float, float]:
    """Seconds that it takes, by the processor and by the wall."""
    started = time.process_time(), time.perf_counter()
    do()
    return time.process_time() - started[0], time.perf_counter() - started[1]


def memory() -> float:
    """The most that this process has held, MiB; Linux (`ru_maxrss` counts a parent's, too)."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s*(\d+) kB", status)[1]) / 1024  # type: ignore[index]


def ask(path: Path, queries: Path) -> dict[str, Any]:
    """Search in this process, which has done nothing before; ids of the hits and times."""
    import faiss

    from medcli.retrieval.gallery import Gallery
    from medcli.retrieval.query import Query, Wanted
    from medcli.retrieval.search import search

    faiss.omp_set_num_threads(1)
    rows = np.load(queries)
    before = memory()
    times, hits = [], []
    started = time.process_time()
    with Gallery.open(path) as gallery:
        for row in rows:
            query = Query("query", row, np.empty((0, DIM), np.float32), _NONE)
            hits.append([hit.id for hit in search(gallery, query, Wanted(K)).hits])
            times.append(time.process_time() - started)
            started = time.process_time()
    return {
        "cold": times[0],
        "warm": 1000 * float(np.median(times[1:])),
        "memory": memory() - before,
        "hits": hits,
    }


def asked(path: Path, queries: Path) -> dict[str, Any]:
    """`ask` in a process of its own."""
    command = [sys.executable, __file__, "--ask", str(path), str(queries)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def measure(rows: int, kinds: Sequence[str], seed: int, count: int, folder: Path) -> None:
    """Print the tables of a gallery of `rows` rows."""
    path, queries = folder / "gallery", folder / "queries.npy"
    # `vectors` goes on behind the stored ones: the last rows are no part of the gallery
    *_, last = vectors(rows + count, seed, rows)
    np.save(queries, last[-count:])
    cpu, wall = timed(lambda: fill(path, entries(rows, seed), "/archive"))
    catalogue = (path / "catalogue.sqlite").stat().st_size
    print(
        f"{rows:,} rows: {rows / cpu:,.0f} rows a second in, exact index included (by the", end=" "
    )
    print(f"wall {rows / wall:,.0f}); catalogue {catalogue / rows:.0f} bytes a row", flush=True)
    truth = asked(path, queries)
    index = (path / "scan.faiss").stat().st_size / rows
    print("index   effort  recall@10  tuned at  cold s  warm ms     MiB  bytes/vector  build s")
    row = "{:7} {:>6}  {:>9.3f}  {:>8}  {:>6.2f}  {:>7.2f}  {:>6.0f}  {:>12.0f}  {:>7}"
    figures = (truth["cold"], truth["warm"], truth["memory"])
    print(row.format("exact", "–", 1, "–", *figures, index, "–"), flush=True)
    for kind in kinds:
        tuned = tune(path, kind, seed)
        answer = asked(path, queries)
        found = [
            len(set(a) & set(b)) / K for a, b in zip(answer["hits"], truth["hits"], strict=True)
        ]
        figures = (answer["cold"], answer["warm"], answer["memory"])
        print(
            row.format(
                kind,
                str(tuned["effort"]),
                float(np.mean(found)),
                f"{tuned['recall']:.3f}",
                *figures,
                tuned["bytes"],
                f"{tuned['seconds']:.0f}",
            ),
            flush=True,
        )


def tune(path: Path, kind: str, seed: int) -> dict[str, Any]:
    """Choose `kind` as `index tune` does; the last trial. Where it falls short it is used, too."""
    import dataclasses

    from medcli.retrieval.choice import Choice
    from medcli.retrieval.gallery import Gallery
    from medcli.retrieval.tuning import tune as measured
    from medcli.retrieval.tuning import use

    with Gallery.open(path, write=True) as gallery:
        tuning = measured(gallery, kind, seed=seed)  # type: ignore[arg-type]
        last = tuning.trials[-1]
        if tuning.choice is None:
            print(f"{kind} does not reach .99; index tune would stay with exact search")
            use(gallery, Choice(kind, last.effort or 0, last.recall, K, 200, last.vectors))  # type: ignore[arg-type]
    return dataclasses.asdict(last)


def write_files(folder: Path, count: int) -> Iterator[GalleryEntry]:
    """Small files, long unchanged, and the rows of scans read from them."""
    chosen = vectors(count, 0, count)
    rows = iter(row for part in chosen for row in part)
    for number in range(count):
        file = folder / f"{number // 1000:04}" / f"{number:08}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        content = f"scan {number}".encode()
        file.write_bytes(content)
        os.utime(file, (OLD, OLD))
        source = Source(
            "picture", ((len(content), OLD * 10**9),), hashlib.sha256(content).hexdigest()
        )
        yield entry(str(file), number, next(rows), source)


def measure_update(count: int, folder: Path) -> None:
    """Print how long an update takes that finds `count` files unchanged."""
    from medcli.retrieval.gallery import Gallery
    from medcli.workflows.updating import update_gallery

    path, files = folder / "gallery", folder / "files"
    fill(path, write_files(files, count), str(files))
    before = memory()
    with Gallery.open(path, write=True) as gallery:
        reports = []
        cpu, wall = timed(lambda: reports.append(update_gallery(gallery, None)))  # type: ignore[arg-type]  # nothing is embedded
    assert reports[0].unchanged == count, reports[0]
    print(
        f"update without changes, {count:,} files: {cpu:.1f} s ({wall:.1f} by the wall),", end=" "
    )
    print(f"{1e6 * cpu / count:.0f} µs a file, {memory() - before:.0f} MiB more", flush=True)


def main() -> None:
    """Parse the options, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="*", default=[10_000, 100_000])
    parser.add_argument("--indexes", nargs="*", choices=["hnsw", "ivfpq"])
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where the galleries are made; on a disk")
    parser.add_argument("--ask", nargs=2, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.ask:
        print(json.dumps(ask(*options.ask)))
        return
    import faiss

    faiss.omp_set_num_threads(1)
    date = datetime.now(UTC).date()
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    print(f"{date}, {platform.machine()}, {os.cpu_count()} cores (one thread used), load {load};")
    print(f"faiss {faiss.__version__}, {DIM}-d, seed {options.seed}", flush=True)
    for rows in options.rows:
        kinds = options.indexes or (["hnsw", "ivfpq"] if rows <= MOST_HNSW else ["ivfpq"])
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            measure(rows, kinds, options.seed, options.queries, Path(folder))
    if options.files:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            measure_update(options.files, Path(folder))


if __name__ == "__main__":
    main()
