"""Opening files: regular files only, the operating system's refusals as `ScanError`.

A path ``a.zip!/inner`` means a member of a zip archive; see `medcli.imaging.archive`.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import BinaryIO

from medcli.errors import ScanError
from medcli.imaging.isolation.inside import BYTES_PER_SECOND, ask_for_time

MEMBER = "!/"
"""What stands between the path of an archive and the name of a member."""


def open_file(path: str, *, start_only: bool = False) -> BinaryIO:
    """Open a regular file for reading; pipes and devices are refused without a wait.

    A member of an archive is inflated into memory, within bounds: whole and checked, or
    with `start_only` as far as it is read, for a header.

    Raises
    ------
    ScanError : not_found, unreadable, not_an_image (no regular file); of a member also
        what `medcli.imaging.archive.open_member` raises
    NeedsWorkerError : a large member, outside of a worker
    """
    if MEMBER in path:
        from medcli.imaging.archive import open_member, open_member_start

        member = open_member_start(path) if start_only else open_member(path)
        if member is not None:
            return member
    return open_plain(path)


def check_size(path: str, announced: int) -> None:
    """Refuse a member of an archive that is far larger than the `announced` bytes of its image.

    To be called before it is inflated whole.

    Raises
    ------
    ScanError : too_large; what `medcli.imaging.archive.members` raises
    """
    if MEMBER in path:
        from medcli.imaging.archive import check_bomb

        check_bomb(path, announced)


def open_plain(path: str, wanted: int | None = None) -> BinaryIO:
    """Open a file that is no member; `wanted` bytes of it will be read, None for all.

    Raises
    ------
    ScanError : not_found, unreadable, not_an_image (no regular file)
    """
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise ScanError("not_an_image", f"{path}: not a regular file but a pipe or a device")
        ask_for_time((status.st_size if wanted is None else wanted) / BYTES_PER_SECOND)
        return open(path, "rb")
    except OSError as error:
        raise os_failure(path, error) from error
    except ValueError as error:  # a null character
        raise os_failure(path, FileNotFoundError()) from error


def read_head(path: str, count: int) -> bytes:
    """The first `count` bytes of a file; of a member of an archive no more is inflated.

    Raises
    ------
    ScanError : as `open_file`
    """
    if MEMBER in path:
        from medcli.imaging.archive import open_member_start

        member = open_member_start(path, count)
        if member is not None:
            return member.read(count)
    with open_file(path) as file:
        try:
            return file.read(count)
        except OSError as error:
            raise os_failure(path, error) from error


def os_failure(path: str, error: OSError) -> ScanError:
    """The `ScanError` that says what the operating system answered for `path`."""
    if error.errno == errno.ELOOP:
        return ScanError("not_found", f"{path}: a link that leads in a circle", "Remove it")
    if isinstance(error, FileNotFoundError) and os.path.islink(path):
        message = f"{path}: a link to what is not there"
        hint = "Fetch it, as with git annex get or dvc pull, or remove the link"
        return ScanError("not_found", message, hint)
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return ScanError("not_found", f"{path}: no such file or folder", "Check the path")
    reason = error.strerror or "cannot be read"
    return ScanError("unreadable", f"{path}: {reason.lower()}", "Check permissions and disk")
