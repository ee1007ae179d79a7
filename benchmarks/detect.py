"""Detectors on polyps and nodules, from scratch unless told otherwise; prints Markdown.

    python benchmarks/detect.py DATA [--sets polyps,nodules] [--minutes 25] [--size PX]
        [--epochs N] [--weights RUN] [--seed 0] [--threads 0] [-o FOLDER]

Polyps: `gi_polyp_boxes`, parts by patient_id (groups of frames), measured on the held-out test
part. Nodules: `nodule_boxes`, leave one patient out: six folds, in each the next patient
chooses weights and threshold; boxes of all folds are pooled, each by a detector that has not
seen its patient. --minutes is for polyps and for each fold. Beside the detector stands what one
box gives that is the mean of the training part's boxes, the same in every picture. The line
"CPU" says how much of the machine the training had: seconds of processor time by seconds of
the clock.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medcli.data.boxes import BoxSet, load_boxes
from medcli.detection.measuring import MeasuredScan, box_metrics, measure_scans
from medcli.detection.run import train_detector
from medcli.evaluation.detection import ImageBoxes
from medcli.imaging.discovery import find_scans
from medcli.imaging.png_writer import write_png
from medcli.imaging.reader import read_scan
from medcli.inference.detector import Detector
from medcli.models.memory import run_memory
from medcli.models.package import ModelPackage
from medcli.records import Case
from medcli.training.request import TrainEvents, TrainRequest

SETS = {"polyps": "gi_polyp_boxes", "nodules": "nodule_boxes"}


def main() -> None:
    """Train, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--sets", default="polyps,nodules")
    parser.add_argument("--minutes", type=float, default=25)
    parser.add_argument("--size", type=int)
    parser.add_argument("--weights")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    print(
        f"{date.today()}, medcli {version('medcli')}, torch {torch.__version__}, "
        f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, seed {options.seed}, "
        f"{options.minutes:g} minutes, weights {'of a run' if options.weights else 'none'}\n"
    )
    print("| set | | AP50 | AP50–95 | recall at 1 / 4 / 8 false a slice | slices, boxes |")
    print("|---|---|---|---|---|---|", flush=True)
    for name in options.sets.split(","):
        with tempfile.TemporaryDirectory(prefix="medcli-") as scratch:
            folder = options.output or Path(scratch)
            folder.mkdir(parents=True, exist_ok=True)
            manifest = options.data / SETS[name] / "manifest.csv"
            measure = polyps if name == "polyps" else nodules
            measure(manifest, folder, options)


def polyps(manifest: Path, folder: Path, options: argparse.Namespace) -> None:
    """One training, measured on its held-out part."""
    began, cpu = time.monotonic(), time.process_time()
    package = trained(manifest, folder / "polyps", "polyp-detection", options)
    spent, used = time.monotonic() - began, time.process_time() - cpu
    print(line("polyps", "detector", package.metrics))
    data = load_boxes([str(manifest)])
    rows = mean_box(data, parts_of(package, data))
    print(line("polyps", "mean box", box_metrics(rows, 1, seed=options.seed)))
    tell(package, spent, used)


def nodules(manifest: Path, folder: Path, options: argparse.Namespace) -> None:
    """Leave one patient out."""
    data = load_boxes([str(manifest)])
    patients = sorted({str(case.patient_id) for case in data.cases})
    rows: list[MeasuredScan] = []
    constant: list[MeasuredScan] = []
    spent = used = 0.0
    for place, patient in enumerate(patients):
        chooses = patients[(place + 1) % len(patients)]
        parts = [
            {patient: "test", chooses: "val"}.get(str(case.patient_id), "train")
            for case in data.cases
        ]
        fold = with_split(manifest, folder, place, {patient: "test", chooses: "val"})
        began, cpu = time.monotonic(), time.process_time()
        package = trained(fold, folder / f"nodules-{place}", "nodule-detection", options)
        spent, used = spent + time.monotonic() - began, used + time.process_time() - cpu
        held = [n for n, part in enumerate(parts) if part == "test"]
        found, _ = measure_scans(
            Detector(package), [data.cases[n] for n in held], [data.boxes[n] for n in held]
        )
        rows += found
        constant += mean_box(data, parts)
        told = line("nodules", f"fold {place + 1}", box_metrics(found, 1, seed=options.seed))
        print(told, flush=True)
    print(line("nodules", "detector", box_metrics(rows, 1, seed=options.seed)))
    print(line("nodules", "mean box", box_metrics(constant, 1, seed=options.seed)))
    tell(package, spent, used)


