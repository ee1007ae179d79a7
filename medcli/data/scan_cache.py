"""Scans as training sees them, kept for the next time; keyed by what they are made from.

The key of a scan is a hash over the content of its files, in their order, the settings of
the preprocessing, the source of the reader and the versions of the decoders: another file,
setting or reader is another key, and nothing has to be compared or declared stale. A file
in the cache holds pixels and hashes; no path, no patient, no tag.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from medcli import imaging
from medcli.errors import ScanError
from medcli.imaging.hashing import file_sha256
from medcli.records import Case

LIMIT = 4 * 2**30  # bytes; the scans that were longest not asked for go first
_DECODERS = (
    *("numpy", "pillow", "pydicom", "SimpleITK", "pylibjpeg-openjpeg", "pyjpegls"),
    *("python-gdcm", "pylibjpeg-libjpeg"),
)


@dataclass(frozen=True, slots=True)
class CachedScan:
    """What the cache knows of a scan.

    Attributes
    ----------
    images : (S, C, H, W) uint8
    pixel_sha256 : of the modality values
    first_file : which file of the case holds the first slice
    """

    images: np.ndarray
    pixel_sha256: str
    first_file: int


class ScanCache:
    """A folder of scans that were read with the same settings, and of others.

    A cache that cannot be read or written costs time, never a scan: what is damaged is
    removed and read again, and the first refusal to write is told once.

    Parameters
    ----------
    settings : everything that decides what becomes of a file, as JSON
    warn : told once where the folder cannot be written
    limit : bytes that the folder may hold
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, Any],
        *,
        warn: Callable[[str], None] = lambda message: None,
        limit: int = LIMIT,
    ) -> None:
        self._folder, self._warn, self._limit = folder, warn, limit
        self._settings = json.dumps([settings, reader_version()], sort_keys=True)
        self._room = limit  # what this command may add
        self._added = False

    def key(self, case: Case) -> str | None:
        """What a scan is kept under; None where it is not worth it or its files are not there.

        Items of an array are not kept: an archive is inflated once for all of them.
        """
        if case.kind == "array":
            return None
        try:
            files = [file_sha256(path) for path in case.files]
        except ScanError:
            return None  # the reader will say why
        which = [case.kind, case.series_uid, case.time_point, case.member]
        text = json.dumps([self._settings, which, files])
        return hashlib.sha256(text.encode()).hexdigest()

    def get(self, key: str) -> CachedScan | None:
        """The scan kept under `key`, compared with its checksum; None where there is none."""
        from safetensors import SafetensorError, safe_open

        place = self._place(key)
        try:
            with safe_open(place, "np") as file:
                facts, images = file.metadata(), file.get_tensor("images")
            found = CachedScan(images, facts["pixel_sha256"], int(facts["first_file"]))
            if facts["sha256"] != _checksum(found):
                raise ValueError("checksum")
        except FileNotFoundError:
            return None
        except (OSError, SafetensorError, KeyError, TypeError, ValueError):
            with contextlib.suppress(OSError):
                place.unlink()
            return None
        with contextlib.suppress(OSError):  # a folder that may only be read
            os.utime(place)
        return found

    def put(self, key: str, scan: CachedScan) -> None:
        """Keep a scan, as far as there is room."""
        from safetensors.numpy import save

        if scan.images.nbytes > self._room:
            return
        facts = {"pixel_sha256": scan.pixel_sha256, "first_file": str(scan.first_file)}
        facts["sha256"] = _checksum(scan)
        content = save({"images": np.ascontiguousarray(scan.images)}, metadata=facts)
        place = self._place(key)
        draft = place.with_name(f".{secrets.token_hex(8)}.tmp")
        try:
            if not place.parent.is_dir():
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                place.parent.mkdir(exist_ok=True)
            draft.write_bytes(content)  # a power cut may spoil it: its checksum tells
            draft.replace(place)
        except OSError as error:
            with contextlib.suppress(OSError):
                draft.unlink()
            self._room = -1
            self._warn(
                f"what was read is not kept for the next time: {error.strerror} ({self._folder})"
            )
            return
        self._room -= len(content)
        self._added = True

    def trim(self) -> None:
        """Remove what was longest not asked for, where the folder holds more than its limit."""
        if not self._added:
            return
        files = []
        for place in self._folder.glob("*/*"):
            with contextlib.suppress(OSError):  # another process may have removed it
                status = place.stat()
                files.append((status.st_mtime, status.st_size, place))
        total = sum(size for _, size, _ in files)
        for _, size, place in sorted(files):
            if total <= self._limit:
                break
            with contextlib.suppress(OSError):
                place.unlink()
            total -= size

    def _place(self, key: str) -> Path:
        return self._folder / key[:2] / f"{key}.safetensors"


@cache
def reader_version() -> str:
    """A hash over the source of `medcli.imaging` and the versions of the decoders."""
    digest = hashlib.sha256()
    for folder in imaging.__path__:
        for source in sorted(Path(folder).rglob("*.py")):
            digest.update(source.read_bytes())
    for name in _DECODERS:
        try:
            digest.update(f"{name} {version(name)}\n".encode())
        except PackageNotFoundError:
            digest.update(f"{name} absent\n".encode())
    return digest.hexdigest()


def _checksum(scan: CachedScan) -> str:
    shape = ",".join(map(str, scan.images.shape))
    digest = hashlib.sha256(f"{shape} {scan.pixel_sha256} {scan.first_file} ".encode())
    digest.update(np.ascontiguousarray(scan.images).data)
    return digest.hexdigest()
