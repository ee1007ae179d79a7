"""The settings of the bundled shared model, as `TrainRequest` takes them.

    python benchmarks/zoo_recipe.py DATA -o FOLDER [--minutes M] [--epochs N]

DATA is a folder with nodule_slices/, lung_cxr/ and gi_colon_histology/, each with a
manifest.csv. Chosen on validation parts; only sets whose licence lets weights be shared.
"""

from __future__ import annotations

import argparse
import os
import sys
from datetime import date
from pathlib import Path

from medcli.config import ModelConfig
from medcli.training.request import TrainEvents, TrainRequest
from medcli.training.settings import ObjectiveRequest

SETS = {"nodule": "nodule_slices", "lung": "lung_cxr", "gi": "gi_colon_histology"}
MINUTES = 43.0  # on two cores, the clock of the learning rate besides
SIZE = 96


def request(data: Path, output: Path, minutes: float = MINUTES, **others: object) -> TrainRequest:
    """The training of the shared model; `others` as `TrainRequest` names them.

    A stack gives a step 3 slices drawn anew, since neighbours are alike and a nodule has its
    own model; films are drawn 11 in 20 times, as their shift is the widest, and tiles, of
    which there are fewest, 5 in 20.
    """
    return TrainRequest(
        inputs=tuple(f"{task}={data / folder}" for task, folder in SETS.items()),
        output=output,
        size=SIZE,
        epochs=60,
        minutes=minutes,
        seed=0,
        device="cpu",
        model=ModelConfig(arch="resnet18_half", aggregator="attention"),
        objective=ObjectiveRequest(
            imbalance="sampler",
            step_slices=3,
            task_shares=(4.0, 11.0, 5.0),  # nodule, lung, gi
            label_smoothing=0.05,
        ),
        **others,  # type: ignore[arg-type]
    )


def main() -> None:
    """Train the shared model, saying each epoch on stderr."""
    from medcli.training.run import train

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=MINUTES)
    options = parser.parse_args()
    print(f"{date.today()}, {os.cpu_count()} cores", file=sys.stderr)
    say = lambda text: print(text, file=sys.stderr, flush=True)  # noqa: E731
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
    package = train(request(options.data, options.output, options.minutes), events)
    print(package.path if hasattr(package, "path") else options.output)


if __name__ == "__main__":
    main()
