"""A lung model that never saw one subtype of pneumonia, tested on it; prints Markdown.

    python benchmarks/subtype.py DATA [--out FOLDER] [--size 64] [--minutes 4 | --epochs N]
                                 [--seed 0] [--device cpu] [--keep]

DATA is lung_cxr/ with the column `subtype` (normal, bacteria, virus). Patients are parted once,
by seed, 70 : 15 : 15. Three models of the same budget: trained and stopped on all subtypes,
without virus, without bacteria. Each is measured on normal against virus and on normal against
bacteria of the held-out patients, whom none has seen; intervals 95 %, bootstrap over patients,
and the difference to the model that saw all is paired.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from datetime import date
from pathlib import Path

import numpy as np
from machine import device_name

from medcli.config import PreprocessConfig
from medcli.data.audit import find_copies
from medcli.data.gate import pass_gate
from medcli.data.likeness import look_of
from medcli.data.sources import load_cases
from medcli.data.splits import Split, split_by_patient
from medcli.evaluation.intervals import patient_bootstrap, patient_groups, weighted_mean
from medcli.evaluation.ranking import auroc_statistic
from medcli.home import scan_cache
from medcli.imaging.batch import read_all
from medcli.inference.predictor import Predictor
from medcli.models.package import ModelPackage, load_package
from medcli.records import Case, Prediction, Scan
from medcli.training.gather import read_cases
from medcli.training.request import TrainRequest
from medcli.training.run import train

MISSING = ("none", "virus", "bacteria")
OTHERS = ("virus", "bacteria")


def main() -> None:
    """Train what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("subtype-runs"))
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, help="in place of --minutes")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--keep", action="store_true", help="measure runs that are in --out")
    options = parser.parse_args()
    split = parted(str(options.data), options.size, options.seed)
    scans = [s for _, s in read_all(split.test) if isinstance(s, Scan)]
    assert len(scans) == len(split.test), "a held-out film cannot be read"
    packages = {name: trained(name, split.train, split.val, options) for name in MISSING}
    answers = {name: positives(package, scans) for name, package in packages.items()}
    print(
        f"{date.today()}, {device_name(options.device)}, seed {options.seed}, {options.size} px, "
        + (f"{options.epochs} epochs" if options.epochs else f"{options.minutes:g} minutes")
        + " each\n\n"
        "| trained without | epochs | tested on normal and | films | AUROC | accuracy "
        "| AUROC above the one that saw all |\n|---|---|---|---|---|---|---|"
    )
    for name in MISSING:
        for subtype in OTHERS:
            epochs = packages[name].provenance["epochs_run"]
            print(line(name, epochs, subtype, split.test, answers))


def parted(data: str, size: int, seed: int) -> Split:
    """The films by patient; copies of a picture stay in one part."""
    read = read_cases(
        load_cases([data], task="lung").cases,
        PreprocessConfig(size=size, pictures="percentiles"),
        on_read=lambda done, total: None,
        on_failure=lambda failure: None,
        cache=scan_cache(),
    )
    copies = find_copies([i.pixel_sha256 for i in read], [look_of(i.images) for i in read])
    gate = pass_gate([item.case for item in read], copies, clean="", allow_overlap=False)
    return split_by_patient(gate.cases, seed=seed, links=gate.links)


def trained(
    missing: str, learn: tuple[Case, ...], stop: tuple[Case, ...], options: argparse.Namespace
) -> ModelPackage:
    """The model that was trained without one subtype, made unless it is kept."""
    folder: Path = options.out / f"without-{missing}"
    if options.keep and folder.is_dir():
        return load_package(folder)
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.out) as scratch:
        manifest = Path(scratch) / "films.csv"
        with manifest.open("w", newline="") as stream:
            table = csv.writer(stream)
            table.writerow(["path", "label", "patient_id", "split"])
            for part, cases in (("train", learn), ("val", stop)):
                for case in cases:
                    if case.columns["subtype"] != missing:
                        path = str(Path(case.files[0]).resolve())
                        table.writerow([path, case.label, case.patient_id, part])
        request = TrainRequest(
            inputs=(str(manifest),),
            task="lung",
            output=folder,
            overwrite=True,
            size=options.size,
            epochs=options.epochs or 60,
            minutes=1000.0 if options.epochs else options.minutes,
            seed=options.seed,
            device=options.device,
        )
        return train(request)


def positives(package: ModelPackage, scans: list[Scan]) -> np.ndarray:
    """(N,) probability of pneumonia."""
    answers = Predictor(package).predict(scans)
    return np.array([a.probabilities["pneumonia"] for a in answers if isinstance(a, Prediction)])


def line(
    missing: str,
    epochs: int,
    subtype: str,
    test: tuple[Case, ...],
    answers: dict[str, np.ndarray],
) -> str:
    """One row: a model on the normal films and those of one subtype."""
    rows = [i for i, case in enumerate(test) if case.columns["subtype"] in ("normal", subtype)]
    positive = np.array([test[i].columns["subtype"] == subtype for i in rows])
    groups = patient_groups([test[i].patient_id for i in rows], len(rows))
    own, whole = answers[missing][rows], answers["none"][rows]
    area, reference = auroc_statistic(positive, own), auroc_statistic(positive, whole)
    statistics = {
        "auroc": area,
        "accuracy": weighted_mean(((own > 0.5) == positive).astype(float)),
        "above": lambda weights: area(weights) - reference(weights),
    }
    intervals = patient_bootstrap(statistics, groups)
    cells = []
    for key, statistic in statistics.items():
        sign = "+" if key == "above" else ""
        bounds = intervals[key].bounds
        told = f" ({bounds[0]:{sign}.3f}–{bounds[1]:{sign}.3f})" if bounds else ""
        cells.append(f"{float(statistic(np.ones((1, len(rows))))[0]):{sign}.3f}{told}")
    if missing == "none":
        cells[-1] = "–"
    return f"| {missing} | {epochs} | {subtype} | {len(rows)} | {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
