"""Time and memory at 1, 10 and 100 times the work, beside the machine's limit: table and picture.

    python benchmarks/growth.py [--parts search ask add …] [--picture growth.png]

Each point is a process of its own, once, after one that writes bytecode, from its start:
interpreter, imports and model count, and memory is the sum of the peaks of all its processes. The
limit is what the same work would need if nothing but this counted:

search  `medcli search` of one scan in galleries of 1,000 to 100,000 scans: bytes of the vectors
        over the bandwidth of one thread
ask     one warm query of the same galleries (milliseconds inside the process): the same limit
add     so many rows into a gallery, synced: bytes of the files over the bandwidth of the disk
verify  `medcli index verify --sample 0` of galleries of so many rows: bytes of the files over the
        bandwidth of reading files that are in memory
compact `medcli index compact` of the same: bytes over the bandwidth of the disk
index   `medcli index build` of 30 to 3,000 JPEG of 512 x 512: the network alone, ONNX Runtime
update  `medcli index update` of the same, none of which has changed: asking the system for the
        state of each
train   one epoch of 60 to 6,000 PNG of 128 x 128 at 64 px, from scratch: floating-point operations
        over the rate of a matrix product in float32 on all cores
read    a CT series of 3 to 300 slices to the input of the network: bytes over the bandwidth of
        reading files that are in memory
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
from cold_start import fill
from decode import write_series
from machine import package_of, print_head, print_machine, print_row
from train_speed import write_made

from medcli.bench.embedding import Network
from medcli.bench.made import write_pictures
from medcli.bench.processes import clean_environment, run_measured
from medcli.bench.searching import DIM, ask, entry, fill_gallery, read_bytes, unit_vectors
from medcli.bench.starting import MEDCLI

HERE = Path(__file__).parent
TIMES = (1, 10, 100)
SCAN = str(HERE.parent / "sample_data" / "scan.dcm")
Point = tuple[int, float, float, float]
"""Size of the work, seconds, MiB, seconds at the limit."""


# ---- limits ----


@cache
def memory_bandwidth() -> float:
    """Bytes a second that one thread reads."""
    return 2**30 / _median_seconds(lambda: read_bytes(2**30))


@cache
def disk_bandwidth() -> float:
    """Bytes a second that reach the disk."""

    def write() -> None:
        with tempfile.NamedTemporaryFile() as file:
            file.write(bytes(2**27))
            file.flush()
            os.fsync(file.fileno())

    return 2**27 / _median_seconds(write)


@cache
def file_bandwidth() -> float:
    """Bytes a second of reading files that the system still holds in memory."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(bytes(2**27))
        file.flush()
        space = bytearray(2**27)

        def read_again() -> None:
            with open(file.name, "rb", buffering=0) as again:
                again.readinto(space)

        return 2**27 / _median_seconds(read_again)


@cache
def operations() -> float:
    """Floating-point operations a second of a matrix product in float32, on all cores."""
    import torch

    side = 2048
    one, other = torch.rand(side, side), torch.rand(side, side)
    return float(2 * side**3 / _median_seconds(lambda: one @ other))


