"""A `Case` that was found → the `Scan` in memory; each format's module is loaded on demand."""

from __future__ import annotations

from medcli.errors import ScanError
from medcli.records import Case, Scan


def read_scan(case: Case) -> Scan:
    """Read the files of one scan.

    The manifest's `patient_id` wins over the one in the tags.

    Raises
    ------
    ScanError : what is wrong with which file; its `code` is one of docs/codes.md
    """
    try:
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
    except MemoryError as error:
        raise ScanError("too_large", f"{case.path}: not enough memory to read it") from error
