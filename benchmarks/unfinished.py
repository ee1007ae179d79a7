"""What it costs to lose no work: reading twice with the cache of scans, and checkpoints.

    python benchmarks/unfinished.py [--data MANIFEST] [--size 112] [--arch resnet18 ...]

Reading: every scan of the manifest read and resized without the cache, into an empty one,
and out of it; the files lie in the system's cache all three times. Checkpoints: the model
trains two steps, so that its optimizer has a state, which is then copied, written and read.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import numpy as np
import torch

from medcli.config import ModelConfig, PreprocessConfig, TrainConfig
from medcli.data.arrays import ScanArrays
from medcli.data.sources import load_cases
from medcli.models.scan_model import ScanModel
from medcli.records import Case
from medcli.training.checkpoint import Draft
from medcli.training.gather import ReadScan, read_cases
from medcli.training.loop import fit
from medcli.training.state import TrainState
from medcli.training.unfinished import Plan, load_checkpoint


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="a manifest; without it no reading")
    parser.add_argument("--scans", type=int, help="only so many of them, evenly spread")
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--arch", nargs="+", default=["resnet18_half", "resnet18"])
    options = parser.parse_args()
    print(f"{date.today()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as scratch:
        if options.data:
            cases = load_cases([str(options.data)]).cases
            cases = cases[:: max(1, len(cases) // options.scans)] if options.scans else cases
            _reading(cases, options.size, Path(scratch) / "cache")
        for arch in options.arch:
            _checkpoint(arch, Path(scratch) / arch)


def _reading(cases: Sequence[Case], size: int, folder: Path) -> None:
    whole = sum(Path(name).stat().st_size for case in cases for name in case.files)
    print(f"\n{len(cases)} scans, {whole / 2**20:.0f} MiB, to {size} px")
    for path in (name for case in cases for name in case.files):
        Path(path).read_bytes()  # into the system's cache
    plain, seconds = _read(cases, size, None)
    print(f"read, no cache     {seconds:6.2f} s", flush=True)
    _, first = _read(cases, size, folder)
    print(f"read, empty cache  {first:6.2f} s")
    again, second = _read(cases, size, folder)
    kept = sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
    print(
        f"from the cache     {second:6.2f} s   {kept / 2**20:.0f} MiB, ratio {seconds / second:.1f}"
    )
    same = all(np.array_equal(a.images, b.images) for a, b in zip(plain, again, strict=True))
    print(f"the same pixels    {same}")


def _read(cases: Sequence[Case], size: int, cache: Path | None) -> tuple[list[ReadScan], float]:
    start = time.perf_counter()
    items = read_cases(
        cases,
        PreprocessConfig(size=size),
        on_read=lambda *_: None,
        on_failure=lambda failure: print(failure.message),
        cache=cache,
    )
    return items, time.perf_counter() - start


def _checkpoint(arch: str, folder: Path) -> None:
    config, preprocess = TrainConfig(epochs=1, batch_slices=8), PreprocessConfig(size=64)
    model = ScanModel(ModelConfig(arch=arch), 1, 64, 2)
    images = np.random.default_rng(0).integers(0, 255, (16, 1, 64, 64), dtype=np.uint8)
    scans = ScanArrays(images, np.ones(16, np.int64), np.arange(16) % 2)
    states: list[TrainState] = []
    cpu = torch.device("cpu")
    fit(model, scans, scans, preprocess, config, device=cpu, on_state=states.append)
    start = time.perf_counter()
    copies = {name: tensor.clone() for name, tensor in states[-1].tensors.items()}
    copied = time.perf_counter() - start
    draft = Draft(folder, Plan({}, False, None, config, preprocess, [], {}))
    draft.offer(TrainState(copies, states[-1].facts))
    start = time.perf_counter()
    draft.keep()
    written = time.perf_counter() - start
    start = time.perf_counter()
    load_checkpoint(draft.folder)
    read = time.perf_counter() - start
    parameters = sum(p.numel() for p in model.parameters())
    size = sum(path.stat().st_size for path in draft.folder.iterdir())
    print(
        f"\n{arch}, {parameters / 1e6:.1f} M parameters, checkpoint of {size / 2**20:.0f} MiB\n"
        f"copied, every epoch  {copied:5.2f} s\nwritten and synced   {written:5.2f} s\n"
        f"read and checked     {read:5.2f} s"
    )


if __name__ == "__main__":
    main()
