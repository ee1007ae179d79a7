"""Training: images a second and seconds to an AUROC, beside a plain torchvision loop.

    python benchmarks/train_speed.py [--pictures 800] [--size 64] [--epochs 6] [--auroc 0.95]
    python benchmarks/train_speed.py --data MANIFEST.csv [--size 112] [--epochs 3]
    python benchmarks/train_speed.py --growth [--pictures 60] [--picture FILE.png]

Each way is a process of its own, from its start: imports (with bytecode), reading and decoding
count. All train the same network (`--arch`, from scratch) at the same size, for as many epochs, on
the same training pictures, and are measured on the same validation pictures after each epoch.

medcli          `medcli.train`: pixels read once and kept in memory, augmentation on batches
medcli, again   the same with what the first has kept in its cache
plain           ImageFolder, its transforms picture by picture in a DataLoader with --workers
                processes, Adam, float32

Pictures are made from a seed (128 px, grey; half of them with a faint spot at a random place), or
those of a manifest (`path,label[,patient_id]`), cut by patient into 8 : 1 : 1. "Images a second"
are training pictures over the median of the epochs' seconds, validation included; "s to AUROC" ends
with the first epoch that reaches it; "GPU busy" is the share of the time in which any kernel ran,
as the driver says it, sampled after the first epoch. The ways differ in augmentation, so the AUROC
says more than the epochs. `--growth` trains 1, 10 and 100 times as many made pictures for an epoch.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import date
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from platform import python_version
from typing import Any

import numpy as np
from machine import device_name, draw_growth, print_head, print_row

from medcli.bench.processes import clean_environment
from medcli.machine import processor

STARTED = time.perf_counter()
BUSY: list[int] = []  # percent of the GPU's time in which a kernel ran, sampled
SIDE = 128
BATCH = 32
WAYS = ("medcli", "medcli, again", "plain")


def made_pictures(count: int, seed: int) -> Iterator[tuple[str, np.ndarray]]:
    """Labels and (128, 128) uint8 pictures of noise, every second with a faint spot."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    for number in range(count):
        y, x = rng.uniform(24, SIDE - 24, 2)
        spot = 28 * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 60) * (number % 2)
        noise = rng.normal(110, 20, (SIDE, SIDE))
        yield ("none", "spot")[number % 2], (noise + spot).clip(0, 255).astype(np.uint8)


def part_of(patient: str) -> str:
    """8 : 1 : 1 by a hash, so that a patient has one part."""
    place = int(hashlib.sha256(patient.encode()).hexdigest(), 16) % 10
    return "val" if place == 0 else "test" if place == 1 else "train"


def write_made(folder: Path, count: int, seed: int) -> None:
    """Made pictures as part/label/number.png, and a manifest of them."""
    from PIL import Image

    rows = []
    for number, (label, pixels) in enumerate(made_pictures(count, seed)):
        path = folder / part_of(f"P{number}") / label / f"{number:06}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
        rows.append((path, label, f"P{number}"))
    write_manifest(folder, rows)


def link_given(folder: Path, manifest: Path, limit: int) -> None:
    """The pictures of a manifest in the same form."""
    rows = []
    with manifest.open(newline="") as stream:
        for number, row in enumerate(csv.DictReader(stream)):
            if number >= limit:
                break
            source = (manifest.parent / row["path"]).resolve()
            patient = row.get("patient_id") or f"P{number}"
            path = folder / part_of(patient) / row["label"] / f"{number:06}{source.suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(source)
            rows.append((path, row["label"], patient))
    write_manifest(folder, rows)


