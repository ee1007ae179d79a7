"""Which model package a name means."""

from __future__ import annotations

from pathlib import Path

from medcli.errors import DamagedError, UsageError
from medcli.home import runs_folder
from medcli.models.package import (
    MODEL_JSON,
    ModelKind,
    ModelPackage,
    check_kind,
    is_package,
    peek,
)

_TRAIN = {
    "classification": "Train one with `medcli train`",
    "detection": "Train one on a manifest with boxes: `medcli train --task NAME-detection`",
}


def find_model(
    name: str | None, task: str | None = None, kind: ModelKind | None = "classification"
) -> Path:
    """The folder of the model that `name` means.

    Parameters
    ----------
    name : a run folder, a model package, the name of a run in the medcli home, or
        "latest"; None is the newest run there. A run on real data goes before any run on
        generated data
    task : only models that know this task, be it beside others
    kind : what the model has to do; None takes any

    Raises
    ------
    UsageError : there is no such model, or the one named is for another task or kind
    DamagedError : the one named cannot be read
    """
    if name is not None and name != "latest":
        folder = Path(name)
        if not folder.exists() and folder.name == name and is_package(runs_folder() / name):
            folder = runs_folder() / name
        if not folder.exists():
            raise UsageError(
                f"no model {name!r}", "Name a run folder, or 'latest' for the newest run"
            )
        if is_package(folder) and (task is not None or kind is not None):
            named = peek(folder)
            check_kind(named, kind)
            if task is not None:
                named.only(task)
        return folder
    runs, damaged = _runs()
    runs = [run for run in runs if kind is None or run.kind == kind]
    fitting = [run for run in runs if task is None or task in (each.name for each in run.tasks)]
    if fitting:
        return max(fitting, key=lambda run: (not run.synthetic, run.created)).path
    of_task = f" for the task {task!r}" if task else ""
    known = sorted({each.name for run in runs for each in run.tasks})
    hint = f"Tasks with a model: {', '.join(known)}" if known else _TRAIN[kind or "classification"]
    if damaged:
        hint += f"; damaged and passed over: {', '.join(map(str, damaged))}"
    what = "detector" if kind == "detection" else "model"
    raise UsageError(f"no {what}{of_task} in {runs_folder()}", hint)


def _runs() -> tuple[list[ModelPackage], list[Path]]:
    """The readable runs in the medcli home, and the folders whose `model.json` is damaged."""
    runs, damaged = [], []
    for path in sorted(runs_folder().glob(f"*/{MODEL_JSON}")):
        if path.parent.name.startswith(".") or not is_package(path.parent):
            continue
        try:
            runs.append(peek(path.parent))
        except (DamagedError, UsageError):
            damaged.append(path.parent)
    return runs, damaged
