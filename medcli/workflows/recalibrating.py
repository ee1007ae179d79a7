"""The files of a bundled model and its run's own patients → calibration, thresholds, numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import date
from typing import Any

import numpy as np

from medcli.data.sources import load_cases
from medcli.errors import UsageError
from medcli.imaging.batch import read_all
from medcli.inference.predictor import Predictor
from medcli.models.heads import Head
from medcli.models.memory import run_memory
from medcli.models.package import ModelPackage
from medcli.records import Case, Scan
from medcli.training.calibrating import calibrate, operating_point
from medcli.workflows.evaluating import evaluate

_OF_A_CALL = ("task", "model", "synthetic")  # what `evaluate` says and the package says already
_WAY_OUT = "Name the data that the run was trained on"


def recalibrate(package: ModelPackage, data: Mapping[str, str]) -> ModelPackage:
    """The same model with what `calibrate` and `evaluate` give today.

    Each task is calibrated on the run's validation patients and measured on its held-out ones.
    The weights, the router and what counts as out of distribution stay. So do the numbers that
    do not follow from the calibration and need a training: the baselines, and the router's.

    Parameters
    ----------
    package : its tasks are of classes, not of findings
    data : task → the folder or manifest that taught it

    Returns
    -------
    Not written; `metrics` holds the day as `measured`

    Raises
    ------
    UsageError : `data` lack the validation patients of a task, or the held-out scans
    """
    predictor = Predictor(package)
    heads, points = [], {}
    for head in package.heads:
        labels, logits = _validation(predictor, head, data[head.task.name])
        head, points[head.task.name] = _calibrated(package, head, labels, logits)
        heads.append(head)
    ready = dataclasses.replace(package, heads=tuple(heads))
    numbers = {task: _numbers(ready, task, data[task], point) for task, point in points.items()}
    today = {"measured": date.today().isoformat()}
    if package.router is None:
        (metrics,) = numbers.values()
        return dataclasses.replace(ready, metrics={**metrics, **today})
    return dataclasses.replace(ready, metrics={**package.metrics, "tasks": numbers, **today})


def _validation(predictor: Predictor, head: Head, data: str) -> tuple[np.ndarray, np.ndarray]:
    """(N,) class indices and (N, K) logits of the scans of the run's validation patients."""
    memory, classes = run_memory(predictor.package), head.task.classes
    cases = load_cases([data], task=head.task.name, known=classes).cases
    own = [
        case
        for case in cases
        if memory is not None and memory.part(case.patient_id, "", head.task.name) == "val"
    ]
    if not own:
        raise UsageError(
            f"{data}: no scan of the validation patients of the task {head.task.name!r}", _WAY_OUT
        )
    rows = [
        (classes.index(str(case.label)), predictor.embed(scan).logits[head.columns])
        for case, scan in read_all(own)
        if isinstance(case, Case) and isinstance(scan, Scan)
    ]
    return np.array([label for label, _ in rows]), np.stack([logits for _, logits in rows])


def _calibrated(
    package: ModelPackage, head: Head, labels: np.ndarray, logits: np.ndarray
) -> tuple[Head, dict[str, Any] | None]:
    """The head as the scans of the validation part ask for, and how its threshold was chosen."""
    before = package.only(head.task.name).metrics.get("operating_point") or {}
    settled = labels, logits, before.get("wanted")
    evened = package.provenance["train"]["imbalance"] != "none"
    task, calibration = calibrate(head.task, *settled, evened=evened)
    choice = operating_point(task, calibration, *settled)
    point = dataclasses.asdict(choice) if choice else None
    return dataclasses.replace(head, task=task, calibration=calibration), point


def _numbers(
    package: ModelPackage, task: str, data: str, point: dict[str, Any] | None
) -> dict[str, Any]:
    """What `evaluate` gives on the held-out scans, with the baselines of the same scans."""
    found = evaluate(Predictor(package).for_task(task), [data]).metrics
    trained = package.only(task).metrics
    if found["split"] not in ("held-out", "test") or found["n"] != trained["n"]:
        raise UsageError(
            f"{data}: {found['n']} scans ({found['split']}) are not the {trained['n']} held-out "
            f"ones of the task {task!r}",
            _WAY_OUT,
        )
    kept = {name: trained[name] for name in ("split", "baselines")}
    own = {name: value for name, value in found.items() if name not in _OF_A_CALL}
    return {**own, **kept, "operating_point": point}
