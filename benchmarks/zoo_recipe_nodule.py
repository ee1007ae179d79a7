"""A model of the nodules alone, on masked slices, the same on lung, volumes and box crops.

    python benchmarks/zoo_recipe_nodule.py NODULES -o RUN [--seed 0] [--epochs 8]

NODULES is what `nodule_mix.py build` makes. The network takes simple measures of the nodule beside
its pixels. Not bundled: the shared model answers (accuracy.md). Printed is the report of
`nodule_mix.py` on the held-out part.
"""

from __future__ import annotations

import argparse
from datetime import date
from pathlib import Path

from nodule_mix import report

from medcli.config import ModelConfig
from medcli.inference.predictor import Predictor
from medcli.training.request import TrainEvents, TrainRequest
from medcli.training.run import train

EPOCHS = 8


def main() -> None:
    """Train, report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("nodules", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    asked = parser.parse_args()
    print(f"{date.today()}, seed {asked.seed}, {asked.epochs} epochs", flush=True)
    request = TrainRequest(
        (str(asked.nodules),),
        task="nodule",
        output=asked.output,
        seed=asked.seed,
        epochs=asked.epochs,
        minutes=600.0,  # epochs decide, not the clock
        model=ModelConfig(arch="region_cnn"),
    )
    events = TrainEvents(note=print, warn=print, epoch=lambda line: print(line, flush=True))
    report(Predictor(train(request, events)), asked.nodules, "test")


if __name__ == "__main__":
    main()
