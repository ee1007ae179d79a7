"""Which model package a name means."""

from __future__ import annotations

import contextlib
from pathlib import Path

from medcli import home
from medcli.errors import DamagedError, StorageError, UsageError
from medcli.home import runs_folder
from medcli.models.bundled import SHARED, bundled_folder, bundled_for, bundled_models, is_bundled
from medcli.models.package import (
    MANIFEST,
    MODEL_JSON,
    ModelKind,
    ModelPackage,
    check_kind,
    is_package,
    load_package,
    peek,
)

_TRAIN = {
    "classification": "Train one with `medcli train`",
    "detection": "Train one on a manifest with boxes: `medcli train --task NAME-detection`",
}


def open_model(
    name: str | None, task: str | None = None, kind: ModelKind | None = "classification"
) -> ModelPackage:
    """The model that `name` means, checked; one of several tasks as its one task sees it.

    That task is the one asked for with `task`, or the one whose name stands for the model:
    "lung" is the bundled model of that task, or the shared one for that task alone.

    Raises
    ------
    UsageError, DamagedError, StorageError : as of `find_model` and `load_package`
    """
    folder = find_model(name, task, kind)
    package = load_package(folder, kind)
    asked = task or (name if name is not None and _is_task_of_shared(name, folder) else None)
    return package if asked is None else package.only(asked)


def find_model(
    name: str | None, task: str | None = None, kind: ModelKind | None = "classification"
) -> Path:
    """The folder of the model that `name` means.

    Parameters
    ----------
    name : a run folder, a model package, the name of a run in the medcli home, that of a
        bundled model or of a task that one answers, or "latest", the newest run. None is the
        newest run on real data, else the bundled model, else the newest run on generated
        data
    task : only models that know this task, be it beside others
    kind : what the model has to do; None takes any. No detector is bundled

    Raises
    ------
    UsageError : there is no such model, or the one named is for another task or kind
    DamagedError : the one named cannot be read
    """
    if name is not None and name != "latest":
        return _named(name, task, kind)
    runs, damaged = _runs()
    runs = [run for run in runs if kind is None or run.kind == kind]
    fitting = [run for run in runs if task is None or task in (each.name for each in run.tasks)]
    newest = max(fitting, key=lambda run: (not run.synthetic, run.created), default=None)
    may_be_bundled = name != "latest" and kind != "detection"
    bundled = bundled_for(task or SHARED) if may_be_bundled else None
    if bundled is not None and (newest is None or newest.synthetic):
        return bundled
    if newest is not None:
        return newest.path
    raise _no_model(runs, damaged, task, kind, bundled=name is None)


def passed_over(package: ModelPackage) -> Path | None:
    """The newest run of the home where only `package`, a bundled model, kept it from answering.

    Runs on generated data are not picked by themselves while there is any other model.
    """
    if not is_bundled(package):
        return None
    runs, _ = _runs()
    if not runs or not all(run.synthetic for run in runs):
        return None
    return max(runs, key=lambda run: run.created).path


def same_package(copy: Path, fingerprint: str) -> ModelPackage | None:
    """A sound bundled model or run that has the manifest of `copy`: the same, file by file.

    None where there is none of this fingerprint.
    """
    try:
        manifest = (copy / MANIFEST).read_bytes()
    except OSError:
        return None
    for folder in sorted([*home.ZOO.glob("*"), *runs_folder().glob("[!.]*")]):
        with contextlib.suppress(OSError, DamagedError, UsageError, StorageError):
            if (folder / MANIFEST).read_bytes() == manifest:
                package = load_package(folder)
                return package if package.fingerprint == fingerprint else None
    return None


def _named(name: str, task: str | None, kind: ModelKind | None) -> Path:
    """The folder that a name or path means; packages go before folders of other kinds."""
    here = Path(name)
    stored = runs_folder() / name
    is_word = here.name == name
    if is_package(here):
        folder = here
    elif is_word and is_package(stored):
        folder = stored
    elif is_word and (found := bundled_for(name)) is not None:
        folder = found
    elif here.exists():
        return here
    else:
        raise UsageError(f"no model {name!r}", _known_names())
    package = peek(folder)
    check_kind(package, kind)
    if task is not None:
        package.only(task)
    return folder


def _is_task_of_shared(name: str, folder: Path) -> bool:
    """Whether `name` is a task, and `folder` the bundled model of several that answers it."""
    is_word = Path(name).name == name
    return is_word and name != SHARED and folder == bundled_folder(SHARED) == bundled_for(name)


def _known_names() -> str:
    names = [package.path.name for package in bundled_models()]
    bundled = f", a bundled model ({', '.join(names)})" if names else ""
    return f"Name a run folder{bundled}, or 'latest' for the newest run"


def _no_model(
    runs: list[ModelPackage],
    damaged: list[Path],
    task: str | None,
    kind: ModelKind | None,
    *,
    bundled: bool,
) -> UsageError:
    """What to say where nothing fits: which tasks have a model, and what is damaged."""
    models = [*runs, *(bundled_models() if bundled and kind != "detection" else ())]
    known = sorted({each.name for model in models for each in model.tasks})
    hint = f"Tasks with a model: {', '.join(known)}" if known else _TRAIN[kind or "classification"]
    if damaged:
        hint += f"; damaged and passed over: {', '.join(map(str, damaged))}"
    of_task = f" for the task {task!r}" if task else ""
    what = "detector" if kind == "detection" else "model"
    return UsageError(f"no {what}{of_task} in {runs_folder()}", hint)


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
