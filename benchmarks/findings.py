"""A model of findings on real films: several may be there at once, each is a question of its own.

    python benchmarks/findings.py DATA [--scans 1500] [--epochs 6] [--size 40] [--keep RUN]

DATA is the folder with lung_cxr/manifest.csv. Its label and subtype become three findings:
pneumonia, and which kind it is, bacteria or virus; a normal film has none. At most so many films
of whole patients are drawn by the seed, which also splits them by patient.

Printed: a Markdown table with the held-out numbers of each finding, at the thresholds fixed on
the validation part; intervals 95 %, bootstrap over patients. `--keep` keeps the run.
"""

from __future__ import annotations

import argparse
import csv
import os
import tempfile
import time
from collections.abc import Iterator
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from medcli.models.package import ModelPackage
from medcli.training.request import TrainRequest
from medcli.training.run import train

LABELS = {"normal": "none", "bacteria": "pneumonia|bacteria", "virus": "pneumonia|virus"}
COLUMNS = ("finding", "scans", "AUROC", "average precision", "sensitivity", "specificity")


def main() -> None:
    """Train once and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--scans", type=int, default=1500)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--size", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path)
    asked = parser.parse_args()
    versions = ", ".join(f"{name} {version(name)}" for name in ("medcli", "torch"))
    told = f"{asked.epochs} epochs, {asked.size} px, seed {asked.seed}, {versions}"
    print(f"{date.today()}, {os.cpu_count()} cores, {told}", flush=True)
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        manifest = Path(scratch) / "findings.csv"
        write_manifest(asked.data.resolve() / "lung_cxr", manifest, asked.scans, asked.seed)
        package = train(
            TrainRequest(
                inputs=(str(manifest),),
                task="lung",
                output=asked.keep or Path(scratch) / "run",
                size=asked.size,
                epochs=asked.epochs,
                minutes=600.0,  # epochs decide, not the clock
                seed=asked.seed,
            )
        )
    print("\n".join(table(package)))
    print(f"\n{time.monotonic() - start:.0f} s")


def write_manifest(source: Path, target: Path, count: int, seed: int) -> None:
    """The films of whole patients, drawn at random, with their findings."""
    with (source / "manifest.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    patients = sorted({row["patient_id"] for row in rows})
    order = np.random.default_rng(seed).permutation(len(patients))
    rank = {patients[index]: place for place, index in enumerate(order)}
    with target.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "label", "patient_id"])
        for row in sorted(rows, key=lambda row: rank[row["patient_id"]])[:count]:
            label = LABELS[row["subtype"]]
            writer.writerow([source / row["path"], label, row["patient_id"]])


def table(package: ModelPackage) -> Iterator[str]:
    """A line for each finding, then the means over them and the baselines."""
    metrics = package.metrics
    names = (*COLUMNS, "PPV", "NPV", "ECE", "Brier")
    yield f"\n| {' | '.join(names)} |\n|{'---|' * len(names)}"
    for finding, own in metrics["per_class"].items():
        yield f"| {finding} | {own['n']} of {metrics['n']} | {_numbers(own)} |"
    yield f"| mean | {metrics['n']} | {_numbers(metrics)} |"
    told = ", ".join(f"{name} {own['auroc']:.3f}" for name, own in metrics["baselines"].items())
    yield (
        f"\n{metrics['n_patients']} patients. Every finding right: {metrics['exact']:.3f}. "
        f"Baselines, mean AUROC: {told}."
    )


def _numbers(own: dict[str, Any]) -> str:
    low, high = own["auroc_ci"]
    keys = ("average_precision", "sensitivity", "specificity", "ppv", "npv", "ece", "brier")
    cells = (f"{own['auroc']:.3f} ({low:.3f}–{high:.3f})", *(f"{own[key]:.3f}" for key in keys))
    return " | ".join(cells)


if __name__ == "__main__":
    main()
