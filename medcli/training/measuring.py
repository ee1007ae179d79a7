"""After the weights: how the answers of each task are read, and what the held-out part gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from medcli.config import Calibration, TrainConfig
from medcli.data.arrays import ScanArrays
from medcli.data.domains import sites_of
from medcli.data.splits import Split
from medcli.evaluation.calibration import fit_temperature
from medcli.evaluation.intervals import patient_bootstrap, patient_groups, weighted_mean
from medcli.evaluation.out_of_distribution import Reference
from medcli.models.heads import Head, Router, column_ranges, make_router
from medcli.models.held_out import HeldOut
from medcli.records import Case, Task
from medcli.training.baselines import perceptron_baselines
from medcli.training.by_task import own_scans, task_numbers
from medcli.training.calibrating import (
    calibrate,
    flagged_share,
    held_out_answers,
    measure,
    operating_point,
    picture_baselines,
    reference_scans,
)
from medcli.training.findings import calibrate_findings, measure_findings
from medcli.training.prediction import predict_embeddings, predict_logits

Predict = Callable[[Callable[..., Tensor], ScanArrays], np.ndarray]
"""(`predict_logits` or `predict_embeddings`, scans) → what the model says of them."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What is fixed after training, and the numbers of the held-out part.

    Attributes
    ----------
    references : by task
    metrics : of one task its numbers; of several those of each in `tasks`, and `router`
    answers : behind the numbers of one task
    """

    heads: tuple[Head, ...]
    router: Router | None
    references: Mapping[str, Reference]
    metrics: dict[str, Any]
    answers: HeldOut | None = None


@dataclass(frozen=True, slots=True)
class _Part:
    """Scans of one part with their logits (N, W) and cases; of all tasks or of one."""

    scans: ScanArrays
    logits: np.ndarray
    cases: Sequence[Case]

    def of_task(self, columns: slice) -> _Part:
        """The scans of one task, their labels and logits those of its classes."""
        rows, own = own_scans(self.scans, columns)
        return _Part(own, self.logits[rows][:, columns], [self.cases[row] for row in rows])


def measure_run(
    tasks: Sequence[Task],
    arrays: Mapping[str, ScanArrays],
    split: Split,
    config: TrainConfig,
    predict: Predict,
    sensitivity: float | None = None,
) -> Measured:
    """Threshold and calibration from the validation part, numbers from the test part.

    Without a test part the numbers are those of the validation part, and say so. A wanted
    `sensitivity` is that of the threshold of one task.
    """
    name = "test" if split.test else "val"
    val = _Part(arrays["val"], predict(predict_logits, arrays["val"]), split.val)
    held_out = val
    if split.test:
        held_out = _Part(arrays["test"], predict(predict_logits, arrays["test"]), split.test)
    heads, references, metrics, answers = [], {}, {}, None
    for task, columns in zip(tasks, column_ranges(tasks), strict=True):
        _, train = own_scans(arrays["train"], columns)
        own, own_val = held_out.of_task(columns), val.of_task(columns)
        if task.multi_label:
            task, calibration = calibrate_findings(task, own_val.scans.labels, own_val.logits)
            choice = None
        else:
            settled = own_val.scans.labels, own_val.logits, sensitivity
            task, calibration = calibrate(task, *settled, evened=config.imbalance != "none")
            choice = operating_point(task, calibration, *settled)
        if len(tasks) == 1:
            answers = held_out_answers(task, calibration, own.scans.labels, own.logits, own.cases)
        heads.append(Head(task, calibration, columns.start))
        references[task.name] = reference = reference_scans(train, own_val.scans)
        metrics[task.name] = {
            "split": name,
            **_numbers(task, calibration, train, own, config, predict),
            "operating_point": asdict(choice) if choice else None,
            "out_of_distribution": flagged_share(reference, own.scans),
        }
    router = make_router(tasks)
    if router is None:
        return Measured(tuple(heads), None, references, metrics[tasks[0].name], answers)
    router = replace(
        router,
        temperature=fit_temperature(
            task_numbers(val.scans.labels, tasks), val.logits[:, router.columns]
        ),
    )
    routed = _router_metrics(router, held_out, tasks, config.seed)
    whole = {"split": name, "tasks": metrics, "router": routed}
    return Measured(tuple(heads), router, references, whole)


def _numbers(
    task: Task,
    calibration: Calibration,
    train: ScanArrays,
    own: _Part,
    config: TrainConfig,
    predict: Predict,
) -> dict[str, Any]:
    """The metrics of one task on its held-out scans, with the baselines beside them."""
    sites = sites_of(own.cases, config.domain)
    if task.multi_label:
        return measure_findings(
            *(task, calibration, train, own.scans, own.logits, own.cases, config.seed), sites=sites
        )
    metrics = measure(
        *(task, calibration, own.scans.labels, own.logits, own.cases, config.seed), sites=sites
    )
    return {**metrics, "baselines": _baselines(task, train, own, config.seed, predict)}


def _baselines(
    task: Task, train: ScanArrays, held_out: _Part, seed: int, predict: Predict
) -> dict[str, Any]:
    """What is reached without the network, and by a line through its embeddings."""
    found = picture_baselines(task, train, held_out.scans, held_out.cases, seed)
    return found | perceptron_baselines(
        train,
        held_out.scans,
        len(task.classes),
        embed=lambda wanted: predict(predict_embeddings, wanted),
        patients=[case.patient_id for case in held_out.cases],
        seed=seed,
    )


def _router_metrics(
    router: Router, held_out: _Part, tasks: Sequence[Task], seed: int
) -> dict[str, Any]:
    """How often the router picks the task of a scan; rows of `confusion` are true tasks."""
    truth = task_numbers(held_out.scans.labels, tasks)
    picked = router.probabilities(held_out.logits).argmax(axis=1)
    groups = patient_groups([case.patient_id for case in held_out.cases], len(truth))
    right = {"accuracy": weighted_mean(picked == truth)}
    confusion = np.zeros((len(tasks), len(tasks)), dtype=int)
    np.add.at(confusion, (truth, picked), 1)
    return {
        "tasks": list(router.tasks),
        "n": len(truth),
        "accuracy": float((picked == truth).mean()),
        "accuracy_ci": patient_bootstrap(right, groups, seed=seed)["accuracy"].bounds,
        "confusion": confusion.tolist(),
    }
