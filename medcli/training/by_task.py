"""Several tasks in one set or batch → each task's own scans, their loss and their AUROC.

Labels are columns of the joint head (`medcli.models.heads`), so a label says which task a
scan belongs to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from medcli.config import Augmentation, TrainConfig
from medcli.data.arrays import ScanArrays
from medcli.evaluation.ranking import auroc
from medcli.models.heads import column_ranges, make_router
from medcli.models.scan_model import ScanModel
from medcli.records import Task
from medcli.training.findings import FindingsObjective
from medcli.training.objective import Objective
from medcli.training.prediction import macro_auroc


def task_numbers(labels: np.ndarray, tasks: Sequence[Task]) -> np.ndarray:
    """(N,) columns of the joint head → (N,) number of the task that each belongs to."""
    ends = [columns.stop for columns in column_ranges(tasks)]
    return np.searchsorted(ends, labels, side="right")


def own_scans(scans: ScanArrays, columns: slice) -> tuple[np.ndarray, ScanArrays]:
    """The scans whose label lies in `columns`: their rows, and they with labels from 0."""
    if scans.labels.ndim == 2:  # findings: one task
        return np.arange(len(scans.labels)), scans
    inside = (scans.labels >= columns.start) & (scans.labels < columns.stop)
    rows = np.flatnonzero(inside)
    if len(rows) == len(inside) and not columns.start:
        return rows, scans
    own = scans.select(rows)
    return rows, replace(own, labels=own.labels - columns.start)


def augmentation_of(
    config: TrainConfig, labels: np.ndarray, tasks: Sequence[Task]
) -> Augmentation | list[Augmentation]:
    """How the scans with these (N,) labels are augmented: all alike, or each by its task."""
    if not config.augmentations:
        return config.augmentation
    return [config.augmentations[i] for i in task_numbers(labels, tasks)]


def mean_auroc(labels: np.ndarray, logits: Tensor, tasks: Sequence[Task]) -> float | None:
    """Mean over the tasks, and the router as one more, of their macro AUROC.

    Parameters
    ----------
    labels : (N,) columns of the joint head, or (N, F) findings
    logits : (N, W) of all columns
    tasks : empty: all columns are the classes of one
    """
    if labels.ndim == 2:
        areas = [auroc(labels[:, f] == 1, logits[:, f].numpy()) for f in range(labels.shape[1])]
        return _mean(areas)
    areas = []
    if router := make_router(tasks):
        shares = torch.softmax(logits[:, router.columns], dim=1).numpy()
        areas.append(macro_auroc(task_numbers(labels, tasks), shares))
    for columns in column_ranges(tasks) or [slice(0, logits.shape[1])]:
        rows = np.flatnonzero((labels >= columns.start) & (labels < columns.stop))
        probabilities = torch.softmax(logits[rows][:, columns], dim=1).numpy()
        areas.append(macro_auroc(labels[rows] - columns.start, probabilities))
    return _mean(areas)


def _mean(values: Sequence[float | None]) -> float | None:
    """Mean of the defined values, None where there are none."""
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None


class TasksObjective(Objective):
    """The losses of several tasks, and that of the router.

    A scan is asked about its own task alone: the columns of the others get no gradient from
    it. Each task has the same weight, however many scans it has; inside it a scan counts as
    `Objective` says.

    Parameters
    ----------
    train : the training part, with the scans of all `tasks`
    """

    def __init__(
        self,
        config: TrainConfig,
        train: ScanArrays,
        tasks: Sequence[Task],
        device: torch.device,
    ) -> None:
        router = make_router(tasks)
        assert router is not None  # there are several tasks
        columns = column_ranges(tasks)
        # What follows counts labels; the pictures would be copied for nothing.
        bare = replace(train, images=train.images[:0], lengths=np.zeros_like(train.lengths))
        parts = [own_scans(bare, each) for each in columns]
        self._each = [
            Objective(config, part, len(task.classes), device)
            for (_, part), task in zip(parts, tasks, strict=True)
        ]
        self._config, self._tasks = config, tasks
        self._classes, self._blocks = router.first, (*columns, router.columns)
        self._labels = torch.from_numpy(train.labels).to(device)
        self._shares = torch.zeros(len(train.labels), router.columns.stop, device=device)
        self._offsets = torch.zeros(router.columns.stop, device=device)
        drawn = np.ones(len(train.labels))
        shares = np.array(config.task_shares or [1.0] * len(tasks))
        shares = shares / shares.mean()
        for number, ((rows, _), own) in enumerate(zip(parts, self._each, strict=True)):
            weight = len(train.labels) / (len(tasks) * len(rows))
            here = torch.from_numpy(rows).to(device)
            self._shares[here, columns[number]] = own._shares * weight
            self._shares[here, router.first + number] = weight
            self._offsets[columns[number]] = own._offsets
            if own.chances is not None:  # drawn more often in place of counting more
                drawn[rows] = own.chances.numpy() * weight * shares[number]
                self._shares[here] /= weight
        self.chances = torch.from_numpy(drawn) if config.imbalance == "sampler" else None

    def validation(self, logits: Tensor, labels: Tensor) -> float:
        """Mean of the losses of tasks and router; (N, W) logits on the CPU, for ties."""
        numbers = torch.from_numpy(task_numbers(labels.numpy(), self._tasks))
        each = F.cross_entropy(logits[:, self._blocks[-1]], numbers, reduction="none")
        present = [number for number in range(len(self._tasks)) if (numbers == number).any()]
        losses = [float(np.mean([float(each[numbers == number].mean()) for number in present]))]
        for objective, columns in zip(self._each, self._blocks, strict=False):
            rows = (labels >= columns.start) & (labels < columns.stop)
            own = logits[rows][:, columns]
            losses.append(objective.validation(own, labels[rows] - columns.start))
        return float(np.mean(losses))


def make_objective(
    config: TrainConfig,
    train: ScanArrays,
    model: ScanModel,
    tasks: Sequence[Task],
    device: torch.device,
) -> Objective | TasksObjective | FindingsObjective:
    """What training minimises; without `tasks` all columns are the classes of one."""
    if train.labels.ndim == 2:
        return FindingsObjective(config, train, device)
    if len(tasks) > 1:
        return TasksObjective(config, train, tasks, device)
    return Objective(config, train, model.head.out_features, device)
