"""Which model package a name means."""

from __future__ import annotations

from pathlib import Path

from medcli.errors import DamagedError, UsageError
from medcli.home import runs_folder
from medcli.models.package import MODEL_JSON, ModelPackage, is_package, peek


def find_model(name: str | None, task: str | None = None) -> Path:
    """The folder of the model that `name` means.

    Parameters
    ----------
    name : a run folder, a model package, the name of a run in the medcli home, or
        "latest"; None is the newest run there. A run on real data goes before any run on
        generated data
    task : only models that know this task, be it beside others

    Raises
    ------
    UsageError : there is no such model, or the one named is for another task
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
        if task is not None and is_package(folder):
            peek(folder).only(task)
        return folder
    runs, damaged = _runs()
    fitting = [run for run in runs if task is None or task in (each.name for each in run.tasks)]
    if fitting:
        return max(fitting, key=lambda run: (not run.synthetic, run.created)).path
    of_task = f" for the task {task!r}" if task else ""
    known = sorted({each.name for run in runs for each in run.tasks})
    hint = f"Tasks with a model: {', '.join(known)}" if known else "Train one with `medcli train`"
    if damaged:
        hint += f"; damaged and passed over: {', '.join(map(str, damaged))}"
    raise UsageError(f"no model{of_task} in {runs_folder()}", hint)


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
