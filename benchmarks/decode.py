"""Frames a second for each transfer syntax, beside plain pydicom; prints Markdown.

    python benchmarks/decode.py [--files 40] [--runs 3] [--slices 300] [--corpus FOLDER] [FOLDER...]

Each row is a batch of files of one slice, 512 × 512 with 12 bits unless the row says 8, written
here from one synthetic slice; HTJ2K are files of `--corpus`, else of the folder named
by MEDCLI_TEST_DATA. "pydicom" is `dcmread(path).pixel_array` in a loop, in the order of preference
of pydicom's own plugins. The other columns are whole scans of medcli: found, header checked,
decoded, rescaled; in this process as if it were a worker, with one and two threads, then in one
and two worker processes that have started already. All five take turns, so that other jobs on the
machine slow all of them down; printed are medians, and of the price of isolation (what workers
lose against as many threads) the median of the turns. Folders named are read whole, the same ways.

Then a CT series of uncompressed slices becomes one array, and a network's input, beside
SimpleITK's series reader.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import pydicom

from medcli.bench.encoded import GIVEN, ROWS, write_given, write_series, write_syntax
from medcli.config import PreprocessConfig
from medcli.imaging import batch
from medcli.imaging.decoders import decoder_matrix
from medcli.imaging.discovery import find_scans
from medcli.imaging.isolation import inside
from medcli.imaging.isolation.pool import close_workers
from medcli.imaging.preprocess import Preprocessor
from medcli.imaging.reader import read_here
from medcli.records import Case, Scan

Read = Callable[[], int]


def with_pydicom(paths: Sequence[str]) -> int:
    """Decode every file as a user of pydicom would; the number of frames."""
    return sum(_frames(pydicom.dcmread(path)) for path in paths)


def _frames(dataset: pydicom.Dataset) -> int:
    return dataset.pixel_array.size // (
        dataset.Rows * dataset.Columns * dataset.get("SamplesPerPixel", 1)
    )


def with_medcli(inputs: Sequence[str], threads: int) -> int:
    """Find and read every scan as the commands do; the number of slices."""
    answers = (scan for _, scan in batch.read_all(find_scans(inputs), threads=threads))
    return sum(len(scan.pixels) for scan in answers if isinstance(scan, Scan))


def in_process(inputs: Sequence[str], threads: int) -> int:
    """The same in this process, which may die of it."""
    with no_workers():
        return with_medcli(inputs, threads)


@contextmanager
def no_workers() -> Iterator[None]:
    """Batches of any size are read in this process."""
    is_big, batch._is_big = batch._is_big, lambda _: False
    inside._in_worker = True
    try:
        yield
    finally:
        inside._in_worker = False
        batch._is_big = is_big


def rates_in_turns(reads: Sequence[Read | None], runs: int) -> list[list[float]]:
    """For each way its frames a second in each turn; none where there is no such way."""
    rates: list[list[float]] = [[] for _ in reads]
    for turn in range(runs + 1):
        for read, kept in zip(reads, rates, strict=True):
            if read is None:
                continue
            start = time.perf_counter()
            rate = read() / (time.perf_counter() - start)
            if turn:  # the first warms up
                kept.append(rate)
    return rates


def measured(paths: Sequence[str] | None, inputs: Sequence[str], runs: int) -> str:
    """The cells of a row: plain pydicom, threads, workers, and the prices."""
    plain = None if paths is None else lambda: with_pydicom(paths)
    ours = [lambda n=n: in_process(inputs, n) for n in (1, 2)]
    ours += [lambda n=n: with_medcli(inputs, n) for n in (1, 2)]
    rates = rates_in_turns([plain, *ours], runs)
    shown = ["–" if not each else f"{statistics.median(each):.0f}" for each in rates]
    pairs = ((rates[1], rates[3]), (rates[2], rates[4]))
    prices = [[1 - b / a for a, b in zip(*pair, strict=True)] for pair in pairs]
    return " | ".join([*shown, *(f"{statistics.median(price):+.0%}" for price in prices)])


def print_syntaxes(files: int, runs: int, corpus: Path | None) -> None:
    """One row for each transfer syntax."""
    names = {row.syntax: (row.name, f"{row.decoder} {row.version}") for row in decoder_matrix()}
    for row in decoder_matrix():
        names[f"{row.syntax}{row.name[-7:].strip()}"] = (row.name, f"{row.decoder} {row.version}")
    for syntax, bits in ROWS:
        name, decoder = names.get(f"{syntax}{bits}", names[str(syntax)])
        told = f"{name}, {bits}" if bits and bits not in name else name
        with tempfile.TemporaryDirectory() as scratch:
            paths = write_syntax(Path(scratch), syntax, bits, files)
            known = paths if _pydicom_decodes(paths[0]) else None
            print(f"| {told} ({decoder}) | {measured(known, paths, runs)} |", flush=True)
    for syntax, file in GIVEN.items() if corpus else ():
        name, decoder = names[str(syntax)]
        source = next((corpus or Path()).rglob(file))
        with tempfile.TemporaryDirectory() as scratch:
            paths = write_given(Path(scratch), source, files)
            cells = measured(paths, paths, runs)
            print(f"| {name}, 480 × 640 RGB ({decoder}) | {cells} |", flush=True)


def _pydicom_decodes(path: str) -> bool:
    """Whether one of its plugins does."""
    try:
        return pydicom.dcmread(path).pixel_array.size > 0
    except (RuntimeError, NotImplementedError, ValueError, AttributeError):
        return False


def print_series(slices: int, runs: int) -> None:
    """Seconds from a folder of plain slices to one array, in turns."""
    import SimpleITK as sitk

    with tempfile.TemporaryDirectory() as scratch:
        paths = write_series(Path(scratch), slices)

        def with_simpleitk() -> int:
            reader = sitk.ImageSeriesReader()
            reader.SetFileNames(reader.GetGDCMSeriesFileNames(scratch))
            return int(sitk.GetArrayFromImage(reader.Execute()).shape[0])

        def with_us() -> int:
            (case,) = find_scans([scratch])
            assert isinstance(case, Case)
            return len(read_here(case).pixels)

        def to_tensor() -> int:
            (case,) = find_scans([scratch])
            assert isinstance(case, Case)
            return len(Preprocessor(PreprocessConfig()).model_input(read_here(case)))

        ways: dict[str, Read] = {
            "medcli": with_us,
            f"medcli, to the network's input of {PreprocessConfig().size} px": to_tensor,
            "pydicom, unsorted": lambda: with_pydicom(paths),
            "SimpleITK": with_simpleitk,
        }
        rates = rates_in_turns(list(ways.values()), runs)
    print(f"\n| folder of {slices} plain CT slices → one array | seconds | ms a slice |")
    print("|---|---|---|")
    for name, found in zip(ways, rates, strict=True):
        rate = statistics.median(found)
        print(f"| {name} | {slices / rate:.2f} | {1000 / rate:.2f} |", flush=True)


def main() -> None:
    """Measure every syntax, then the folders, then the series."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--files", type=int, default=40)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--corpus", type=Path, default=os.environ.get("MEDCLI_TEST_DATA"))
    options = parser.parse_args()
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    print(
        f"{date.today()}, {os.cpu_count()} cores, load before {load}; {options.files} files, "
        f"median of {options.runs} turns\n"
    )
    print("| frames/s | pydicom | 1 thread | 2 threads | 1 worker | 2 workers | price, 1 | 2 |")
    print("|---|---|---|---|---|---|---|---|")
    print_syntaxes(options.files, options.runs, options.corpus)
    for folder in options.folders:
        print(f"| {folder.name} | {measured(None, [str(folder)], options.runs)} |", flush=True)
    close_workers()
    print_series(options.slices, options.runs)


if __name__ == "__main__":
    main()
