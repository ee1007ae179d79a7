"""Files of caches: what they were made from, a checksum, and the bytes of an index.

A file is one JSON line (what it was made from), one line with the SHA-256 of all the rest, then the
id of each vector's scan, (rows,) int64, little-endian, and FAISS's own bytes. They are given out
only after the checksum has been compared: FAISS reads damaged files without complaint, and its
writer hides a full disk, so reading and writing are done here. What was read is in memory once,
and FAISS can use it where it lies.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from medcli.files import replace_file
from medcli.records import ScanWarning

Level = Literal["scan", "slice"]
LEVELS: tuple[Level, ...] = ("scan", "slice")
REBUILT = "index_rebuilt"
NOT_SAVED = "index_not_saved"

_CHUNK_BYTES = 1 << 22
_MAX_HEADER_BYTES = 4096


class CacheUnusableError(Exception):
    """A cache file that must not be used; `reason` says why.

    `newer` is set where another process has written it for a later generation.
    """

    def __init__(self, reason: str, *, newer: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.newer = newer


@dataclass(frozen=True, slots=True)
class Stamp:
    """What an index was made from; a cache file is used only if all of it agrees."""

    gallery: str
    level: Level
    generation: int
    count: int
    dim: int


@dataclass(frozen=True, slots=True, eq=False)
class Content:
    """What a cache file holds, found whole.

    Parameters
    ----------
    made_from : its first line
    ids : (rows,) int64, the scan of each vector; None in files of earlier versions, where FAISS's
        bytes tell them
    index : (N,) uint8, FAISS's own bytes
    """

    made_from: dict[str, Any]
    ids: np.ndarray | None
    index: np.ndarray


def write_cache(path: Path, ids: np.ndarray, index: Sequence[bytes], stamp: Stamp) -> None:
    """Replace the cache file `path` atomically and durably.

    Parameters
    ----------
    ids : (rows,) int64, the scan of each vector
    index : FAISS's own bytes, in parts

    Raises
    ------
    OSError : the disk is full, or the folder cannot be written
    """
    parts = (ids.astype("<i8").tobytes(), *index)
    made_from = {**dataclasses.asdict(stamp), "rows": len(ids), "bytes": sum(map(len, parts))}
    head = json.dumps(made_from).encode() + b"\n"
    digest = hashlib.sha256(head)
    for part in parts:
        digest.update(part)
    replace_file(path, (head, digest.hexdigest().encode() + b"\n", *parts))


def saved(path: Path, write: Callable[[], None]) -> list[ScanWarning]:
    """Save a cache file by `write`; where the system refuses, the note that says so."""
    try:
        write()
    except OSError as error:
        reason = error.strerror or str(error)
        return [ScanWarning(NOT_SAVED, f"{path.name} could not be saved: {reason}")]
    return []


def read_cache(path: Path) -> Content:
    """The content of a cache file that is whole.

    Raises
    ------
    CacheUnusableError : absent, damaged, or unreadable here
    """
    try:
        with path.open("rb") as file:
            payload, made_from = _checked_payload(file)
    except FileNotFoundError as error:
        raise CacheUnusableError("absent") from error
    except OSError as error:
        raise CacheUnusableError(f"unreadable ({error.strerror or error})") from error
    if "rows" not in made_from:
        return Content(made_from, None, payload)
    count = made_from["rows"]
    if not isinstance(count, int) or not 0 <= 8 * count <= len(payload):
        raise CacheUnusableError("damaged")
    return Content(made_from, payload[: 8 * count].view("<i8"), payload[8 * count :])


def check_stamp(made_from: dict[str, Any], stamp: Stamp) -> None:
    """Refuse a cache that was not made from `stamp`.

    Raises
    ------
    CacheUnusableError : it was not
    """
    if any(made_from.get(name) != value for name, value in dataclasses.asdict(stamp).items()):
        raise CacheUnusableError("stale", newer=made_from.get("generation", 0) > stamp.generation)


def _checked_payload(file: BinaryIO) -> tuple[np.ndarray, dict[str, Any]]:
    """The bytes (N,) uint8 behind the first two lines, and the first line, after all checks."""
    head, checksum = file.readline(_MAX_HEADER_BYTES), file.readline(_MAX_HEADER_BYTES)
    values = _parsed(head)
    size = values.get("bytes")
    if not isinstance(size, int) or file.seek(0, 2) != len(head) + len(checksum) + size:
        raise CacheUnusableError("damaged")
    file.seek(len(head) + len(checksum))
    payload = np.empty(size, np.uint8)
    digest = hashlib.sha256(head)
    with ThreadPoolExecutor(1) as hashing:  # one part, while the next is read
        for start in range(0, size, _CHUNK_BYTES):
            part = payload.data[start : start + _CHUNK_BYTES]
            if file.readinto(part) != part.nbytes:  # type: ignore[attr-defined]
                raise CacheUnusableError("damaged")
            hashing.submit(digest.update, part)
    if checksum != digest.hexdigest().encode() + b"\n":
        raise CacheUnusableError("damaged")
    return payload, values


def _parsed(head: bytes) -> dict[str, Any]:
    """The JSON object of a cache file's first line."""
    try:
        values = json.loads(head)
    except ValueError as error:  # also bytes that are no UTF-8
        raise CacheUnusableError("damaged") from error
    if not isinstance(values, dict):
        raise CacheUnusableError("damaged")
    return values