def write_manifest(folder: Path, rows: list[tuple[Path, str, str]]) -> None:
    """What medcli reads; ImageFolder reads the folders."""
    with (folder / "manifest.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "label", "patient_id", "split"])
        writer.writerows((path, label, patient, path.parts[-3]) for path, label, patient in rows)


def told(epoch: int, auroc: float | None) -> None:
    """A line for the process that measures."""
    line = {"epoch": epoch, "auroc": auroc, "seconds": time.perf_counter() - STARTED}
    line["busy"] = statistics.mean(BUSY) if BUSY else None
    BUSY.clear()
    print(json.dumps(line), flush=True)


def watch_gpu() -> None:
    """Sample, in a thread, for what share of the time a kernel runs on the first GPU."""
    import pynvml

    pynvml.nvmlInit()
    card = pynvml.nvmlDeviceGetHandleByIndex(0)

    def sample() -> None:
        while True:
            BUSY.append(pynvml.nvmlDeviceGetUtilizationRates(card).gpu)
            time.sleep(0.02)

    threading.Thread(target=sample, daemon=True).start()


def train_medcli(folder: Path, options: argparse.Namespace) -> None:
    """One training by medcli, up to its last epoch."""
    from medcli.config import ModelConfig
    from medcli.training.request import TrainEvents, TrainRequest
    from medcli.training.run import train

    class TrainedError(Exception):
        """The last epoch is done; what follows is no training."""

    def on_epoch(epoch: Any) -> None:
        told(epoch.epoch, epoch.val_auroc)
        if epoch.epoch == options.epochs:
            raise TrainedError

    request = TrainRequest(
        (str(folder / "manifest.csv"),),
        task="speed",
        output=folder / f"run-{os.getpid()}",
        size=options.size,
        epochs=options.epochs,
        minutes=1e6,
        seed=options.seed,
        device=options.device,
        model=ModelConfig(arch=options.arch),
        allow_overlap=True,
    )
    try:
        train(request, TrainEvents(epoch=on_epoch))
    except TrainedError:
        return


def train_plain(folder: Path, options: argparse.Namespace) -> None:
    """What a user would write with torchvision."""
    import torch
    from sklearn.metrics import roc_auc_score
    from torch.nn import functional as F
    from torch.utils.data import DataLoader
    from torchvision import datasets, transforms

    from medcli.config import ModelConfig
    from medcli.models.scan_model import build_model

    torch.manual_seed(options.seed)
    size, channels = (options.size, options.size), _channels(folder)
    shared = [
        *([transforms.Grayscale(1)] if channels == 1 else []),
        transforms.ToTensor(),
        transforms.Normalize([0.5] * channels, [0.25] * channels),
    ]
    changed = [transforms.RandomHorizontalFlip(), transforms.RandomRotation(10)]
    training = datasets.ImageFolder(
        folder / "train", transforms.Compose([transforms.Resize(size), *changed, *shared])
    )
    checking = datasets.ImageFolder(
        folder / "val", transforms.Compose([transforms.Resize(size), *shared])
    )
    workers = {
        "batch_size": BATCH,
        "num_workers": options.workers,
        "pin_memory": options.device == "cuda",
    }
    model = build_model(
        ModelConfig(arch=options.arch), channels, options.size, len(training.classes)
    )
    device = torch.device("cuda" if options.device == "cuda" else "cpu")
    model.to(device)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)

    def logits(images: torch.Tensor) -> torch.Tensor:
        mask = torch.ones(len(images), 1, dtype=torch.bool, device=device)
        found: torch.Tensor = model(images[:, None].to(device, non_blocking=True), mask).logits
        return found

    for epoch in range(1, options.epochs + 1):
        model.train()
        for images, labels in DataLoader(training, shuffle=True, **workers):
            optimizer.zero_grad()
            F.cross_entropy(logits(images), labels.to(device)).backward()
            optimizer.step()
        model.eval()
        with torch.inference_mode():
            answers = [(logits(x).softmax(1)[:, 1], y) for x, y in DataLoader(checking, **workers)]
        shares, truth = (torch.cat(parts).cpu() for parts in zip(*answers, strict=True))
        told(epoch, float(roc_auc_score(truth == 1, shares)))


def _channels(folder: Path) -> int:
    """1 where the first training picture is grey, else 3: so does medcli choose."""
    from PIL import Image

    first = next(path for path in sorted((folder / "train").rglob("*")) if path.is_file())
    return 1 if Image.open(first).mode == "L" else 3


