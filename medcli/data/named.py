"""Data sets that have a name instead of a place: ``medmnist:name``, ``hf:owner/name``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

MEDMNIST = "medmnist:"
HUGGINGFACE = "hf:"


def is_named(name: str) -> bool:
    """Whether an input is the name of a data set and no path."""
    return name.startswith((MEDMNIST, HUGGINGFACE))


def local_path(
    name: str, on_note: Callable[[str], None] = lambda note: None
) -> tuple[str, Counter[str]]:
    """Where an input lies on this machine, and what was left out of it on the way.

    What is no name of a data set is its own path.

    Parameters
    ----------
    on_note : told of downloads and of files that are written

    Raises
    ------
    UsageError : no such data set; a package is missing
    ManifestError : a data set without pictures or labels
    ScanError : it is not on this machine and cannot be fetched
    """
    if name.startswith(MEDMNIST):
        from medcli.data.medmnist_files import medmnist_archive

        return str(medmnist_archive(name.removeprefix(MEDMNIST), on_note)), Counter()
    if name.startswith(HUGGINGFACE):
        from medcli.data.huggingface import huggingface_manifest

        path, dropped = huggingface_manifest(name.removeprefix(HUGGINGFACE), on_note)
        return str(path), dropped
    return name, Counter()
