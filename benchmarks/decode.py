"""Frames a second for each transfer syntax, beside plain pydicom; prints Markdown.

    python benchmarks/decode.py [--files 40] [--runs 3] [FOLDER...]

Each row is a batch of files of one slice, 512 × 512 with 12 bits, written here from one
synthetic slice. "pydicom" is `dcmread(path).pixel_array` in a loop, in the order of
preference of pydicom's own plugins. The other columns are whole scans of medcli: header
checked, decoded, rescaled; in this process as if it were a worker, with one and two
threads, then in one and two worker processes that have started already. The price of isolation is
what two workers lose against two threads. Folders named are read whole, the same ways.
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

import numpy as np
import pydicom
from openjpeg.utils import encode_array
from pydicom import uid
from pydicom.encaps import encapsulate

from medcli.imaging import batch
from medcli.imaging.decoders import decoder_matrix
from medcli.imaging.discovery import find_scans
from medcli.imaging.isolation import inside
from medcli.imaging.isolation.pool import close_workers
from medcli.records import Case, Failure, Scan

SIDE = 512
SAMPLE = Path(__file__).parents[1] / "sample_data" / "scan.dcm"
SYNTAXES = (
    uid.ExplicitVRLittleEndian,
    uid.DeflatedExplicitVRLittleEndian,
    uid.RLELossless,
    uid.JPEGLSLossless,
    uid.JPEG2000Lossless,
)


def slice_of_noise_and_shapes() -> np.ndarray:
    """(512, 512) uint16 of 12 bits: soft ellipses and the noise of a scanner."""
    rows, columns = np.mgrid[:SIDE, :SIDE] / SIDE - 0.5
    body = 1000 * (rows**2 / 0.16 + columns**2 / 0.2 < 1)
    organs = sum(
        60 * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 0.01)
        for y, x in ((0.1, 0.1), (-0.1, 0.2), (0.0, -0.2))
    )
    noise = np.random.default_rng(0).normal(0, 12, (SIDE, SIDE))
    return np.clip(body + organs + noise, 0, 4095).astype(np.uint16)


def write_folder(folder: Path, syntax: uid.UID, files: int) -> list[str]:
    """So many files of one slice in a transfer syntax."""
    pixels = slice_of_noise_and_shapes()
    dataset = pydicom.dcmread(SAMPLE)
    dataset.Rows = dataset.Columns = SIDE
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0
    dataset.PixelData = pixels.tobytes()
    if syntax == uid.JPEG2000Lossless:
        dataset.PixelData = encapsulate([encode_array(pixels, bits_stored=12)])
        dataset["PixelData"].is_undefined_length = True
        dataset["PixelData"].VR = "OB"
    elif syntax.is_encapsulated:
        dataset.compress(syntax)
    dataset.file_meta.TransferSyntaxUID = syntax
    paths = []
    for number in range(files):
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid.generate_uid()
        paths.append(str(folder / f"{number}.dcm"))
        dataset.save_as(paths[-1], implicit_vr=False, little_endian=True)
    return paths


def with_pydicom(paths: Sequence[str]) -> int:
    """Decode every file as a user of pydicom would; the number of frames."""
    return sum(pydicom.dcmread(path).pixel_array.size // SIDE**2 for path in paths)


def with_medcli(cases: Sequence[Case | Failure], threads: int) -> int:
    """Read every case as the commands do; the number of slices."""
    answers = (scan for _, scan in batch.read_all(cases, threads=threads))
    return sum(len(scan.pixels) for scan in answers if isinstance(scan, Scan))


@contextmanager
def no_workers() -> Iterator[None]:
    """Batches of any size are read in this process, which may die of them."""
    is_big, batch._is_big = batch._is_big, lambda _: False
    inside._in_worker = True
    try:
        yield
    finally:
        inside._in_worker = False
        batch._is_big = is_big


def frames_per_second(read: Callable[[], int], runs: int) -> float:
    """The median over some runs, after one that warms up."""
    read()
    rates = []
    for _ in range(runs):
        start = time.perf_counter()
        rates.append(read() / (time.perf_counter() - start))
    return statistics.median(rates)


def measured(cases: Sequence[Case | Failure], runs: int) -> list[float]:
    """Frames a second: one and two threads in process, one and two workers."""
    rates = []
    with no_workers():
        rates += [frames_per_second(lambda n=n: with_medcli(cases, n), runs) for n in (1, 2)]
    rates += [frames_per_second(lambda n=n: with_medcli(cases, n), runs) for n in (1, 2)]
    return rates


def row(name: str, plain: float | None, rates: Sequence[float]) -> str:
    """A line of the table."""
    shown = ["–" if plain is None else f"{plain:.0f}", *(f"{rate:.0f}" for rate in rates)]
    price = 1 - rates[3] / rates[1]
    return f"| {name} | {' | '.join(shown)} | {price:+.0%} |"


def main() -> None:
    """Measure every syntax, then the folders."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--files", type=int, default=40)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    names = {
        each.syntax: f"{each.name} ({each.decoder} {each.version})" for each in decoder_matrix()
    }
    print(
        f"{date.today()}, {os.cpu_count()} cores, {options.files} files, median of {options.runs}\n"
    )
    print("| frames/s | pydicom | 1 thread | 2 threads | 1 worker | 2 workers | price |")
    print("|---|---|---|---|---|---|---|")
    for syntax in SYNTAXES:
        with tempfile.TemporaryDirectory() as scratch:
            paths = write_folder(Path(scratch), syntax, options.files)
            plain = frames_per_second(lambda p=paths: with_pydicom(p), options.runs)
            cases = find_scans(paths)
            print(row(names[syntax], plain, measured(cases, options.runs)), flush=True)
    for folder in options.folders:
        cases = find_scans([str(folder)])
        print(row(folder.name, None, measured(cases, options.runs)), flush=True)
    close_workers()


if __name__ == "__main__":
    main()
