"""The models that medcli brings along, by name and by task.

A folder of the zoo is a package. One that is called after a task is the specialist of that
task; the one called `shared` answers several, and its router says which.
"""

from __future__ import annotations

from pathlib import Path

from medcli import home
from medcli.models.package import ModelPackage, is_package, peek

SHARED = "shared"


def bundled_models() -> list[ModelPackage]:
    """What lies in the zoo, the shared model first; `model.json` alone is read."""
    found = [path for path in home.ZOO.glob("*") if is_package(path)]
    return [peek(path) for path in sorted(found, key=lambda path: (path.name != SHARED, path.name))]


def bundled_folder(name: str) -> Path:
    """Where the bundled model of this name lies, if there is one."""
    return home.ZOO / name


def bundled_for(name: str) -> Path | None:
    """The folder of the bundled model that a name or a task means; None where there is none.

    A model of that name, which of a task is its specialist; else the shared model, where it
    knows a task of that name.
    """
    if is_package(own := bundled_folder(name)):
        return own
    shared = bundled_folder(SHARED)
    if is_package(shared) and name in (task.name for task in peek(shared).tasks):
        return shared
    return None


def specialist(task: str) -> Path | None:
    """The folder of the bundled model that answers this task better than the shared one."""
    own = bundled_folder(task)
    return own if task != SHARED and is_package(own) else None


def is_bundled(package: ModelPackage) -> bool:
    """Whether the package lies in the zoo."""
    return package.path.parent == home.ZOO


def is_shared(package: ModelPackage) -> bool:
    """Whether this is the bundled model whose router picks the task."""
    return package.path == bundled_folder(SHARED)
