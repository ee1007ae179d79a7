"""One model of three tasks beside a model of each; prints Markdown.

    python benchmarks/shared_model.py DATA [--out FOLDER] [--size 64] [--minutes 4 | --epochs N]
                                      [--seed 0] [--device cpu] [--full-range] [--keep]
                                      [--at-once]

DATA is a folder with nodule_slices/, lung_cxr/ and gi_colon_histology/, each with a
manifest.csv. All models have the same side and the same minutes or epochs, the shared one for
all three sets together; every set is split by patient with the same seed, so each task is
measured on the same held-out patients in both. --full-range adds the lung model with pictures
scaled as the shared one scales them, and not by percentiles. --keep measures runs that lie in
--out already. --at-once trains all of them at the same time: for epochs, where there are cores.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from machine import device_name

SETS = {"nodule": "nodule_slices", "lung": "lung_cxr", "gi": "gi_colon_histology"}


def main() -> None:
    """Train what is missing and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("shared-runs"))
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--epochs", type=int, help="in place of --minutes")
    parser.add_argument("--full-range", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--at-once", action="store_true")
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    named = [f"{task}={options.data / folder}" for task, folder in SETS.items()]
    with ThreadPoolExecutor(len(SETS) + 1 if options.at_once else 1) as threads:
        together = threads.submit(run, "shared", named, options)
        apart = {
            task: threads.submit(run, task, [each], options)
            for task, each in zip(SETS, named, strict=True)
        }
    shared, alone = together.result(), {task: each.result() for task, each in apart.items()}
    budget = f"{options.epochs} epochs" if options.epochs else f"{options.minutes:g} minutes"
    print(
        f"\n{date.today()}, {device_name(options.device)}, seed {options.seed}, "
        f"{options.size} px, ",
        end="",
    )
    print(f"{budget} each, ", end="")
    print(", ".join(f"{name} {version(name)}" for name in ("medcli", "torch")))
    print("\n| task | model | epochs | scans | AUROC | accuracy |\n|---|---|---|---|---|---|")
    rows = [(task, "shared", shared, shared["metrics"]["tasks"][task]) for task in SETS]
    rows += [(task, "alone", each, each["metrics"]) for task, each in alone.items()]
    if options.full_range:
        # A task without a preset scales pictures as the shared model does, augments as grey.
        data = [f"films={options.data / SETS['lung']}", "--positive", "pneumonia"]
        films = run("films", data, options)
        rows.append(("lung", "alone, full range", films, films["metrics"]))
    for task, model, package, own in sorted(rows, key=lambda row: list(SETS).index(row[0])):
        numbers = [number(own[key], own[f"{key}_ci"]) for key in ("auroc", "accuracy")]
        cells = [task, model, str(package["provenance"]["epochs_run"]), str(own["n"]), *numbers]
        print(f"| {' | '.join(cells)} |")
    router = shared["metrics"]["router"]
    right = number(router["accuracy"], router["accuracy_ci"])
    print(f"\nrouter, {router['n']} held-out scans: right for {right}")
    print(f"\n| scans of | {' | '.join(f'given to {task}' for task in router['tasks'])} |")
    print("|---|" + "---|" * len(router["tasks"]))
    for task, counts in zip(router["tasks"], router["confusion"], strict=True):
        print(f"| {task} | {' | '.join(map(str, counts))} |")


def run(name: str, arguments: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """`model.json` of a run, trained unless it is kept."""
    folder = options.out / name
    if not (options.keep and folder.is_dir()):
        command = [sys.executable, "-m", "medcli", "train", *arguments, "-o", str(folder)]
        command += ["--overwrite", "--size", str(options.size), "--seed", str(options.seed)]
        command += ["--device", options.device]
        if options.epochs:  # no limit of time that a busy machine would reach
            command += ["--epochs", str(options.epochs), "--minutes", "1000"]
        else:
            command += ["--minutes", str(options.minutes)]
        subprocess.run(command, check=True)
    values: dict[str, Any] = json.loads((folder / "model.json").read_text())
    return values


def number(value: float | None, bounds: Any = None) -> str:
    """`.912 (.875–.944)`."""
    if value is None:
        return "–"
    return f"{value:.3f}" + (f" ({bounds[0]:.3f}–{bounds[1]:.3f})" if bounds else "")


if __name__ == "__main__":
    main()
