"""What was tried on a set and what it gave, by cross-validation over patients.

    python benchmarks/accuracy.py DATA --set nodule --try resnet18_half --try cnn_lrn+max

DATA holds the sets (`nodule_slices`, `lung_cxr`, `gi_colon_histology`). A try is a network, or
network+aggregator, or either with options of the objective: `resnet18_half:mixup=0.2`.

Printed: a Markdown table. Every scan is answered by the model of its fold, which had not seen
its patient; intervals 95 %, bootstrap over patients. The baselines of the same folds stand
below it. Folds depend on data and seed alone, so tries are compared on the same folds.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping
from dataclasses import fields, replace
from datetime import date
from pathlib import Path
from typing import Any

from machine import device_name

from medcli.config import NO_AGGREGATOR, ModelConfig
from medcli.models.registry import VOLUMES
from medcli.training.folds import cross_validate
from medcli.training.request import TrainRequest
from medcli.training.settings import ObjectiveRequest

SETS = {
    "nodule": ("nodule_slices", "nodule"),
    "lung": ("lung_cxr", "lung"),
    "gi": ("gi_colon_histology", "gi"),
    "volumes": ("nodule_volumes", "nodule"),
}
COLUMNS = ("try", "AUROC", "accuracy", "ECE", "Brier", "folds' AUROC, sd", "seconds")


def main() -> None:
    """Cross-validate each try and print a row when it is done."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--set", choices=SETS, required=True)
    parser.add_argument("--try", action="append", dest="tries", metavar="NETWORK")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--size", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args()
    folder, task = SETS[asked.set]
    base = TrainRequest(
        inputs=(str(asked.data / folder / "manifest.csv"),),
        task=task,
        classes=("benign", "malignant") if task == "nodule" else None,
        size=asked.size,
        epochs=asked.epochs,
        minutes=600.0,  # epochs decide, not the clock
        seed=asked.seed,
        device=asked.device,
    )
    print(
        f"{date.today()}, {device_name(asked.device)}, {asked.set}, {asked.folds} folds, "
        f"seed {asked.seed}, epochs {asked.epochs or 'auto'}, {asked.size or 'auto'} px"
    )
    print(f"\n| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    baselines: dict[str, Any] = {}
    for name in asked.tries or ["resnet18_half"]:
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as scratch:
            request = replace(_tried(base, name), output=Path(scratch) / "run")
            metrics = cross_validate(request, asked.folds).metrics
        print(f"| {name} | {_row(metrics)} | {time.monotonic() - start:.0f} |", flush=True)
        baselines |= {key: each["auroc"] for key, each in metrics["baselines"].items()}
    told = ", ".join(f"{name} {auroc:.3f}" for name, auroc in baselines.items())
    print(
        f"\n{metrics['n']} scans of {metrics['n_patients']} patients. Baselines, mean AUROC: {told}"
    )


def _tried(base: TrainRequest, name: str) -> TrainRequest:
    """The request of one try."""
    network, _, options = name.partition(":")
    arch, _, aggregator = network.partition("+")
    chosen = aggregator or (NO_AGGREGATOR if arch in VOLUMES else "attention")
    given = dict(pair.split("=") for pair in options.split(",") if pair)
    numeric = {field.name for field in fields(ObjectiveRequest) if "float" in str(field.type)}
    values = {key: float(value) if key in numeric else value for key, value in given.items()}
    objective = ObjectiveRequest.from_json(values)
    return replace(base, model=ModelConfig(arch=arch, aggregator=chosen), objective=objective)


def _row(metrics: Mapping[str, Any]) -> str:
    def interval(name: str) -> str:
        low, high = metrics[f"{name}_ci"]
        return f"{metrics[name]:.3f} ({low:.3f}–{high:.3f})"

    aurocs = [fold["auroc"] for fold in metrics["folds"]]
    mean = sum(aurocs) / len(aurocs)
    spread = (sum((value - mean) ** 2 for value in aurocs) / (len(aurocs) - 1)) ** 0.5
    cells = (
        interval("auroc"),
        interval("accuracy"),
        f"{metrics['ece']:.3f}",
        f"{metrics['brier']:.3f}",
        f"{mean:.3f}, {spread:.3f}",
    )
    return " | ".join(cells)


if __name__ == "__main__":
    main()
