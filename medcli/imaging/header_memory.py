"""DICOM headers that were read to find scans, kept for who reads the same files next.

A file that was written to since is read anew. Workers are handed the headers of the scan
they are asked for.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Sequence

from medcli.imaging.files import MEMBER
from medcli.imaging.header import Header, KnownHeader

KEPT = 8192
"""Headers, of some kilobytes; the oldest make room."""

_kept: dict[str, KnownHeader] = {}  # by path, the oldest first
_lock = threading.Lock()


def found_header(path: str) -> Header:
    """As `read_header`, and keep the header.

    Raises
    ------
    ScanError : as `medcli.imaging.dicom_header.read_header`
    """
    from medcli.imaging.dicom_header import read_header

    identity = _identity(path)  # before it is read: who writes meanwhile is noticed later
    header = read_header(path)
    if identity is not None:
        keep([KnownHeader(identity, header)])
    return header


def known_header(path: str) -> Header:
    """The header that was kept, else that of the file.

    Raises
    ------
    ScanError : as `medcli.imaging.dicom_header.read_header`
    """
    from medcli.imaging.dicom_header import read_header

    for known in kept_headers([path]):
        if known.identity == _identity(path):
            return known.header
    return read_header(path)


def kept_headers(paths: Sequence[str]) -> list[KnownHeader]:
    """Those of the headers of `paths` that were kept."""
    with _lock:
        return [_kept[path] for path in paths if path in _kept]


def keep(headers: Iterable[KnownHeader]) -> None:
    """Keep headers for `known_header`."""
    with _lock:
        for known in headers:
            _kept.pop(known.header.path, None)
            _kept[known.header.path] = known
            if len(_kept) > KEPT:
                del _kept[next(iter(_kept))]


def _identity(path: str) -> tuple[int, ...] | None:
    """What changes where a file does; None for members of archives and what is not there."""
    if MEMBER in path:
        return None
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