def _median_seconds(way: Callable[[], object]) -> float:
    way()
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        way()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def network_operations(size: int) -> float:
    """Floating-point operations of one training step for a grey picture: three forward passes."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from medcli.config import ModelConfig
    from medcli.models.scan_model import build_model

    model = build_model(ModelConfig(), 1, size, 2).eval()
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 1, 1, size, size), torch.ones(1, 1, dtype=torch.bool))
    return 3.0 * counter.get_total_flops()


# ---- the work ----


def search(scratch: Path, times: int, environment: dict[str, str]) -> Point:
    """A cold search."""
    count, package = 1000 * times, package_of(None)
    gallery, _ = fill(scratch, package, count)
    command = [*MEDCLI, "search", SCAN, "-g", str(gallery), "--json"]
    run_measured(command, environment)  # the files are in memory, as for the second user
    seconds, held = run_measured(command, environment)
    return count, seconds, held, 2 * package.model.vector_dim * count / memory_bandwidth()


def query(scratch: Path, times: int, environment: dict[str, str]) -> Point:
    """A warm query."""
    count = 1000 * times
    told = scratch / "told"
    fill_gallery(scratch / "gallery", unit_vectors(count))
    _, held = run_measured(_own("ask", scratch / "gallery", told), environment)
    return count, float(told.read_text()), held, 2 * DIM * count / memory_bandwidth()


def add(scratch: Path, times: int, environment: dict[str, str]) -> Point:
    """Rows into a gallery."""
    count = 1000 * times
    seconds, held = run_measured(_own("add", scratch, count), environment)
    size = sum(path.stat().st_size for path in scratch.rglob("*") if path.is_file())
    return count, seconds, held, size / disk_bandwidth()


def verify(scratch: Path, times: int, environment: dict[str, str]) -> Point:
    """All checksums of a gallery."""
    return _kept(scratch, times, environment, ["verify", "--sample", "0"], file_bandwidth)


def compact(scratch: Path, times: int, environment: dict[str, str]) -> Point:
    """A gallery written anew."""
    return _kept(scratch, times, environment, ["compact"], disk_bandwidth)


def _kept(
    scratch: Path,
    times: int,
    environment: dict[str, str],
    command: list[str],
    bandwidth: Callable[[], float],
) -> Point:
    count = 1000 * times
    gallery, _ = fill(scratch, package_of(None), count)
    size = sum(path.stat().st_size for path in gallery.rglob("*") if path.is_file())
    seconds, held = run_measured([*MEDCLI, "index", *command, "-g", str(gallery)], environment)
    return count, seconds, held, size / bandwidth()


def index(scratch: Path, times: int, environment: dict[str, str]) -> Point:
    """Pictures into a gallery."""
    count, network = 30 * times, Network(package_of(None))
    seconds, held = run_measured(_building(scratch, count), environment)
    return count, seconds, held, _median_seconds(lambda: network.run(30)) * times


def update(scratch: Path, times: int, environment: dict[str, str]) -> Point:
    """Pictures that are there already."""
    count = 30 * times
    run_measured(_building(scratch, count), environment)
    place = ["-g", str(scratch / "gallery")]
    seconds, held = run_measured([*MEDCLI, "index", "update", *place], environment)
    files = list((scratch / "scans").iterdir())
    return count, seconds, held, _median_seconds(lambda: [file.stat() for file in files])


def _building(scratch: Path, count: int) -> list[str]:
    write_pictures(scratch / "scans", count, "jpg")
    place = ["-g", str(scratch / "gallery"), "-m", "shared"]
    return [*MEDCLI, "index", "build", str(scratch / "scans"), *place]


def train(scratch: Path, times: int, environment: dict[str, str]) -> Point:
    """One epoch."""
    count = 60 * times
    write_made(scratch, count, 0)
    given = ["--folder", str(scratch), "--size", "64", "--epochs", "1"]
    program = [sys.executable, str(HERE / "train_speed.py"), "--run", "medcli", *given]
    seconds, held = run_measured(program, environment)
    return count, seconds, held, 0.8 * count * network_operations(64) / operations()


def read(scratch: Path, times: int, environment: dict[str, str]) -> Point:
    """A series."""
    count = 3 * times
    paths = write_series(scratch, count)
    size = sum(Path(path).stat().st_size for path in paths)
    seconds, held = run_measured(_own("read", scratch), environment)
    return count, seconds, held, size / file_bandwidth()


PARTS: dict[str, tuple[str, Callable[[Path, int, dict[str, str]], Point]]] = {
    "search": ("medcli search, cold: scans", search),
    "ask": ("one warm query: scans", query),
    "add": ("rows into a gallery", add),
    "verify": ("medcli index verify: rows", verify),
    "compact": ("medcli index compact: rows", compact),
    "index": ("medcli index build: JPEG", index),
    "update": ("medcli index update, no change: JPEG", update),
    "train": ("one epoch of training: pictures", train),
    "read": ("CT series to a tensor: slices", read),
}


def _own(*words: object) -> list[str]:
    return [sys.executable, __file__, "--child", *map(str, words)]


# ---- what runs in a process of its own ----


def ask_warm(gallery: str, told: str) -> None:
    """The median seconds of a query, after a first one."""
    from medcli.retrieval.gallery import Gallery

    with Gallery.open(Path(gallery)) as opened:
        rows = unit_vectors(21, 1)
        ask(opened, rows[0])
        seconds = []
        for row in rows[1:]:
            start = time.perf_counter()
            ask(opened, row)
            seconds.append(time.perf_counter() - start)
    Path(told).write_text(str(statistics.median(seconds)))


def add_rows(folder: str, count: str) -> None:
    """Random rows, made as they are drawn."""
    from medcli.retrieval.gallery import Gallery

    package = Path(folder) / "package"
    package.mkdir()
    (package / "model.json").write_text("{}")

    def rows() -> Iterator[np.ndarray]:
        for start in range(0, int(count), 1000):
            yield from unit_vectors(min(1000, int(count) - start), start)

    target = Path(folder) / "gallery"
    with Gallery.build(target, model_dir=package, fingerprint="0" * 64, dim=DIM) as gallery:
        gallery.add(entry(number, row) for number, row in enumerate(rows()))


def read_series(folder: str) -> None:
    """Found, checked, assembled, resized."""
    from medcli.config import PreprocessConfig
    from medcli.imaging.batch import read_all
    from medcli.imaging.discovery import find_scans
    from medcli.imaging.preprocess import Preprocessor
    from medcli.records import Scan

    ((_, scan),) = read_all(find_scans([folder]))
    assert isinstance(scan, Scan)
    Preprocessor(PreprocessConfig()).model_input(scan)


CHILDREN = {"ask": ask_warm, "add": add_rows, "read": read_series}


# ---- table and picture ----


def draw(path: Path, found: dict[str, list[Point]]) -> None:
    """A panel a part: seconds, the limit and MiB over the size of the work, all on log axes."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    rows = -(-len(found) // 3)
    figure, panels = plt.subplots(
        rows, min(3, len(found)), figsize=(11, 3.4 * rows), layout="constrained", squeeze=False
    )
    for panel in panels.flat[len(found) :]:
        panel.axis("off")
    for panel, (part, points) in zip(panels.flat, found.items(), strict=False):
        sizes, seconds, held, limits = zip(*points, strict=True)
        memory = panel.twinx()
        lines = panel.loglog(sizes, seconds, "o-", color="tab:blue", label="seconds")
        lines += panel.loglog(sizes, limits, ":", color="tab:blue", label="limit, seconds")
        lines += memory.loglog(sizes, held, "s--", color="tab:orange", label="MiB")
        memory.set_ylim(30, 3000)
        panel.set_title(PARTS[part][0], fontsize=10)
        panel.set_xticks(sizes, [f"{size:,}" for size in sizes])
        panel.minorticks_off()
        memory.minorticks_off()
        memory.tick_params(axis="y", labelcolor="tab:orange")
        panel.tick_params(axis="y", labelcolor="tab:blue")
        panel.grid(alpha=0.3)
    figure.legend(handles=lines, loc="outside lower center", ncols=3)
    figure.savefig(path, dpi=100)


