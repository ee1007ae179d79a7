"""How a model answers on pictures of held-out patients that were changed; prints Markdown.

    python benchmarks/shift.py MODEL DATA --task lung [--part test] [--scans N] [--seed 0]

DATA is the set that the run was trained on; of it the patients of --part are taken (those of the
test part, never looked at in training), by the run's own list. Each recipe of
benchmarks/shifts.py changes every picture before it is preprocessed, from a seed and the
scan's number, so the parts are the same for every model; no picture is kept.

A row holds, with 95 % intervals from a bootstrap over patients: AUROC, accuracy and ECE of the
model, the share it flags as out of distribution and the share its router gives to the task;
beside them the AUROC of logistic regressions on a thumbnail and on a histogram and of the area
above black, fitted on unchanged training scans; and the AUROC of the model above that of the
best of the three, from paired resamples.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import numpy as np
from shifts import RECIPES, shifted

from medcli.data.sources import load_cases
from medcli.evaluation.area import foreground_area
from medcli.evaluation.baselines import histogram_features, thumbnail_features
from medcli.evaluation.calibration import ECE_BINS, expected_calibration_error
from medcli.evaluation.intervals import (
    Statistic,
    patient_bootstrap,
    patient_groups,
    weighted_mean,
)
from medcli.evaluation.ranking import auroc, auroc_statistic
from medcli.imaging.batch import read_all
from medcli.imaging.preprocess import sample_slices
from medcli.inference.predictor import Predictor
from medcli.models.memory import RunMemory, run_memory
from medcli.models.package import load_package
from medcli.records import Case, Prediction, Scan, Task

BASELINES = ("thumbnail", "histogram", "area")
COLUMNS = (
    *("shift", "AUROC", "accuracy", "ECE", "flagged", "routed"),
    *BASELINES,
    "AUROC above the best of them",
)


@dataclass(frozen=True, slots=True)
class Part:
    """Scans of one part of the run, with their labels."""

    scans: list[Scan]
    positive: np.ndarray
    groups: np.ndarray


def main() -> None:
    """Print the table of one model and task."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("data")
    parser.add_argument("--task", required=True)
    parser.add_argument("--part", default="test", choices=("val", "test"))
    parser.add_argument("--scans", type=int, help="so many of the part; default: all")
    parser.add_argument("--training-scans", type=int, default=1000)
    parser.add_argument("--recipe", action="append", help="only these")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    package = load_package(options.model)
    task = next(task for task in package.tasks if task.name == options.task)
    predictor = Predictor(package).for_task(task.name)
    training = part(options, task, "train", options.training_scans)
    held_out = part(options, task, options.part, options.scans)
    baselines = Baselines(predictor, training)
    n_patients = int(held_out.groups.max()) + 1
    print(
        f"{task.name} of {package.fingerprint}, {options.part} part: "
        f"{len(held_out.scans)} scans of {n_patients} patients, "
        f"{held_out.positive.mean():.3f} {task.positive}; seed "
        f"{options.seed}, {date.today()}, {os.cpu_count()} cores\n"
    )
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}", flush=True)
    for name in options.recipe or RECIPES[task.name]:
        scans = [
            replace(scan, pixels=shifted(task.name, name, scan.pixels, options.seed + place))
            for place, scan in enumerate(held_out.scans)
        ]
        print(row(name, predictor, baselines, replace(held_out, scans=scans), task), flush=True)


def part(options: argparse.Namespace, task: Task, name: str, most: int | None) -> Part:
    """Read at most `most` scans of one part of the run, evenly over its list."""
    memory = run_memory(load_package(options.model))
    assert memory is not None, "the model does not know what it was trained on"
    cases = load_cases([options.data], task=task.name, known=task.classes).cases
    own = [c for c in cases if _part_of(c, memory, task.name) == name]
    chosen = [own[i] for i in sample_slices(len(own), most)] if most else own
    pairs = [(case, scan) for case, scan in read_all(chosen) if isinstance(scan, Scan)]
    return Part(
        [scan for _, scan in pairs],
        np.array([case.label == task.positive for case, _ in pairs]),
        _groups([case for case, _ in pairs]),
    )


def _part_of(case: Case, memory: RunMemory, task: str) -> str | None:
    """The part by the run's own list; of an archive, which names no patients, that it says."""
    return memory.part(case.patient_id, "", task) if case.patient_id else case.split


def _groups(cases: Sequence[Case]) -> np.ndarray:
    return patient_groups([case.patient_id for case in cases], len(cases))


