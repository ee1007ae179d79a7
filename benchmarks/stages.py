"""Where the time of a scan goes on its way into a gallery: CPU milliseconds a scan, by stage.

    OMP_NUM_THREADS=1 python benchmarks/stages.py [--files 64] [--turns 3] [--kinds png dcm]

Files are made from a seed, 512 × 512 (bulk.py says which). Each stage does its work for all files,
in this process, one thread, and all stages take turns; printed are medians of the processor's time,
which other jobs on the machine change little. Stages overlap in the commands: reading in workers,
the rest in the command's own process. "one by one" and "sharing batches" embed the same scans.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from bulk import write
from machine import package_of, print_head, print_machine, print_row

from medcli.imaging.discovery import find_scans
from medcli.imaging.hashing import pixel_sha256
from medcli.imaging.reader import read_scan
from medcli.inference.predictor import Predictor
from medcli.records import Case
from medcli.workflows.indexing import THUMBNAIL_SIDE, thumbnails
from medcli.workflows.sources import SourceWatch, kept_metadata


def stages(predictor: Predictor, folder: Path) -> dict[str, Callable[[], object]]:
    """What is done for all files of a folder, by name."""
    cases = [case for case in find_scans([str(folder)]) if isinstance(case, Case)]
    scans = [read_scan(case) for case in cases]
    prepared = [predictor.preprocessor.unit_input(scan) for scan in scans]
    units = np.concatenate(prepared)
    watch = SourceWatch()

    def states() -> None:
        for case, scan in zip(watch.watched(cases), scans, strict=True):
            assert isinstance(case, Case)
            watch.source(case, scan)

    return {
        "find": lambda: find_scans([str(folder)]),
        "read": lambda: [read_scan(case) for case in cases],
        "hash of the pixels": lambda: [pixel_sha256(scan) for scan in scans],
        "state and hash of the file": states,
        "preprocess": lambda: [predictor.preprocessor.unit_input(scan) for scan in scans],
        "network, batches of 1": lambda: [predictor._run_pictures(each) for each in prepared],
        "network, batches of 32": lambda: predictor._run_pictures(units),
        "out of distribution": lambda: [predictor._task_ood_scores(each) for each in prepared],
        "thumbnails": lambda: [list(thumbnails(scan, [0], THUMBNAIL_SIDE)) for scan in scans],
        "metadata": lambda: [kept_metadata(*each) for each in zip(cases, scans, strict=True)],
        "embed, one by one": lambda: [predictor.embed(scan) for scan in scans],
        "embed, sharing batches": lambda: list(predictor.embed_all(scans)),
    }


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--files", type=int, default=64)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--kinds", nargs="*", choices=["png", "jpg", "dcm"], default=["png", "dcm"])
    parser.add_argument("--model")
    options = parser.parse_args()
    package = package_of(options.model)
    print_machine(package)
    predictor = Predictor(package)
    spent: dict[str, list[float]] = {}
    for kind in options.kinds:
        with tempfile.TemporaryDirectory() as scratch:
            write(Path(scratch), kind, options.files)
            work = stages(predictor, Path(scratch))
            times: dict[str, list[float]] = {name: [] for name in work}
            for _ in range(options.turns):
                for name, do in work.items():
                    start = time.process_time()
                    do()
                    times[name].append(time.process_time() - start)
        for name, seconds in times.items():
            each = 1000 * statistics.median(seconds) / options.files
            spent.setdefault(name, []).append(each)
    print(
        f"{options.files} files of each kind, {options.turns} turns, ms of the processor a file\n"
    )
    print_head("stage", *options.kinds)
    for name, values in spent.items():
        print_row([name, *values])


if __name__ == "__main__":
    main()
