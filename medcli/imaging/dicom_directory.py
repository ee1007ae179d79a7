"""DICOMDIR → the files of the medium that it refers to.

References
----------
DICOM PS3.10 8 (file-sets), PS3.3 F.3.2.2 (directory records)
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from pydicom.dataset import Dataset
from pydicom.filereader import dcmread

from medcli.errors import ScanError
from medcli.imaging.dicom_bounds import check_bounds, up_to_zeros
from medcli.imaging.dicom_file import damaged_header, quiet
from medcli.imaging.dicom_tags import value
from medcli.imaging.files import MEMBER, open_file, read_head
from medcli.imaging.formats import HEAD_BYTES, kind_of


def referenced_files(path: str) -> tuple[list[str], dict[str, ScanError]]:
    """The files that a DICOMDIR refers to, each once and in its order, and those not there.

    A file identifier is upper case by the standard; many a medium was copied to lower
    case, so that case counts only where the exact name is there. An identifier that
    leads out of the folder of the DICOMDIR is not followed. Some media hold a further
    directory for each study; its identifiers start at the same folder.

    Raises
    ------
    ScanError : not_found, unreadable, damaged_header
    """
    folder = os.path.dirname(path)
    there: dict[str, None] = {}
    missing: dict[str, ScanError] = {}
    waiting, seen = [path], {path}
    while waiting:
        for parts in _file_ids(waiting.pop(0)):
            try:
                found = _on_disk(folder, parts)
                if not _is_directory(found):
                    there[found] = None
                elif found not in seen:
                    seen.add(found)
                    waiting.append(found)
            except ScanError as error:
                missing[os.path.join(folder, *parts)] = error
    return list(there), missing


def _is_directory(path: str) -> bool:
    return kind_of(path, read_head(path, HEAD_BYTES)) == "directory"


def _file_ids(path: str) -> list[list[str]]:
    """The components of the file identifier of each record that has one."""
    with quiet():
        try:
            with open_file(path, start_only=True) as file:
                dataset = dcmread(up_to_zeros(file, path), force=True)
            records = value(dataset, "DirectoryRecordSequence") or ()
            return [parts for record in records if (parts := _file_id(record))]
        except ScanError:
            raise
        except Exception as error:  # a damaged file can raise anything, RecursionError included
            check_bounds()
            raise damaged_header(path) from error


def _file_id(record: Dataset) -> list[str]:
    found: Any = value(record, "ReferencedFileID")
    if found is None:
        return []
    return [found] if isinstance(found, str) else [str(part) for part in found]


def _on_disk(folder: str, parts: Sequence[str]) -> str:
    """The path of a file identifier as the medium spells it.

    Raises
    ------
    ScanError : not_found
    """
    exact = os.path.join(folder, *parts)
    if any(part in ("", ".", "..") or os.sep in part for part in parts):
        raise ScanError("not_found", f"{exact}: a DICOMDIR refers to a file outside its folder")
    found = exact
    if MEMBER not in exact and not os.path.lexists(exact):
        found = folder
        for part in parts:
            found = os.path.join(found, _spelled(found, part))
        if not os.path.lexists(found):
            message = f"{exact}: a DICOMDIR refers to it, but there is no such file"
            raise ScanError("not_found", message, "Copy the whole medium")
    return found


def _spelled(folder: str, part: str) -> str:
    """An entry of `folder` that is `part` but for case, else `part`."""
    try:
        names = os.listdir(folder or ".")
    except (OSError, ValueError):  # no folder, or no name: the caller says what is missing
        return part
    return next((name for name in sorted(names) if name.lower() == part.lower()), part)