class Baselines:
    """What simple features know, fitted on unchanged scans of the training part."""

    def __init__(self, predictor: Predictor, training: Part) -> None:
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        self._predictor = predictor
        self._models = {}
        features = self._features(training.scans)
        for name in BASELINES[:2]:
            regression = LogisticRegression(C=0.1, class_weight="balanced", max_iter=2000)
            model = make_pipeline(StandardScaler(), regression)
            self._models[name] = model.fit(features[name], training.positive)
        larger = auroc(training.positive, features["area"])
        self._sign = 1 if larger is None or larger >= 0.5 else -1

    def scores(self, scans: Sequence[Scan]) -> dict[str, np.ndarray]:
        """Name → (N,), higher means the positive class."""
        features = self._features(scans)
        found = {n: model.decision_function(features[n]) for n, model in self._models.items()}
        return found | {"area": self._sign * features["area"]}

    def _features(self, scans: Sequence[Scan]) -> dict[str, np.ndarray]:
        """Of each scan, as the model is shown it."""
        tables: dict[str, list[np.ndarray]] = {name: [] for name in BASELINES}
        for scan in scans:
            budget = self._predictor.package.preprocess.slice_budget
            chosen = sample_slices(len(scan.pixels), budget)
            images = self._predictor.preprocessor.unit_input(scan, slices=chosen)
            tables["thumbnail"].append(thumbnail_features(images))
            tables["histogram"].append(histogram_features(images))
            tables["area"].append(np.array(foreground_area(scan.pixels)))
        return {name: np.stack(values) for name, values in tables.items()}


def row(name: str, predictor: Predictor, baselines: Baselines, held_out: Part, task: Task) -> str:
    """One line of the table."""
    answers = [a for a in predictor.predict(held_out.scans) if isinstance(a, Prediction)]
    assert task.positive is not None
    column = task.classes.index(task.positive)
    shares = np.array([[a.probabilities[c] for c in task.classes] for a in answers])
    labels = np.where(held_out.positive, column, 1 - column)
    scores = baselines.scores(held_out.scans)
    areas = {key: auroc_statistic(held_out.positive, values) for key, values in scores.items()}
    known = {key: float(area(np.ones((1, len(labels))))[0]) for key, area in areas.items()}
    best = max(BASELINES, key=lambda key: known[key])
    own = auroc_statistic(held_out.positive, shares[:, column])
    right = shares.argmax(axis=1) == labels
    statistics: dict[str, Statistic] = {
        "auroc": own,
        "accuracy": weighted_mean(right.astype(float)),
        "ece": ece_statistic(labels, shares),
        "above": lambda weights: own(weights) - areas[best](weights),
    }
    intervals = patient_bootstrap(statistics, held_out.groups)
    every = np.ones((1, len(labels)))
    cells = [name]
    for key, statistic in statistics.items():
        bounds = intervals[key].bounds
        value = float(statistic(every)[0])
        sign = "+" if key == "above" else ""
        told = f" ({bounds[0]:{sign}.3f}–{bounds[1]:{sign}.3f})" if bounds else ""
        cells.append(f"{value:{sign}.3f}{told}")
    above = cells.pop()
    flagged = np.mean([bool(a.out_of_distribution) for a in answers])
    cells += [f"{flagged:.3f}", _routed(answers, task)]
    cells += [f"{known[key]:.3f}" for key in BASELINES]
    return f"| {' | '.join([*cells, above])} |"


def _routed(answers: Sequence[Prediction], task: Task) -> str:
    """Share of the scans that the router gives to the task; – without a router."""
    shares = [a.task_probabilities for a in answers if a.task_probabilities]
    if not shares:
        return "–"
    return f"{np.mean([max(each, key=lambda n: each[n]) == task.name for each in shares]):.3f}"


def ece_statistic(labels: np.ndarray, probabilities: np.ndarray) -> Statistic:
    """`expected_calibration_error` as a function of row weights."""
    confidence = probabilities.max(axis=1)
    bins = np.clip(np.ceil(confidence * ECE_BINS).astype(np.intp) - 1, 0, ECE_BINS - 1)
    gaps = (probabilities.argmax(axis=1) == labels) - confidence
    table = np.zeros((len(labels), ECE_BINS))
    table[np.arange(len(labels)), bins] = gaps

    def statistic(weights: np.ndarray) -> np.ndarray:
        return np.asarray(np.abs(weights @ table).sum(axis=1) / weights.sum(axis=1))

    plain = float(statistic(np.ones((1, len(labels))))[0])
    assert np.isclose(plain, expected_calibration_error(labels, probabilities))
    return statistic


if __name__ == "__main__":
    main()
