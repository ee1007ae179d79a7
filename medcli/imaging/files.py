"""Opening files: regular files only, the operating system's refusals as `ScanError`."""

from __future__ import annotations

import os
import stat
from typing import BinaryIO

from medcli.errors import ScanError
from medcli.imaging.isolation.inside import BYTES_PER_SECOND, ask_for_time


def open_file(path: str) -> BinaryIO:
    """Open a regular file for reading; pipes and devices are refused without a wait.

    Raises
    ------
    ScanError : not_found, unreadable, not_an_image (no regular file)
    """
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise ScanError("not_an_image", f"{path}: not a regular file")
        ask_for_time(status.st_size / BYTES_PER_SECOND)
        return open(path, "rb")
    except OSError as error:
        raise os_failure(path, error) from error
    except ValueError as error:  # a null character
        raise os_failure(path, FileNotFoundError()) from error


def os_failure(path: str, error: OSError) -> ScanError:
    """The `ScanError` that says what the operating system answered for `path`."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return ScanError("not_found", f"{path}: no such file or folder", "Check the path")
    reason = error.strerror or "cannot be read"
    return ScanError("unreadable", f"{path}: {reason.lower()}", "Check permissions and disk")
