"""Cross-validation: the training of `medcli.training.run`, once a fold and once for all.

The numbers come from the folds, each measured on patients its model had not seen; what is
kept is one model trained on all patients, since a run has one model and a gallery one
embedding. The models of the folds go.
"""

from __future__ import annotations

import csv
import json
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from medcli.data.folds import check_no_parts, fold_split
from medcli.data.splits import Split, split_by_patient
from medcli.errors import DamagedError
from medcli.evaluation.conformal import label_set_metrics, label_sets
from medcli.evaluation.metrics import classification_metrics
from medcli.files import check_target, new_folder
from medcli.models.held_out import HeldOut, join_folds, read_held_out, write_held_out
from medcli.models.package import (
    CARD,
    HELD_OUT,
    MANIFEST,
    MODEL_JSON,
    ModelPackage,
    finish_package,
    is_replaceable,
    load_package,
    seal,
)
from medcli.records import Case
from medcli.training.card import model_card
from medcli.training.gather import ReadScan, read_cases
from medcli.training.request import Steps, TrainEvents, TrainRequest
from medcli.training.run import train
from medcli.training.writing import run_folder

CV_JSON, FOLDS_CSV = "cv.json", "folds.csv"
CROSS_VALIDATION = "cross-validation"
_KEPT = (
    "one model trained on all patients; the numbers are those of the folds' models, "
    "which saw fewer patients and were not kept"
)
_OF_A_FOLD = (
    *("n", "n_patients", "auroc", "auroc_ci", "accuracy", "accuracy_ci", "sensitivity"),
    *("specificity", "threshold", "average_precision", "ece", "ece_by_chance", "brier"),
)
_MEANS = ("auroc", "accuracy", "sensitivity", "specificity", "average_precision", "ece", "brier")


@dataclass(slots=True)
class _FoldSteps:
    """Reads the scans once, and makes one fold after the other the test part.

    `fold` counts from 0; None: no test part.
    """

    folds: int
    fold: int | None = 0
    scans: list[ReadScan] | None = None

    def read(self, cases: Sequence[Case], *settings: Any, **hooks: Any) -> list[ReadScan]:
        check_no_parts(cases)
        if self.scans is None:
            self.scans = read_cases(cases, *settings, **hooks)
        return self.scans

    def split(
        self, cases: Sequence[Case], *, test_fraction: float, allow_overlap: bool, **settings: Any
    ) -> Split:
        del test_fraction, allow_overlap  # the folds say both: `check_no_parts` was passed
        if self.fold is None:
            return split_by_patient(cases, test_fraction=0, **settings)
        return fold_split(cases, self.fold, self.folds, **settings)


def cross_validate(
    request: TrainRequest, folds: int, events: TrainEvents | None = None
) -> ModelPackage:
    """Measure in folds by patient, then train one model on all patients and keep that.

    The run's `metrics` are those of all scans, each answered by the model of its fold (at
    that model's calibration and threshold), with intervals over patients; `split` is
    "cross-validation". `cv.json` and `folds.csv` have each fold's own. `request.minutes` is
    for all trainings together; without it each has the default time of one.

    Raises
    ------
    ManifestError : the data name their own parts, or a class has too few patients
    and what `train` raises
    """
    events = _once(events or TrainEvents())
    if request.output is not None:
        check_target(request.output, overwrite=request.overwrite, replaceable=is_replaceable)
    steps = _FoldSteps(folds)
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="medcli-folds-") as scratch:
        packages = []
        for number in range(folds + 1):
            steps.fold = number if number < folds else None
            events.stage(
                f"fold {number + 1} of {folds}" if number < folds else "the model of all patients"
            )
            own = replace(
                request,
                output=Path(scratch) / str(number),
                minutes=_share(request.minutes, start, folds + 1 - number),
            )
            packages.append(train(own, events, Steps(steps.read, steps.split)))
        return _publish(request, packages[-1], packages[:-1])


def _once(events: TrainEvents) -> TrainEvents:
    """The same events; what every fold would note or warn of is told once."""
    told: set[str] = set()

    def first(tell: Any) -> Any:
        def hook(message: str) -> None:
            if message not in told:
                told.add(message)
                tell(message)

        return hook

    return replace(events, note=first(events.note), warn=first(events.warn))


def _share(minutes: float | None, start: float, trainings: int) -> float | None:
    """An equal part of the minutes that are left, for each of the trainings that are left."""
    if minutes is None:
        return None
    return max(0.1, (minutes - (time.monotonic() - start) / 60) / trainings)


