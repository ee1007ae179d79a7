"""Which columns of a model's logits answer which task, and how they are read; no torch.

A model has one linear head. Its columns are the classes of the first task, then those of
the second, and so on; where there are several tasks, one more column for each follows: the
router, whose softmax says which task a scan belongs to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

import numpy as np

from medcli.config import Calibration
from medcli.evaluation.calibration import sigmoid, softmax
from medcli.records import Task


@dataclass(frozen=True, slots=True)
class Head:
    """A task with the first of its columns and how its logits become an answer."""

    task: Task
    calibration: Calibration = field(default_factory=Calibration)
    first: int = 0

    @property
    def columns(self) -> slice:
        """Its columns among the logits."""
        return slice(self.first, self.first + len(self.task.classes))

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """(…, W) logits of all columns → (…, K) of the classes; of findings each by itself."""
        return answer_probabilities(self.task, self.calibration, logits[..., self.columns])


def answer_probabilities(task: Task, calibration: Calibration, logits: np.ndarray) -> np.ndarray:
    """(…, K) logits of a task → (…, K) calibrated probabilities."""
    if task.multi_label:
        return sigmoid(logits, calibration.platt)
    return softmax(logits, calibration.temperature, calibration.offsets)


@dataclass(frozen=True, slots=True)
class Router:
    """What says which task a scan belongs to.

    Attributes
    ----------
    tasks : their names, in the order of the columns
    first : the first of these columns
    temperature : as in `Calibration`
    """

    tasks: tuple[str, ...]
    first: int
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.temperature < np.inf:
            raise ValueError(f"router: the temperature {self.temperature} is not above 0")

    @property
    def columns(self) -> slice:
        """Its columns among the logits."""
        return slice(self.first, self.first + len(self.tasks))

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """(…, W) logits of all columns → (…, T) a probability for each task."""
        return softmax(logits[..., self.columns], self.temperature)


def column_ranges(tasks: Sequence[Task]) -> tuple[slice, ...]:
    """The columns of each task's classes."""
    ends = accumulate((len(task.classes) for task in tasks), initial=0)
    return tuple(slice(start, end) for start, end in pairwise(ends))


def head_width(tasks: Sequence[Task]) -> int:
    """How many columns the logits of a model of these tasks have, the router's included."""
    classes = sum(len(task.classes) for task in tasks)
    return classes + (len(tasks) if len(tasks) > 1 else 0)


def make_heads(
    tasks: Sequence[Task], calibrations: Sequence[Calibration] | None = None
) -> tuple[Head, ...]:
    """A head for each task, in the order of their columns."""
    known = calibrations or [Calibration()] * len(tasks)
    starts = [columns.start for columns in column_ranges(tasks)]
    return tuple(map(Head, tasks, known, starts))


def make_router(tasks: Sequence[Task], temperature: float = 1.0) -> Router | None:
    """The router of these tasks; None for a single one."""
    if len(tasks) < 2:
        return None
    names = tuple(task.name for task in tasks)
    return Router(names, column_ranges(tasks)[-1].stop, temperature)
