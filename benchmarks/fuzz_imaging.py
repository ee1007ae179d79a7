"""Damaged files and bombs through the reader: does every one end with a code, in time?

Mutants of real files (`--corpus`, else the folder named by MEDCLI_TEST_DATA, if any) and of
files made here, seeded, so that a run can be repeated; and hand-made bombs. They are read
in batches, each in a process of its own, as a user's command would read a folder.

    python benchmarks/fuzz_imaging.py [--dicom 10000] [--nifti 2000] [--pictures 2000]

Printed are deaths of the reading process (not of its workers, which may die), answers that
took more than ten seconds, inputs without an answer, the peak memory of the process and of
its workers, and how many truncations and wrong checksums went unnoticed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from fuzzing.bombs import BOMBS
from fuzzing.mutants import corpus_files, made_files, write_mutants
from fuzzing.verdict import Outcome, summarise

from medcli.errors import MedcliError
from medcli.imaging.batch import read_all
from medcli.imaging.discovery import find_scans
from medcli.imaging.hashing import pixel_sha256
from medcli.imaging.isolation.pool import close_workers
from medcli.records import Case, Failure, Scan

BATCH = 250


def sound_files(paths: Sequence[Path]) -> dict[str, str]:
    """Path → SHA-256 of its pixels, for the files that are read as scans of their own."""
    names = set(map(str, paths))
    return {
        scan.path: pixel_sha256(scan)
        for _, scan in read_all(find_scans(sorted(names)))
        if isinstance(scan, Scan) and scan.path in names
    }


def read_back(inputs: Sequence[Outcome]) -> list[Outcome]:
    """How each input ends when all are read as one batch; its first answer counts."""
    ended = {each.name: each for each in inputs}
    found: list[Case | Failure] = []
    asked: list[str] = []  # the input behind each of `found`
    for each in inputs:
        start = time.monotonic()
        found += find_scans([each.name])
        asked += [each.name] * (len(found) - len(asked))
        ended[each.name] = replace(each, seconds=time.monotonic() - start)
    start = time.monotonic()
    for name, (_, scan) in zip(asked, read_all(found), strict=True):
        seconds, start = time.monotonic() - start, time.monotonic()
        if ended[name].code != "unaccounted":
            continue
        ended[name] = replace(
            ended[name],
            code=scan.code if isinstance(scan, Failure) else "ok",
            pixels=pixel_sha256(scan) if isinstance(scan, Scan) else "",
            seconds=max(seconds, ended[name].seconds),
        )
    return list(ended.values())


def batch_main(folder: Path, originals: dict[str, str], numbers: range, seed: int) -> None:
    """Read one batch; the outcomes and the peaks of memory go to stdout."""
    made_before = [Outcome(str(path), "bomb", "") for path in sorted(folder.iterdir())]
    inputs = made_before or write_mutants(folder, originals, numbers, seed)
    ended = read_back(inputs)
    close_workers()
    kib = {
        "process": _own_peak_kib(),
        "workers": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss,
    }
    print(json.dumps({"peak_kib": kib, "outcomes": [asdict(each) for each in ended]}))


def _own_peak_kib() -> int:
    """Peak resident size; that of `getrusage` would be the parent's where it was larger."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:  # no Linux
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def run_batch(originals: dict[str, str], numbers: range, seed: int) -> tuple[dict, list[Outcome]]:
    """One batch in a process of its own: mutants of these numbers, or without originals bombs."""
    with tempfile.TemporaryDirectory() as scratch:
        for make in () if originals else BOMBS:
            make(Path(scratch))
        task = json.dumps([scratch, originals, numbers.start, numbers.stop, seed])
        done = subprocess.run(
            [sys.executable, __file__, "--batch", "-"], input=task, text=True, capture_output=True
        )
    if done.returncode:
        print(f"batch {numbers} died with {done.returncode}\n{done.stderr[-2000:]}")
        return {"died": 1}, [Outcome(str(number), "?", "") for number in numbers]
    answer = json.loads(done.stdout.splitlines()[-1])
    return answer["peak_kib"], [Outcome(**each) for each in answer["outcomes"]]


def batches(count: int) -> Iterator[range]:
    """0 to `count` in steps of `BATCH`."""
    for start in range(0, count, BATCH):
        yield range(start, min(count, start + BATCH))


def main() -> None:
    """Fuzz every kind, then the bombs."""
    parser = argparse.ArgumentParser(description=__doc__)
    for kind, count in (("dicom", 10_000), ("nifti", 2_000), ("pictures", 2_000)):
        parser.add_argument(f"--{kind}", type=int, default=count)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--corpus", type=Path, default=os.environ.get("MEDCLI_TEST_DATA"))
    parser.add_argument("--batch", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.batch:
        folder, originals, start, stop, seed = json.load(sys.stdin)
        batch_main(Path(folder), originals, range(start, stop), seed)
        return
    well = True
    with tempfile.TemporaryDirectory() as scratch:
        sources = made_files(Path(scratch))
        if options.corpus:
            for kind, paths in corpus_files(options.corpus, random.Random(options.seed)).items():
                sources[kind] += paths
        for kind, paths in sources.items():
            originals = sound_files(paths)
            runs = [
                run_batch(originals, numbers, options.seed)
                for numbers in batches(getattr(options, kind))
            ]
            name = f"{kind}, of {len(originals)} originals"
            well &= summarise(name, [run[0] for run in runs], [e for run in runs for e in run[1]])
        peaks, ended = run_batch({}, range(len(BOMBS)), options.seed)
        well &= summarise("bombs", [peaks], ended)
        for each in ended:
            print(f"  {Path(each.name).name}: {each.code}, {each.seconds:.1f} s")
    close_workers()
    sys.exit(not well)


if __name__ == "__main__":
    try:
        main()
    except MedcliError as error:
        sys.exit(str(error))