def trained(manifest: Path, output: Path, task: str, options: argparse.Namespace) -> ModelPackage:
    """The run of one training; its epochs go to stderr."""

    def say(*words: Any) -> None:
        print(*words, file=sys.stderr, flush=True)

    request = TrainRequest(
        (str(manifest),),
        task=task,
        output=output,
        overwrite=True,
        size=options.size,
        epochs=options.epochs,
        minutes=options.minutes,
        seed=options.seed,
        weights=options.weights,
    )
    return train_detector(request, TrainEvents(warn=say, epoch=say, stage=say, ready=say))


def with_split(manifest: Path, folder: Path, place: int, parts: dict[str, str]) -> Path:
    """A copy of a manifest whose column `split` says the part of each patient."""
    with manifest.open(newline="") as stream:
        lines = list(csv.DictReader(stream))
    copy = folder / f"fold-{place}.csv"
    with copy.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, [*lines[0], "split"])
        writer.writeheader()
        for each in lines:
            path = manifest.parent.absolute() / each["path"]
            part = parts.get(each["patient_id"], "train")
            writer.writerow({**each, "path": str(path), "split": part})
    return copy


def parts_of(package: ModelPackage, data: BoxSet) -> list[str | None]:
    """The part of the run that each scan was in, by its patient."""
    memory = run_memory(package)
    assert memory is not None  # a run has it
    return [memory.part(case.patient_id, "") for case in data.cases]


def mean_box(data: BoxSet, parts: Sequence[str | None]) -> list[MeasuredScan]:
    """The mean box of the training part as the answer for every picture of the test part."""
    taught = [own for own, part in zip(data.boxes, parts, strict=True) if part == "train"]
    mean = np.mean([box.corners for own in taught for box in own], axis=0)
    rows = []
    for case, own, part in zip(data.cases, data.boxes, parts, strict=True):
        if part != "test":
            continue
        image = ImageBoxes(
            np.array([box.corners for box in own]).reshape(-1, 4),
            np.zeros(len(own), int),
            mean[None],
            np.ones(1),
            np.zeros(1, int),
        )
        rows.append(MeasuredScan(case, case.patient_id, "", (image,)))
    return rows


def line(name: str, what: str, metrics: dict[str, Any]) -> str:
    """A row of the table."""
    bounds, recall = metrics["ci"], metrics["recall_at_fppi"]
    cells = [told(metrics[n], bounds[n]) for n in ("ap50", "ap50_95")]
    recalls = " / ".join(told(recall[each]) for each in recall)
    counts = f"{metrics['n_images']}, {metrics['n_boxes']}"
    return f"| {name} | {what} | {cells[0]} | {cells[1]} | {recalls} | {counts} |"


def told(value: float | None, bounds: Sequence[float] | None = None) -> str:
    """A number, its interval behind it."""
    if value is None:
        return "–"
    return f"{value:.3f}" + (f" ({bounds[0]:.3f}–{bounds[1]:.3f})" if bounds else "")


def tell(package: ModelPackage, spent: float, used: float) -> None:
    """How it was trained, and how long an answer takes."""
    provenance, settings = package.provenance, package.detection
    assert settings is not None
    print(
        f"\n{package.model.arch}, {package.preprocess.size} px, anchors "
        f"{', '.join(f'{size:g}' for size in settings.anchor_sizes)} px every {settings.stride}; "
        f"{provenance['epochs_run']} epochs, best {provenance['best_epoch']}, ended by "
        f"{provenance['stopped']}. CPU: {used:.0f} s in {spent:.0f} s, "
        f"{used / spent:.2f} of a core. Graphs differ from torch by at most "
        f"{provenance['onnx_difference']:.1e}."
    )
    print(f"An answer: {milliseconds(Detector(package)):.0f} ms of processor time.\n")


def milliseconds(detector: Detector) -> float:
    """Processor time of an answer about one grey picture, median of ten."""
    with tempfile.TemporaryDirectory() as scratch:
        picture = Path(scratch) / "noise.png"
        write_png(picture, np.random.default_rng(0).integers(0, 255, (256, 256), np.uint8))
        (case,) = find_scans([str(picture)])
        assert isinstance(case, Case)
        scan = read_scan(case)
    times = []
    for _ in range(10):
        began = time.process_time()
        detector.boxes(scan)
        times.append(time.process_time() - began)
    return 1000 * float(np.median(times))


if __name__ == "__main__":
    main()