def _publish(
    request: TrainRequest, final: ModelPackage, folds: Sequence[ModelPackage]
) -> ModelPackage:
    """Write the run folder: the final model with the numbers of the folds."""
    answers = [_answers(package) for package in folds]
    rows = [_fold_row(number, package) for number, package in enumerate(folds, start=1)]
    kept = {f"validation_{name}": final.metrics[name] for name in ("auroc", "auroc_ci")}
    metrics = _pooled(final, folds, answers, request.seed) | {"folds": rows, "kept": kept}
    summary = {
        "format_version": 1,
        "folds": len(folds),
        "seed": request.seed,
        "what_is_kept": _KEPT,
        "pooled": metrics,
        "mean": {name: _spread(rows, name) for name in _MEANS},
    }
    target = request.output or run_folder(final.task.name)
    with new_folder(target, overwrite=request.overwrite, replaceable=is_replaceable) as folder:
        for file in final.path.iterdir():
            if file.name not in {MANIFEST, MODEL_JSON, CARD, HELD_OUT}:
                shutil.copyfile(file, folder / file.name)
        write_held_out(folder, join_folds(answers), final.task.classes)
        text = json.dumps(summary, indent=2, allow_nan=False)
        (folder / CV_JSON).write_text(text + "\n", encoding="utf-8")
        _write_rows(folder / FOLDS_CSV, rows)
        package = finish_package(
            folder,
            preprocess=final.preprocess,
            model=final.model,
            heads=final.heads,
            router=final.router,
            synthetic=final.synthetic,
            created=final.created,
            patient_salt=final.patient_salt,
            provenance={**final.provenance, "folds": len(folds)},
            metrics=metrics,
        )
        (folder / CARD).write_text(model_card(package), encoding="utf-8")
        seal(folder)
    return load_package(target)


def _answers(package: ModelPackage) -> HeldOut:
    answers = read_held_out(package)
    if answers is None:
        raise DamagedError(f"{package.path}: a fold left no answers")
    return answers


def _pooled(
    final: ModelPackage, folds: Sequence[ModelPackage], answers: Sequence[HeldOut], seed: int
) -> dict[str, Any]:
    """The numbers of all scans, each answered by the model that had not seen its patient."""
    task, joined = final.task, join_folds(answers)
    metrics = classification_metrics(
        joined.labels,
        joined.probabilities,
        classes=task.classes,
        positive=task.positive,
        threshold=None if task.positive is None else joined.thresholds,
        patients=joined.patients,
        seed=seed,
    )
    sets = [
        label_sets(each.probabilities, package.calibration.label_set_levels or (0.0,))
        for package, each in zip(folds, answers, strict=True)
    ]
    metrics["label_sets"] = label_set_metrics(
        joined.labels,
        np.concatenate(sets),
        joined.groups,
        classes=task.classes,
        target=final.calibration.coverage,
        seed=seed,
    )
    metrics["warnings"] += _unknown_patients(folds)
    flagged = [package.metrics["out_of_distribution"] for package in folds]
    counts = [len(each.labels) for each in answers]
    return {
        "split": CROSS_VALIDATION,
        **metrics,
        "operating_point": final.metrics["operating_point"],
        "out_of_distribution": float(np.average(flagged, weights=counts)),
        "baselines": _mean_baselines([package.metrics["baselines"] for package in folds]),
    }


def _unknown_patients(folds: Sequence[ModelPackage]) -> list[dict[str, str]]:
    """The warning that a fold gave, in words that hold for all of them."""
    codes = {warning["code"] for package in folds for warning in package.metrics["warnings"]}
    if "unknown_patient" not in codes:
        return []
    message = "the patients of some scans are unknown; each such scan counts as one of its own"
    return [{"code": "unknown_patient", "message": message}]


def _mean_baselines(folds: Sequence[Any]) -> dict[str, Any]:
    """Each baseline's mean over the folds; no interval, as each fold has scores of its own."""
    names = [name for name in folds[0] if all(name in fold for fold in folds)]
    return {
        name: {
            "auroc": _mean([fold[name]["auroc"] for fold in folds]),
            "auroc_ci": None,
            "folds": [fold[name]["auroc"] for fold in folds],
        }
        for name in names
    }


def _fold_row(number: int, package: ModelPackage) -> dict[str, Any]:
    """What is told of one fold; names nobody."""
    trained = package.provenance["split"][0]
    return {
        "fold": number,
        "train_scans": trained["scans"],
        "train_patients": trained["patients"],
        **{name: package.metrics[name] for name in _OF_A_FOLD},
        "temperature": package.calibration.temperature,
        "best_epoch": package.provenance["best_epoch"],
        "seconds": package.provenance["seconds"],
    }


def _spread(rows: Sequence[dict[str, Any]], name: str) -> dict[str, float | None]:
    """Mean and standard deviation over the folds where it is defined."""
    values = [row[name] for row in rows if row[name] is not None]
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": _mean(values), "sd": deviation}


def _mean(values: Sequence[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None


def _write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """One line a fold; an interval becomes two columns."""
    flat = []
    for row in rows:
        line: dict[str, Any] = {}
        for name, value in row.items():
            if name.endswith("_ci"):
                line |= dict(zip((f"{name}_low", f"{name}_high"), value or ("", ""), strict=True))
            else:
                line[name] = value
        flat.append(line)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(flat[0]))
        writer.writeheader()
        writer.writerows(flat)
