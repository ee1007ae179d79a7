"""A `Case` that was found → the `Scan` in memory; each format's module is loaded on demand."""

from __future__ import annotations

from dataclasses import replace

from medcli.errors import ScanError
from medcli.imaging.isolation.inside import NeedsWorkerError
from medcli.imaging.isolation.together import Batch
from medcli.imaging.values import is_constant
from medcli.records import Case, Scan, ScanWarning


def read_scan(case: Case) -> Scan:
    """Read the files of one scan; compressed DICOM in a worker process, all else here.

    The manifest's `patient_id` wins over the one in the tags.

    Raises
    ------
    ScanError : what is wrong with which file; its `code` is one of docs/codes.md
    """
    return read_safely(case, Batch())


def read_safely(case: Case, batch: Batch) -> Scan:
    """Read the files of one scan of a batch, as `read_scan` does.

    Raises
    ------
    ScanError : as `read_scan`
    """
    try:
        return read_here(case)
    except NeedsWorkerError:
        from medcli.imaging.isolation.pool import read_in_worker

        return read_in_worker(case, batch)


def read_here(case: Case) -> Scan:
    """Read the files of one scan in this process.

    Raises
    ------
    ScanError : as `read_scan`
    NeedsWorkerError : decoding could end the process, and it is no worker
    """
    try:
        scan = _read(case)
    except MemoryError as error:
        raise ScanError("too_large", f"{case.path}: not enough memory to read it") from error
    if not is_constant(scan.pixels):
        return scan
    warning = ScanWarning("constant", "every pixel has one value")
    return replace(scan, warnings=(*scan.warnings, warning))


def _read(case: Case) -> Scan:
    """The scan by the reader of its format."""
    if case.kind == "dicom":
        from medcli.imaging.series import read_series

        return read_series(case)
    if case.kind == "volume":
        from medcli.imaging.volume import read_volume

        return read_volume(case)
    if case.kind == "picture":
        from medcli.imaging.picture import read_pictures

        return read_pictures(case)
    from medcli.imaging.arrays import read_member

    return read_member(case)
