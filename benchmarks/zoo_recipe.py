"""The settings of the bundled shared model, as `TrainRequest` takes them.

    python benchmarks/zoo_recipe.py NODULES DATA -o FOLDER [--minutes M]

NODULES is what `nodule_mix.py build` makes; DATA a folder with lung_cxr/ and gi_colon_histology/,
each with a manifest.csv. Chosen on validation parts; only sets whose licence lets weights be
shared.
"""

from __future__ import annotations

import argparse
import os
import sys
from datetime import date
from pathlib import Path
from typing import Any

from medcli.config import ModelConfig
from medcli.training.request import TrainEvents, TrainRequest
from medcli.training.settings import ObjectiveRequest

SETS = {"lung": "lung_cxr", "gi": "gi_colon_histology"}  # in DATA
# A stack gives a step 3 slices drawn anew, since neighbours are alike; films are drawn half of
# the times, as their shift is the widest. The clock ends the training and lets the learning rate
# fall.
SHARED: dict[str, Any] = {
    "size": 96,
    "epochs": 60,
    "minutes": 50.0,
    "device": "cpu",
    "model": ModelConfig(arch="resnet18_half", aggregator="attention"),
    "objective": ObjectiveRequest(
        imbalance="sampler",
        step_slices=3,
        task_shares=(1.0, 2.0, 1.0),  # nodule, then in the order of SETS
        label_smoothing=0.05,
    ),
}


def request(nodules: Path, data: Path, output: Path, **others: Any) -> TrainRequest:
    """The training of the shared model; `others` take the place of settings in `SHARED`."""
    inputs = [f"nodule={nodules}", *(f"{task}={data / folder}" for task, folder in SETS.items())]
    return TrainRequest(inputs=tuple(inputs), output=output, seed=0, **SHARED | others)


def say(text: str) -> None:
    """On stderr, at once."""
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Train the shared model, saying each epoch on stderr."""
    from medcli.training.run import train

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("nodules", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=SHARED["minutes"])
    options = parser.parse_args()
    print(f"{date.today()}, {os.cpu_count()} cores", file=sys.stderr)
    events = TrainEvents(
        note=say,
        warn=say,
        stage=say,
        ready=lambda rows, plan, epochs: say(plan),
        epoch=lambda line: say(
            f"{line.epoch}/{line.epochs} loss {line.train_loss:.4f} val {line.val_loss:.4f} "
            f"AUROC {line.val_auroc:.4f} rate {line.learning_rate:.2g} {line.seconds:.0f} s"
        ),
    )
    asked = request(options.nodules, options.data, options.output, minutes=options.minutes)
    print(train(asked, events).path)


if __name__ == "__main__":
    main()
