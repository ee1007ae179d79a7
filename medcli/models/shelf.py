"""The models of the medcli home, for lists: quickly, without hashing their files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from medcli.errors import DamagedError, StorageError, UsageError
from medcli.home import runs_folder
from medcli.models.package import MANIFEST, REQUIRED, ModelPackage, peek


@dataclass(frozen=True, slots=True)
class ShelfEntry:
    """One folder of the home's runs; `problem` says why it cannot be used, None where it can.

    Attributes
    ----------
    size : bytes of all its files
    """

    path: Path
    size: int
    package: ModelPackage | None
    problem: str | None = None

    @property
    def name(self) -> str:
        """What the folder is called; MODEL takes it."""
        return self.path.name


def shelf(folder: Path | None = None) -> list[ShelfEntry]:
    """The runs of `folder`, by default the medcli home's, newest first, damaged ones last.

    Files are compared with their size; `load_package` compares their checksums.
    """
    root = folder or runs_folder()
    found = [path for path in root.glob("*") if path.is_dir() and path.name[0] != "."]
    entries = [_entry(path) for path in sorted(found)]
    usable = [entry for entry in entries if entry.package is not None]
    usable.sort(key=lambda entry: entry.package.created if entry.package else "", reverse=True)
    return [*usable, *(entry for entry in entries if entry.package is None)]


def _entry(path: Path) -> ShelfEntry:
    try:
        size = sum(file.stat().st_size for file in path.iterdir() if file.is_file())
        package = peek(path)
        problem = _size_problem(path)
    except (DamagedError, UsageError, StorageError) as error:
        return ShelfEntry(path, size, None, error.message)
    except OSError as error:
        return ShelfEntry(path, 0, None, f"{path}: {error.strerror}")
    return ShelfEntry(path, size, None if problem else package, problem)


def _size_problem(folder: Path) -> str | None:
    """What is wrong with the files by their sizes; None where nothing is."""
    try:
        files = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
        sizes = {name: entry["size"] for name, entry in files.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"{folder}: {MANIFEST} cannot be read"
    for name in (*REQUIRED, *sizes):
        if not (folder / name).is_file():
            return f"{folder}: {name} is missing from the model package"
        if name in sizes and (folder / name).stat().st_size != sizes[name]:
            return f"{folder / name}: differs from its size in {MANIFEST}"
    return None
