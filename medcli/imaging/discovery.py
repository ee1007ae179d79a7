"""Files, folders, archives and patterns → the scans in them, found by content, not read yet."""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Literal

from medcli.errors import ScanError
from medcli.imaging.files import MEMBER, os_failure, read_head
from medcli.imaging.formats import (
    HEAD_BYTES,
    IMAGE_SUFFIXES,
    Content,
    begins_a_picture,
    has_suffix,
    header_of_pair,
    kind_of,
)
from medcli.records import Case, Failure

SKIPPED = ("no_pixels", "unsupported_transfer_syntax", "nested_archive")
"""Codes of files that are sound, but no scan medcli reads."""

CONVERTED = ".medcli-converted.json"
"""Lists what a conversion wrote into its folder, so that it may be replaced and passed over."""

Found = Case | Failure
Status = Literal["failed", "skipped"]


def find_scans(inputs: Iterable[str], *, explicit: bool = True) -> list[Found]:
    """Find the scans of `inputs`, in input order.

    Parameters
    ----------
    inputs :
        files, folders and zip archives (searched to any depth), their members
        (``a.zip!/inner``), DICOMDIRs and patterns such as ``*/ct``
    explicit :
        whether a person named these inputs; what is no image has then failed
        where it is a file of its own, and is skipped in any other case

    Returns
    -------
    one `Case` a scan and one `Failure` for each file that is part of none. In a folder,
    DICOM files form series (over several folders where their slices complement each
    other), every picture and volume is a scan of its own, and hidden
    files and medcli's own outputs (a model package, a gallery, what was converted into a
    folder below this one, a preview, a heat map) are passed over; an archive is searched
    like a folder, archives inside it are not. A DICOMDIR named by itself stands for the
    files it refers to; in a folder they are found anyway. Any other file named by itself
    is a scan of its own. `scan_id` is unique within the answer.
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
        return _find_by_name(name, explicit)
    matches = sorted(glob.glob(name, recursive=True))
    if not matches:
        return [_failure(name, ScanError("not_found", f"{name}: matches nothing"))]
    return [found for match in matches for found in _find(match, explicit)]


def _find_by_name(name: str, explicit: bool) -> Iterable[Found]:
    """The scans of a file, of an archive, of a folder in one, or of a DICOMDIR."""
    try:
        content = _content(name, explicit=explicit)
        if content == "archive" and not _is_member(name):
            return _at_least_one(name, _find_in_archive(name))
        if content == "directory":
            return _at_least_one(name, _find_by_directory(name))
        return [_single(content, name, explicit)]
    except ScanError as error:
        inside = list(_find_in_member(name)) if error.code == "not_found" else []
        return inside or [_failure(name, error)]


def _find_in_folder(root: str) -> Iterator[Found]:
    """The scans of a folder and those below it; a failure of its own where there are none."""
    return _at_least_one(root, _find_below(root))


def _find_below(root: str) -> Iterator[Found]:
    for folder in _walk(root):
        yield from [folder] if isinstance(folder, Failure) else _folder_scans(*folder)


def _at_least_one(root: str, found: Iterable[Found]) -> Iterator[Found]:
    """What was found in `root`; a failure of its own where that is nothing at all."""
    any_case = any_failed = False
    for each in _united(list(found)):
        any_case |= isinstance(each, Case)
        any_failed |= isinstance(each, Failure) and each.status == "failed"
        yield each
    if not any_case and not any_failed:
        where = "folder" if os.path.isdir(root) else "file"
        message = f"{root}: no scan was found in this {where}"
        yield _failure(root, ScanError("no_scans", message, "Name a folder with images"))


def _united(found: list[Found]) -> list[Found]:
    """`found`, where a series whose slices are spread over several folders is one scan.

    It takes the place of its first part.
    """
    series: dict[str, list[int]] = {}
    for place, each in enumerate(found):
        if isinstance(each, Case) and each.series_uid is not None and not each.warnings:
            series.setdefault(each.series_uid, []).append(place)
    moved: dict[int, Case | None] = {}
    for places in series.values():
        parts = [each for place in places if isinstance(each := found[place], Case)]
        if len({os.path.dirname(part.files[0]) for part in parts}) > 1:
            from medcli.imaging.dicom_groups import unite_folders

            if (whole := unite_folders(parts)) is not None:
                moved |= dict.fromkeys(places) | {places[0]: whole}
    every = (moved.get(place, each) for place, each in enumerate(found))
    return [each for each in every if each is not None]


def _walk(root: str) -> Iterator[tuple[str, list[str]] | Failure]:
    """Folders with the sorted paths of what else is in them, depth first, each folder once.

    Symbolic links are followed, loops are not; links that lead nowhere, pipes and devices
    are among the paths. Hidden entries, model packages and
    galleries are left out, and below `root` what a conversion wrote.
    """
    waiting, seen = [root], set[tuple[int, int]]()
    converted = set[str]()
    while waiting:
        folder = waiting.pop()
        try:
            status = os.stat(folder)
            with os.scandir(folder) as entries:
                every = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            yield _failure(folder, os_failure(folder, error))
            continue
        names = {entry.name for entry in every}
        visible = [entry for entry in every if not entry.name.startswith(".")]
        identity = (status.st_dev, status.st_ino)
        if identity in seen or _is_own_output(names):
            continue
        seen.add(identity)
        if CONVERTED in names and folder != root:
            converted |= _written_by_conversion(folder)
        paths = [entry.path for entry in visible if not _is_folder(entry)]
        yield folder, [path for path in paths if path not in converted]
        waiting.extend(entry.path for entry in reversed(visible) if _is_folder(entry))


def _written_by_conversion(folder: str) -> set[str]:
    """The paths of what a conversion wrote; none where its list cannot be read."""
    try:
        with open(os.path.join(folder, CONVERTED), encoding="utf-8") as file:
            written = json.load(file)
    except (OSError, ValueError):
        return set()
    names = written if isinstance(written, list) else []
    return {os.path.join(folder, str(name)) for name in names}


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads in a circle
        return False


def _is_own_output(names: Collection[str]) -> bool:
    """Whether the names in a folder are those of a model package or a gallery."""
    return {"model.json", "graph.onnx"} <= set(names) or "catalogue.sqlite" in names


def _find_in_archive(archive: str, folder: str = "") -> Iterator[Found]:
    """The scans of a zip archive, or of those of its members that lie in `folder`."""
    from medcli.imaging.archive import members

    try:
        folders = _folders_of([name for name in members(archive) if _lies_in(name, folder)])
    except ScanError as error:
        yield _failure(archive, error)
        return
    for inner, names in folders:
        paths = [f"{archive}{MEMBER}{name}" for name in names]
        yield from _folder_scans(f"{archive}{MEMBER}{inner}" if inner else archive, paths)


def _lies_in(name: str, folder: str) -> bool:
    return not folder or name.startswith(folder.rstrip("/") + "/")


def _folders_of(names: Iterable[str]) -> list[tuple[str, list[str]]]:
    """The names of an archive by folder, sorted; hidden ones and own outputs left out."""
    folders: dict[str, list[str]] = {}
    for name in sorted(names):
        parts = name.split("/")
        if not any(part.startswith(".") and part.strip(".") for part in parts):
            folders.setdefault("/".join(parts[:-1]), []).append(name)
    kept: list[tuple[str, list[str]]] = []
    own: str | None = None  # what lies below a folder follows it
    for folder, inside in sorted(folders.items(), key=lambda item: item[0].split("/")):
        if own is not None and f"{folder}/".startswith(own):
            continue
        if _is_own_output([name.rpartition("/")[2] for name in inside]):
            own = f"{folder}/" if folder else ""
        else:
            kept.append((folder, inside))
    return kept


def _find_in_member(path: str) -> Iterable[Found]:
    """The scans of ``a.zip!/folder``; none where it is no folder of an archive."""
    if MEMBER not in path:
        return ()
    from medcli.imaging.archive import split_path

    parts = split_path(path)
    return _find_in_archive(*parts) if parts else ()


def _nothing_in(archive: str) -> Failure:
    """What is said of an archive without visible members that lies in a folder."""
    message = f"{archive}: nothing was found in this archive"
    return Failure(archive, "no_scans", message, "skipped", files=(archive,))


def _is_member(path: str) -> bool:
    if MEMBER not in path:
        return False
    from medcli.imaging.archive import split_path

    return split_path(path) is not None


def _find_by_directory(path: str) -> list[Found]:
    """The scans that a DICOMDIR refers to, and each file that it names in vain."""
    from medcli.imaging.dicom_directory import referenced_files
    from medcli.imaging.dicom_groups import group_files

    try:
        there, missing = referenced_files(path)
    except ScanError as error:
        return [_failure(path, error)]
    cases, errors = group_files(there)
    return [*cases, *(_failure(each, error) for each, error in (errors | missing).items())]


def _folder_scans(folder: str, paths: Sequence[str]) -> list[Found]:
    """The scans among the files of one folder, in the order of their first file."""
    found: dict[str, list[Found]] = {}  # by first file
    dicom: list[str] = []
    parts: set[str] = set()  # data files of a header
    for path in paths:
        try:
            content = _content(path)
        except ScanError as error:
            found[path] = [_failure(path, error, (*SKIPPED, "not_an_image"))]
            continue
        if content in ("own picture", "own volume"):
            continue
        if content == "dicom":
            dicom.append(path)
        elif content == "archive" and not _is_member(path):
            found[path] = list(_find_in_archive(path)) or [_nothing_in(path)]
        else:
            single = _single(content, path, explicit=False)
            found[path] = [single]
            parts |= set(single.files) - {path}
    if dicom:
        from medcli.imaging.dicom_groups import group_files

        cases, errors = group_files(dicom, folder)
        for case in cases:
            found.setdefault(case.files[0], []).append(case)
        found |= {path: [_failure(path, error)] for path, error in errors.items()}
    return [each for path in paths if path not in parts for each in found.get(path, ())]


def _content(path: str, *, explicit: bool = False) -> Content | None:
    """What `path` is read as, by its first bytes.

    Raises
    ------
    ScanError : not_found, unreadable, not_an_image (no regular file), truncated
        (an image by its name or because a person named it, but empty or zeros; or one that
        ends within the first bytes of its format)
    """
    head = read_head(path, HEAD_BYTES)
    kind = kind_of(path, head)
    blank = not head.strip(b"\0")  # nothing, or no more than the preamble of a DICOM file
    if kind is None and blank and (explicit or has_suffix(path, IMAGE_SUFFIXES)):
        what = "holds nothing but zeros" if head else "is empty"
        raise ScanError("truncated", f"{path}: the file {what}", "Copy it again")
    if kind is None and begins_a_picture(path, head):
        message = f"{path}: the file ends within its first {len(head) + 1} bytes"
        raise ScanError("truncated", message, "Copy it again")
    return kind


def _single(content: Content | None, path: str, explicit: bool) -> Found:
    """A file whose content is known as a scan of its own."""
    if content == "dicom" or content == "directory":
        from medcli.imaging.dicom_groups import group_files

        cases, errors = group_files([path], path, own_outputs=True)
        return cases[0] if cases else _failure(path, errors[path])
    if content == "volume" or content == "own volume":
        from medcli.imaging.volume import files_of_volume

        return Case(path, files_of_volume(path), "volume", scan_id=path)
    if content == "picture" or content == "own picture":
        return Case(path, (path,), "picture", scan_id=path)
    if content == "archive":
        message = f"{path}: an archive inside an archive is not opened"
        return _failure(path, ScanError("nested_archive", message, "Unpack it first"))
    if header := header_of_pair(path) if explicit else None:
        return _single("volume", header, explicit)
    claims = has_suffix(path, IMAGE_SUFFIXES)
    what = "named like an image, but its content is none" if claims else "not an image"
    message = f"{path}: {what}"
    status: Status = "failed" if explicit or claims else "skipped"
    return Failure(path, "not_an_image", message, status, files=(path,))


def _failure(path: str, error: ScanError, skipped: Sequence[str] = SKIPPED) -> Failure:
    """The record of an input that is no scan; what medcli does not read is no failure."""
    status: Status = "skipped" if error.code in skipped else "failed"
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
