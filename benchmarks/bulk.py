"""Folders to answers and to a gallery: medcli, the network alone, and a plain script (plain.py).

    python benchmarks/bulk.py [--files 500] [--runs 3] [--kinds dcm jpg] [--model MODEL]
    python benchmarks/bulk.py --data FOLDER [--files 500]      pictures or DICOM of one slice
    python benchmarks/bulk.py --growth [--files 30] [--picture FILE.png]

Files are made from a seed, 512 × 512: CT slices of 12 bits as uncompressed DICOM, grey pictures
as JPEG or PNG. Commands and scripts run as whole processes, in turns; "network alone" is the graph
on tensors in memory in batches of 32, in this process, in the same turns. A CT slice enters a
gallery through several windows, so the network sees it that many times; the plain script sees it
once. The script's DataLoader has `--workers` processes. "Network alone" is ONNX Runtime unless
`--engine` names another for both. Then embeddings are compared: batches of 1 to 32, threads
1 to 4, both engines. `--growth` measures 1, 10 and 100 times as many files.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, get_args

import numpy as np
from machine import draw_growth, package_of, print_head, print_machine, print_row

from medcli.bench.embedding import Network, vectors_of
from medcli.bench.made import write_ct_slices, write_pictures
from medcli.bench.processes import clean_environment, run_measured
from medcli.bench.starting import MEDCLI
from medcli.config import EngineName
from medcli.imaging.discovery import find_scans
from medcli.inference.engine import Engine, OnnxEngine
from medcli.inference.openvino import OpenVinoEngine
from medcli.inference.predictor import Predictor
from medcli.models.package import GRAPH, ModelPackage

PLAIN = [sys.executable, str(Path(__file__).parent / "plain.py"), "embed"]
GROWTH = (1, 10, 100)


def write(folder: Path, kind: str, count: int) -> None:
    """So many files of a kind."""
    if kind == "dcm":
        write_ct_slices(folder, count)
    else:
        write_pictures(folder, count, kind)  # type: ignore[arg-type]


def take(folder: Path, data: Path, count: int) -> None:
    """Links to the first files of a folder, in the order of their names."""
    folder.mkdir()
    files = sorted(
        path for path in data.rglob("*") if path.suffix in (".dcm", ".png", ".jpeg", ".jpg")
    )
    for number, path in enumerate(files[:count]):
        shutil.copy(path, folder / f"{number:06}{path.suffix}")


def measure(
    folder: Path, package: ModelPackage, runs: int, workers: int, engine: EngineName
) -> dict[str, Any]:
    """Seconds and MiB of each way, a list over the runs."""
    cases = find_scans([str(folder)])
    count, views = len(cases), vectors_of(Predictor(package), cases[0])
    network, model = Network(package, engine), str(package.path)
    chosen = ["-m", model, "--engine", engine]
    found: dict[str, Any] = {"count": count, "views": views}
    with clean_environment() as environment, tempfile.TemporaryDirectory() as scratch:
        gallery, index = f"{scratch}/gallery", f"{scratch}/index.faiss"
        commands = {
            "classify": [*MEDCLI, "classify", str(folder), *chosen, "--json"],
            "index": [*MEDCLI, "index", "build", str(folder), *chosen, "-g", gallery],
            "plain": [*PLAIN, model, str(folder), index, str(workers)],
        }
        for turn in range(runs + 1):  # the first warms up
            for name, command in commands.items():
                measured = run_measured(command, environment)
                shutil.rmtree(gallery, ignore_errors=True)
                if turn:
                    found.setdefault(name, []).append(measured)
            for name, pictures in (("alone", count), ("alone, all views", count * views)):
                start = time.perf_counter()
                network.run(pictures)
                if turn:
                    found.setdefault(name, []).append((time.perf_counter() - start, 0.0))
    return found


def print_kind(kind: str, found: dict[str, Any]) -> None:
    """One row for classifying and one for indexing."""

    def ratio(one: str, other: str) -> float:
        pairs = zip(found[one], found[other], strict=True)
        return statistics.median(a[0] / b[0] for a, b in pairs)

    def middle(name: str, unit: int = 0) -> float:
        return float(statistics.median(each[unit] for each in found[name]))

    count = found["count"]
    for way, alone in (("classify", "alone"), ("index", "alone, all views")):
        print_row(
            [
                f"{way} {count} {kind}",
                count / middle(way),
                count / middle(alone),
                ratio(way, alone),
                count / middle("plain"),
                ratio("plain", way),
                middle(way, 1),
                middle("plain", 1),
            ]
        )


def print_agreement(package: ModelPackage) -> None:
    """The largest 1 - cos of the embeddings of 32 pictures over batches and threads."""
    settings = package.preprocess
    shape = (32, 1, settings.channels, settings.size, settings.size)
    images = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    truth = _embedded(OnnxEngine(package.path / GRAPH, 1), images, 1)
    print(
        "\n1 - cos, the largest of 32 noise pictures, beside ONNX Runtime with one thread and "
        "batches of one:\n"
    )
    threads = (1, 2, 4)
    print_head("engine", "batch", *(f"{count} threads" for count in threads))
    kinds: dict[str, Any] = {"ONNX Runtime": OnnxEngine, "OpenVINO": OpenVinoEngine}
    for name, kind in kinds.items():
        engines = [kind(package.path / GRAPH, count) for count in threads]
        for batch in (1, 2, 8, 32):
            found = [(_embedded(engine, images, batch) * truth).sum(axis=1) for engine in engines]
            print_row([name, batch, *(f"{max(0.0, 1 - each.min()):.1e}" for each in found)])


def _embedded(engine: Engine, images: np.ndarray, batch: int) -> np.ndarray:
    """(N, D) float64 embeddings of unit length, so many pictures at a time."""
    mask = np.ones((batch, 1), bool)
    starts = range(0, len(images), batch)
    parts = [engine.run(images[start : start + batch], mask).embedding for start in starts]
    rows: np.ndarray = np.concatenate(parts).astype(np.float64)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def print_growth(package: ModelPackage, kind: str, files: int, picture: Path | None) -> None:
    """Seconds and peak memory of `index build` over 1, 10 and 100 times as many files."""
    seconds, memory = [], []
    print_head(f"{kind} files", "seconds", "files/s", "peak MiB")
    with clean_environment() as environment:
        for times in GROWTH:
            count = files * times
            with tempfile.TemporaryDirectory() as scratch:
                folder = Path(scratch) / "scans"
                write(folder, kind, count)
                gallery = ["-g", f"{scratch}/gallery", "-m", str(package.path)]
                took, held = run_measured(
                    [*MEDCLI, "index", "build", str(folder), *gallery], environment
                )
            seconds.append((count, took))
            memory.append((count, held))
            print_row([count, took, count / took, held])
    if picture is not None:
        curves = {"seconds": seconds, "peak MiB": memory}
        draw_growth(picture, f"medcli index build, {kind} files", curves)


def main() -> None:
    """Measure each kind, print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--files", type=int, default=500)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--kinds", nargs="*", choices=["dcm", "jpg", "png"], default=["dcm", "jpg"])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--engine", choices=get_args(EngineName), default="auto")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--model")
    parser.add_argument("--growth", action="store_true")
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    package = package_of(options.model)
    print_machine(package, "torch", "openvino")
    if options.growth:
        print_growth(package, options.kinds[-1], options.files, options.picture)
        return
    print(f"{options.runs} turns, medians; scans a second, × in time\n")
    print_head(
        *("what", "medcli", "network alone", "× of it", "plain script", "plain takes ×"),
        *("MiB", "plain MiB"),
    )
    for kind in [options.data.name] if options.data else options.kinds:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "scans"
            if options.data:
                take(folder, options.data, options.files)
            else:
                write(folder, kind, options.files)
            found = measure(folder, package, options.runs, options.workers, options.engine)
            print_kind(kind, found)
    print_agreement(package)


if __name__ == "__main__":
    try:
        main()
    except subprocess.SubprocessError as error:
        sys.exit(str(error))
