"""What is there to know of a scan that was read, without its pixels."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from medcli.errors import ScanError
from medcli.imaging.batch import read_all
from medcli.imaging.files import open_file
from medcli.imaging.hashing import file_sha256, files_sha256, pixel_sha256
from medcli.records import Case, Failure, Scan, ScanWarning


@dataclass(frozen=True, slots=True)
class Intensity:
    """Smallest and largest value of a scan; `unit` as in `medcli.records.Scan`."""

    min: float
    max: float
    unit: Literal["HU", "display", "stored"]


@dataclass(frozen=True, slots=True)
class Inspection:
    """The fields of `medcli inspect --json`.

    Attributes
    ----------
    shape : slices, rows, columns, channels (1 for grey)
    spacing_mm : (z, y, x), each None where unknown
    sha256 : of the file; of several that of their sorted digests
    pixel_sha256 : of the values, the same whatever file format holds them
    """

    path: str
    scan_id: str
    files: tuple[str, ...]
    format: str
    modality: str | None
    shape: tuple[int, int, int, int]
    spacing_mm: tuple[float | None, float | None, float | None]
    intensity: Intensity
    photometric: str | None
    transfer_syntax: str | None
    decoder: str | None
    sha256: str
    pixel_sha256: str
    warnings: tuple[ScanWarning, ...] = ()
    status: Literal["ok"] = "ok"


def inspect_scan(scan: Scan) -> Inspection:
    """Geometry, intensities, origin and digests of a scan.

    Raises
    ------
    ScanError : a file of the scan can no longer be read
    """
    slices, rows, columns, channels = scan.pixels.shape
    return Inspection(
        path=scan.path,
        scan_id=scan.scan_id,
        files=scan.files,
        format=scan.format,
        modality=scan.modality,
        shape=(slices, rows, columns, channels),
        spacing_mm=scan.spacing_mm,
        intensity=Intensity(float(scan.pixels.min()), float(scan.pixels.max()), scan.unit),
        photometric=scan.photometric,
        transfer_syntax=scan.transfer_syntax,
        decoder=scan.decoder,
        sha256=_digest(scan),
        pixel_sha256=pixel_sha256(scan),
        warnings=scan.warnings,
    )


def inspect_all(
    cases: Iterable[Case | Failure],
) -> Iterator[tuple[Scan | Failure, Inspection | Failure]]:
    """Each scan with what there is to know of it, in order; a bad one comes as its failure."""
    for case, scan in read_all(cases):
        if isinstance(scan, Failure):
            yield scan, scan
            continue
        assert isinstance(case, Case)
        try:
            yield scan, inspect_scan(scan)
        except ScanError as error:  # the file changed since it was read
            failure = Failure(case.path, error.code, str(error), "failed", case.files, case.scan_id)
            yield failure, failure


def _digest(scan: Scan) -> str:
    """SHA-256 of the files of a scan; an archive is read once for all its pictures."""
    if scan.format != "npz":
        return files_sha256(scan.files)
    path = scan.files[0]
    with open_file(path) as file:
        status = os.fstat(file.fileno())
    return _archive_digest(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=1)
def _archive_digest(path: str, modified: int, size: int) -> str:
    """SHA-256 of one version of an archive."""
    return file_sha256(path)
