"""The same training with several seeds: numbers of each run and their spread; prints Markdown.

    python benchmarks/seeds.py DATA [--task lung] [--seeds 0,1,2] [--out FOLDER] [--size PX]
                               [--epochs N] [--device cpu] [--at-once] [--keep]

DATA is what `medcli train` takes. Of a set that does not name its parts each seed has another
split by patient. The numbers are those of the run's card: its test part, or where there is none
the validation part, which chose the epoch; 95 % intervals, bootstrap over patients. Without
--epochs and --size they are those of the device. --at-once trains all seeds at the same time.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any

from machine import device_name, print_head, print_row

from medcli.models.package import ModelPackage, load_package
from medcli.training.request import TrainRequest
from medcli.training.run import train


def main() -> None:
    """Train what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("--task", default="lung")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--out", type=Path, default=Path("seed-runs"))
    parser.add_argument("--size", type=int)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--at-once", action="store_true")
    parser.add_argument("--keep", action="store_true", help="measure runs that are in --out")
    options = parser.parse_args()
    seeds = [int(seed) for seed in options.seeds.split(",")]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(len(seeds) if options.at_once else 1, mp_context=spawn) as pool:
        folders = list(pool.map(trained, seeds, [options] * len(seeds)))
    packages = [load_package(folder) for folder in folders]
    settings = packages[0].provenance["train"]
    print(
        f"{date.today()}, {device_name(options.device)}, {options.task}, "
        f"{packages[0].preprocess.size} px, {settings['epochs']} epochs, batches of "
        f"{settings['batch_slices']}\n"
    )
    print_head(
        *("seed", "part", "scans", "best epoch", "AUROC", "accuracy", "sensitivity, specificity"),
        *("ECE", "thumbnail", "perceptron on embedding", "seconds"),
    )
    for seed, package in zip(seeds, packages, strict=True):
        print_row([seed, *_cells(package)])
    for name in ("auroc", "accuracy"):
        values = [package.metrics[name] for package in packages]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        print(f"\n{name}: mean {statistics.mean(values):.4f}, sd {spread:.4f}")


def trained(seed: int, options: argparse.Namespace) -> Path:
    """The run of one seed, made unless it is kept."""
    folder: Path = options.out / f"seed-{seed}"
    if not (options.keep and folder.is_dir()):
        options.out.mkdir(parents=True, exist_ok=True)
        train(
            TrainRequest(
                (options.data,),
                options.task,
                output=folder,
                overwrite=True,
                size=options.size,
                epochs=options.epochs,
                minutes=1000.0 if options.epochs else None,
                seed=seed,
                device=options.device,
            )
        )
    return folder


def _cells(package: ModelPackage) -> list[Any]:
    numbers, provenance = package.metrics, package.provenance
    baselines = numbers["baselines"]

    def known(value: float | None, bounds: Any = None) -> str:
        told = "–" if value is None else f"{value:.3f}"
        return told + (f" ({bounds[0]:.3f}–{bounds[1]:.3f})" if bounds else "")

    return [
        numbers["split"],
        numbers["n"],
        f"{provenance['best_epoch']} of {provenance['epochs_run']}",
        *(known(numbers[name], numbers[f"{name}_ci"]) for name in ("auroc", "accuracy")),
        f"{known(numbers['sensitivity'])}, {known(numbers['specificity'])}",
        known(numbers["ece"]),
        *(known(baselines[name]["auroc"]) for name in ("thumbnail", "perceptron_embedding")),
        provenance["seconds"],
    ]


if __name__ == "__main__":
    main()