def _at(
    measure: Callable[[Path, int, dict[str, str]], Point], times: int, environment: dict[str, str]
) -> Point:
    """A point, in a folder and a home of its own."""
    with tempfile.TemporaryDirectory() as scratch, tempfile.TemporaryDirectory() as home:
        return measure(Path(scratch), times, {**environment, "MEDCLI_HOME": home})


def main() -> None:
    """Measure, print, draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--parts", nargs="*", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--times", nargs="*", type=int, default=list(TIMES))
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--child", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        CHILDREN[options.child[0]](*options.child[1:])
        return
    print_machine(package_of(None), "torch")
    print(
        f"memory {memory_bandwidth() / 1e9:.1f} GB/s, files in memory "
        f"{file_bandwidth() / 1e9:.1f} GB/s, disk {disk_bandwidth() / 1e9:.2f} GB/s, "
        f"matrix product {operations() / 1e9:.0f} GFLOP/s; one process a point\n"
    )
    print_head("work", "size", "seconds", "limit, seconds", "MiB")
    found: dict[str, list[Point]] = {}
    with clean_environment() as environment:
        for part in options.parts:
            title, measure = PARTS[part]
            _at(measure, options.times[0], environment)  # bytecode
            for times in options.times:
                point = _at(measure, times, environment)
                found.setdefault(part, []).append(point)
                print_row([title, f"{point[0]:,}", point[1], point[3], point[2]])
    if options.picture:
        draw(options.picture, found)


if __name__ == "__main__":
    main()
