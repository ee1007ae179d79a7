"""Which task of a model of several the labelled scans at hand are about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from medcli.data.sources import load_cases
from medcli.errors import UsageError

if TYPE_CHECKING:
    from medcli.inference.predictor import Predictor
    from medcli.models.package import ModelPackage


def for_data(predictor: Predictor, inputs: Sequence[str]) -> Predictor:
    """`predictor`, asked for the task that the labelled scans of `inputs` are about.

    Raises
    ------
    UsageError : they are about several of the model's tasks, or about none that can be told
    """
    if len(predictor.package.heads) == 1:
        return predictor
    return predictor.for_task(task_of_data(predictor.package, inputs))


def task_of_data(package: ModelPackage, inputs: Sequence[str]) -> str:
    """The task that the data name, else the only one whose classes hold all their labels."""
    data = load_cases(inputs)
    known = [task.name for task in package.tasks]
    named = {case.columns["task"] for case in data.cases if "task" in case.columns}
    if data.dropped["other task"]:
        raise UsageError("the data hold scans of several tasks", _pick(known))
    if named and named <= set(known):
        return named.pop()
    fitting = [task.name for task in package.tasks if set(data.classes) <= set(task.classes)]
    if len(fitting) == 1:
        return fitting[0]
    found = ", ".join(data.classes)
    which = f"of several tasks: {', '.join(fitting)}" if fitting else "of none of the tasks"
    raise UsageError(f"the labels {found} are classes {which}", _pick(known))


def _pick(names: Sequence[str]) -> str:
    return f"Pick one with --task: {', '.join(names)}"