def run(way: str, folder: Path, options: argparse.Namespace, home: dict[str, str]) -> list[Any]:
    """The epochs of one way, in a process of its own."""
    own = {
        **{name: getattr(options, name) for name in ("size", "epochs", "seed", "workers")},
        "device": options.device,
        "arch": options.arch,
    }
    flags = [part for name, value in own.items() for part in (f"--{name}", str(value))]
    command = [sys.executable, __file__, "--run", way, "--folder", str(folder), *flags]
    done = subprocess.run(command, capture_output=True, text=True, env=home, check=False)
    if done.returncode:
        raise SystemExit(f"{way}: {done.stderr[-2000:]}")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def print_way(way: str, lines: list[Any], images: int, wanted: float) -> None:
    """One row."""
    ends = [0.0, *(line["seconds"] for line in lines)]
    epochs = [later - earlier for earlier, later in pairwise(ends[1:])]
    rate = images / statistics.median(epochs) if epochs else "–"
    reached = [line["seconds"] for line in lines if (line["auroc"] or 0) >= wanted]
    best = max((line["auroc"] or 0 for line in lines), default=0.0)
    busy = [line["busy"] for line in lines[1:] if line["busy"] is not None]
    told = f"{statistics.mean(busy):.0f}" if busy else "–"
    ending = reached[0] if reached else "not reached"
    print_row([way, rate, ends[1], ends[-1], ending, f"{best:.3f}", told])


def write_bytecode(options: argparse.Namespace, environment: dict[str, str]) -> None:
    """Run both programs once on a few pictures: a first import compiles for some twenty seconds."""
    few = argparse.Namespace(**{**vars(options), "epochs": 1})
    with tempfile.TemporaryDirectory() as scratch, tempfile.TemporaryDirectory() as home:
        write_made(Path(scratch), 60, options.seed)
        for way in ("medcli", "plain"):
            run(way, Path(scratch), few, {**environment, "MEDCLI_HOME": home})


def print_table(options: argparse.Namespace) -> None:
    """Every way once in each turn."""
    seconds = ("first epoch at, s", "all, s", f"s to {options.auroc}")
    print_head("way", "images/s", *seconds, "best", "GPU busy, %")
    with tempfile.TemporaryDirectory() as scratch, clean_environment() as environment:
        folder = Path(scratch)
        if options.data:
            link_given(folder, options.data, options.pictures)
        else:
            write_made(folder, options.pictures, options.seed)
        images = sum(1 for path in (folder / "train").rglob("*") if path.is_file())
        write_bytecode(options, environment)
        for _ in range(options.runs):
            for way in WAYS:
                print_way(way, run(way, folder, options, environment), images, options.auroc)


def print_growth(options: argparse.Namespace) -> None:
    """One epoch over 1, 10 and 100 times as many pictures."""
    options.epochs = 1
    curves: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    print_head("pictures", *(f"{way}, s" for way in WAYS))
    for times in (1, 10, 100):
        count = options.pictures * times
        with tempfile.TemporaryDirectory() as scratch, clean_environment() as environment:
            write_made(Path(scratch), count, options.seed)
            write_bytecode(options, environment)
            for way, curve in curves.items():
                lines = run(way, Path(scratch), options, environment)
                curve.append((count, lines[-1]["seconds"]))
        print_row([count, *(curve[-1][1] for curve in curves.values())])
    if options.picture:
        draw_growth(options.picture, "One epoch, seconds from the start of the process", curves)


def main() -> None:
    """Parse the options, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="a manifest")
    parser.add_argument("--pictures", type=int, default=800, help="how many, of data at most")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--auroc", type=float, default=0.95)
    parser.add_argument("--arch", default="resnet18_half")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--growth", action="store_true")
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--run", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        if options.device == "cuda":
            watch_gpu()
        (train_plain if options.run == "plain" else train_medcli)(options.folder, options)
        return
    threads = os.environ.get("OMP_NUM_THREADS", "the default")
    print(f"{date.today()}, {processor()}, {device_name(options.device)},")
    print(f"load {os.getloadavg()[0]:.1f}, threads set to {threads}, Python {python_version()},")
    print(", ".join(f"{name} {version(name)}" for name in ("medcli", "torch", "torchvision")))
    print(f"{options.arch} from scratch, {options.size} px, {options.epochs} epochs,", end=" ")
    print(f"{options.pictures} pictures, {options.workers} workers for the plain loop\n")
    (print_growth if options.growth else print_table)(options)


if __name__ == "__main__":
    main()
