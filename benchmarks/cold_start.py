"""Cold starts: medcli's commands beside the plain script a user would write (plain.py).

    python benchmarks/cold_start.py [--runs 7] [--model MODEL] [--scan FILE] [--rows 100000]

All run as whole processes, in turns, after one warm-up each; printed are medians and the
median of the ratios of neighbouring runs. Memory is the sum of the peak resident sizes of
all processes of a command. `search` asks a gallery of random vectors, with the model's own
network for the query; the script has them in one array. `--help` and `index info` stand
beside an interpreter that imports typer.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
from machine import package_of, print_head, print_machine, print_row

from medcli.bench.processes import clean_environment, processes_in_turns
from medcli.bench.searching import entry
from medcli.bench.starting import MEDCLI
from medcli.models.package import ModelPackage
from medcli.retrieval.gallery import Gallery

HERE = Path(__file__).parent
PLAIN = [sys.executable, str(HERE / "plain.py")]


def fill(folder: Path, package: ModelPackage, rows: int) -> tuple[Path, Path]:
    """A gallery of so many random vectors, and the file of the same vectors."""
    dim = package.model.vector_dim
    vectors = np.random.default_rng(0).standard_normal((rows, dim), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    np.save(folder / "vectors.npy", vectors.astype(np.float16))
    with Gallery.build(
        folder / "gallery", model_dir=package.path, fingerprint=package.fingerprint, dim=dim
    ) as gallery:
        gallery.add(entry(number, row) for number, row in enumerate(vectors))
    return folder / "gallery", folder / "vectors.npy"


def main() -> None:
    """Time the commands in turns and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--model")
    parser.add_argument("--scan", type=Path, default=HERE.parent / "sample_data" / "scan.dcm")
    parser.add_argument("--rows", type=int, default=100_000)
    options = parser.parse_args()
    package, scan = package_of(options.model), str(options.scan)
    typer, model = [sys.executable, "-c", "import typer"], str(package.path)
    print_machine(package, "torch", "typer")
    print(f"{options.runs} pairs; whole processes, medians; gallery of {options.rows:,} vectors\n")
    print_head("command", "s", "beside", "s", "×", "MiB", "beside, MiB", "×")
    with tempfile.TemporaryDirectory() as scratch, clean_environment() as environment:
        gallery, vectors = (str(path) for path in fill(Path(scratch), package, options.rows))
        pairs = {
            "classify": (
                [*MEDCLI, "classify", scan, "-m", model, "--json"],
                [*PLAIN, "classify", model, scan],
            ),
            "search": (
                [*MEDCLI, "search", scan, "-g", gallery, "--json"],
                [*PLAIN, "search", model, scan, vectors],
            ),
            "index info": ([*MEDCLI, "index", "info", "-g", gallery, "--json"], typer),
            "--help": ([*MEDCLI, "--help"], typer),
        }
        for name, (ours, other) in pairs.items():
            both = {"ours": ours, "other": other}
            found = processes_in_turns(both, environment, options.runs)
            beside = "import typer" if other is typer else "plain script"
            cells: list[object] = []
            for unit in (0, 1):
                one, two = ([each[unit] for each in found[way]] for way in both)
                ratio = statistics.median(b / a for a, b in zip(one, two, strict=True))
                cells += [*map(statistics.median, (one, two)), ratio]
            print_row([name, cells[0], beside, *cells[1:]])
    print("\n×: how many times as much the other takes.")


if __name__ == "__main__":
    main()
