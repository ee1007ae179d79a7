"""Files, folders and patterns → the scans in them, found by content and not read yet."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Literal

from medcli.errors import ScanError
from medcli.imaging.files import open_file, os_failure
from medcli.imaging.formats import HEAD_BYTES, IMAGE_SUFFIXES, has_suffix, kind_of
from medcli.records import Case, Failure, Kind

SKIPPED = ("no_pixels", "unsupported_transfer_syntax")
"""Codes of files that are sound, but no scan medcli reads."""

Found = Case | Failure
Status = Literal["failed", "skipped"]


def find_scans(inputs: Iterable[str], *, explicit: bool = True) -> list[Found]:
    """Find the scans of `inputs`, in input order.

    Parameters
    ----------
    inputs :
        files, folders (searched to any depth) and patterns such as ``*/ct``
    explicit :
        whether a person named these inputs; what is no image has then failed
        where it is a file of its own, and is skipped in any other case

    Returns
    -------
    one `Case` a scan and one `Failure` for each file that is part of none. In a folder,
    DICOM files form series, every picture and volume is a scan of its own, and hidden
    files and medcli's own outputs are passed over. A file named by itself is always a
    scan of its own. `scan_id` is unique within the answer.
    """
    found: list[Found] = []
    for name in inputs:
        found.extend(_find(name, explicit))
    return _with_unique_ids(found)


def _find(name: str, explicit: bool) -> Iterable[Found]:
    """The scans of one input."""
    if os.path.isdir(name):
        return _find_in_folder(name)
    if os.path.lexists(name) or not glob.has_magic(name) or "\0" in name:
        return [_single(name, explicit)]
    matches = sorted(glob.glob(name, recursive=True))
    if not matches:
        return [_failure(name, ScanError("not_found", f"{name}: matches nothing"))]
    return [found for match in matches for found in _find(match, explicit)]


def _find_in_folder(root: str) -> Iterator[Found]:
    """The scans of a folder and those below it; a failure of its own where there are none."""
    any_case = any_failed = False
    for folder in _walk(root):
        for found in [folder] if isinstance(folder, Failure) else _folder_scans(*folder):
            any_case |= isinstance(found, Case)
            any_failed |= isinstance(found, Failure) and found.status == "failed"
            yield found
    if not any_case and not any_failed:
        message = f"{root}: no scan was found in this folder"
        yield _failure(root, ScanError("no_scans", message, "Name a folder with images"))


def _walk(root: str) -> Iterator[tuple[str, list[str]] | Failure]:
    """Folders with the sorted paths of their regular files, depth first, each folder once.

    Symbolic links are followed, loops are not. Hidden entries, model packages and
    galleries are left out.
    """
    waiting, seen = [root], set[tuple[int, int]]()
    while waiting:
        folder = waiting.pop()
        try:
            status = os.stat(folder)
            with os.scandir(folder) as entries:
                visible = sorted(
                    (entry for entry in entries if not entry.name.startswith(".")),
                    key=lambda entry: entry.name,
                )
        except OSError as error:
            yield _failure(folder, os_failure(folder, error))
            continue
        names = {entry.name for entry in visible}
        identity = (status.st_dev, status.st_ino)
        if identity in seen or {"model.json", "graph.onnx"} <= names or "catalogue.sqlite" in names:
            continue
        seen.add(identity)
        yield folder, [entry.path for entry in visible if _is_file(entry)]
        waiting.extend(entry.path for entry in reversed(visible) if _is_folder(entry))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads in a circle
        return False


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:
        return False


def _folder_scans(folder: str, paths: Sequence[str]) -> list[Found]:
    """The scans among the files of one folder, in the order of their first file."""
    found: dict[str, Found] = {}  # by first file
    dicom: list[str] = []
    for path in paths:
        try:
            if _kind(path) == "dicom":
                dicom.append(path)
            else:
                found[path] = _single(path, explicit=False)
        except ScanError as error:
            found[path] = _failure(path, error)
    if dicom:
        from medcli.imaging.dicom_groups import group_files

        cases, errors = group_files(dicom, folder)
        found |= {case.files[0]: case for case in cases}
        found |= {path: _failure(path, error) for path, error in errors.items()}
    return [found[path] for path in paths if path in found]


def _kind(path: str) -> Kind | None:
    """What `path` is read as, by its first bytes.

    Raises
    ------
    ScanError : not_found, unreadable, not_an_image (no regular file), truncated
        (an image by its name, but empty)
    """
    with open_file(path) as file:
        try:
            head = file.read(HEAD_BYTES)
        except OSError as error:
            raise os_failure(path, error) from error
    if not head and has_suffix(path, IMAGE_SUFFIXES):
        raise ScanError("truncated", f"{path}: the file is empty", "Copy it again")
    return kind_of(path, head)


def _single(path: str, explicit: bool) -> Found:
    """A file as a scan of its own."""
    try:
        kind = _kind(path)
    except ScanError as error:
        return _failure(path, error)
    if kind == "dicom":
        from medcli.imaging.dicom_groups import group_files

        cases, errors = group_files([path], path)
        return cases[0] if cases else _failure(path, errors[path])
    if kind == "volume" or kind == "picture":
        return Case(path, (path,), kind, scan_id=path)
    claims = has_suffix(path, IMAGE_SUFFIXES)
    what = "named like an image, but its content is none" if claims else "not an image"
    message = f"{path}: {what}"
    status: Status = "failed" if explicit or claims else "skipped"
    return Failure(path, "not_an_image", message, status, files=(path,))


def _failure(path: str, error: ScanError) -> Failure:
    """The record of an input that is no scan; what medcli does not read is no failure."""
    status: Status = "skipped" if error.code in SKIPPED else "failed"
    return Failure(path, error.code, str(error), status, files=(path,))


def _with_unique_ids(found: Sequence[Found]) -> list[Found]:
    """Number the scan ids that occur before: ``1.2.3``, ``1.2.3~2`` …"""
    taken: set[str] = set()
    unique: list[Found] = []
    for each in found:
        if isinstance(each, Case):
            scan_id, number = each.scan_id, 1
            while scan_id in taken:
                number += 1
                scan_id = f"{each.scan_id}~{number}"
            taken.add(scan_id)
            each = each if scan_id == each.scan_id else replace(each, scan_id=scan_id)
        unique.append(each)
    return unique
