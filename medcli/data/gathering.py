"""What the user names as scans, labelled or not → cases, in the order in which they were named."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from medcli.data.named import local_path
from medcli.errors import ScanError
from medcli.imaging.discovery import find_scans
from medcli.records import Case, Failure


def gather_cases(
    inputs: Sequence[str],
    *,
    stdin: Iterable[str] | None = None,
    on_note: Callable[[str], None] = lambda note: None,
    time_point: int | None = None,
    any_boxes: bool = False,
) -> list[Case | Failure]:
    """Every scan that the inputs name, labelled or not, in input order.

    Parameters
    ----------
    inputs : scans, folders, globs, manifests (`.csv`), MedMNIST `.npz`, names of data sets as
        for `medcli.data.sources.load_cases`, and ``-`` for a list on `stdin`, one input a line
    stdin : lines to read where ``-`` is given
    on_note : told what was left out of a manifest or read otherwise than it says
    time_point : which to read of files that hold several, counting from 0, where a manifest
        does not say it; None: the first, with a warning
    any_boxes : as of `medcli.data.manifest.read_manifest`

    Raises
    ------
    ManifestError : an unusable manifest. All else that cannot be read is a `Failure`
    """
    found: list[Case | Failure] = []
    plain: list[str] = []
    for given in _expand(inputs, stdin):
        name, dropped = local_path(given, on_note)
        for reason, count in dropped.items():
            on_note(f"{given}: {count:,} left out, {reason}")
        if not name.lower().endswith((".csv", ".npz")):
            plain.append(name)
            continue
        found += _find(plain)
        plain.clear()
        found += _members(name, on_note, any_boxes)
    found += _find(plain)
    if time_point is None:
        return found
    return [
        each if isinstance(each, Failure) else replace(each, default_time_point=time_point)
        for each in found
    ]


def _expand(inputs: Iterable[str], stdin: Iterable[str] | None) -> Iterable[str]:
    for name in inputs:
        if name != "-":
            yield name
        elif stdin is not None:
            yield from (line.rstrip("\r\n") for line in stdin if line.strip())


def _find(inputs: Sequence[str]) -> list[Case | Failure]:
    """All at once, so that no two scans get one scan_id."""
    return list(find_scans(inputs)) if inputs else []


def _members(name: str, on_note: Callable[[str], None], any_boxes: bool) -> list[Case | Failure]:
    """The scans that a manifest or an archive names; one failure if it cannot be opened."""
    from medcli.data.manifest import read_manifest
    from medcli.data.medmnist import read_archive

    try:
        if not name.lower().endswith(".csv"):
            return list(read_archive(name))
        manifest = read_manifest(name, any_boxes=any_boxes)
    except ScanError as error:
        return [Failure(name, error.code, error.message, files=(name,))]
    for warning in manifest.warnings:
        on_note(warning)
    for reason, count in manifest.dropped.items():
        on_note(f"{name}: {count} row{'s' if count != 1 else ''} left out, {reason}")
    return list(manifest.cases)
