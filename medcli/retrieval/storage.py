"""Translated errors and the writer's lock.

Nothing here knows what a gallery holds. SQLite and the operating system report
trouble in their own words; `storage_errors` turns them into the error tree.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from medcli.errors import DamagedError, LockedError, MedcliError, StorageError
from medcli.files import SPACE_HINT
from medcli.home import for_gallery

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_POLL_SECONDS = 0.02
_PEEKED: dict[tuple[int, int], int] = {}  # descriptors by device and inode
_LOCKED = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_REFUSED = {
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_NOLFS,
    sqlite3.SQLITE_AUTH,
}
LOCK_HINT = "wait until it has finished, or wait longer with --lock-timeout"


def damage_hint(path: Path, *, mendable: bool = True) -> str:
    """The ways out of damage to the gallery at `path`, or to the one that this file lies in.

    Parameters
    ----------
    mendable : `index repair` may put it right
    """
    gallery = path if path.is_dir() else path.parent
    anew = for_gallery("medcli index build SCANS --overwrite", gallery)
    others = f"restore it from a backup, or build it anew with `{anew}`"
    mend = f"mend it with `{for_gallery('medcli index repair', gallery)}`, "
    return mend + others if mendable else others


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Translate what SQLite and the operating system raise about `path`.

    Raises
    ------
    LockedError : another process holds the database
    StorageError : disk full, no permission, input/output error
    DamagedError : the database is malformed
    """
    try:
        yield
    except (sqlite3.ProgrammingError, sqlite3.InterfaceError):
        raise  # a mistake in this code, not in the user's files
    except sqlite3.Error as error:
        raise _translated(error, path) from error
    except UnicodeDecodeError as error:  # in a message of SQLite about the damage
        raise DamagedError(
            f"{path} is damaged: a text in it is no UTF-8", damage_hint(path)
        ) from error
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror or error}", SPACE_HINT) from error


def _translated(error: sqlite3.Error, path: Path) -> MedcliError:
    """The error of our tree for SQLite's result code; without one the content is damaged."""
    primary = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
    if primary in _LOCKED:
        return LockedError(f"another process writes to {path}", LOCK_HINT)
    if primary in _REFUSED:
        return StorageError(f"{path}: {error}", SPACE_HINT)
    return DamagedError(f"{path} is damaged: {error}", damage_hint(path))


@contextlib.contextmanager
def peeking(path: Path) -> Iterator[BinaryIO]:
    """Read a file on which SQLite may hold locks in this very process.

    Its descriptor stays open until the process ends. A process that closes any descriptor of a
    file loses every POSIX lock it has there: another would think itself alone and delete the
    write-ahead log that this one still writes to.

    References
    ----------
    SQLite, How To Corrupt An SQLite Database File, 2.2
    """
    if sys.platform == "win32":  # locks go with their own handle there
        with path.open("rb") as file:
            yield file
        return
    status = path.stat()
    if (status.st_dev, status.st_ino) not in _PEEKED:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        status = os.fstat(descriptor)
        _PEEKED[status.st_dev, status.st_ino] = descriptor
    with open(_PEEKED[status.st_dev, status.st_ino], "rb", closefd=False) as file:
        file.seek(0)
        yield file


@contextlib.contextmanager
def writer_lock(path: Path, timeout: float) -> Iterator[None]:
    """Hold the lock file `path` exclusively; the system frees it when the process dies.

    Raises
    ------
    LockedError : still held by another process after `timeout` seconds
    """
    with storage_errors(path):
        file = path.open("ab")
    with file:
        deadline = time.monotonic() + timeout
        while not _try_lock(file.fileno(), path):
            if time.monotonic() >= deadline:
                raise LockedError(f"another process writes to {path.parent}", LOCK_HINT)
            time.sleep(_POLL_SECONDS)
        yield


@contextlib.contextmanager
def held_folder(folder: Path) -> Iterator[bool]:
    """Hold a folder as one in use, whatever it is renamed to; False where that is not so.

    The system frees it when the process dies. Where folders cannot be locked (Windows,
    some network file systems) nothing is held, and nobody can find it free either.
    """
    if sys.platform == "win32":
        yield False
        return
    with contextlib.ExitStack() as stack:
        held = False
        with contextlib.suppress(OSError):
            descriptor = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = True
        yield held


def _try_lock(descriptor: int, path: Path) -> bool:
    """Take the lock if it is free."""
    with storage_errors(path):
        try:
            if sys.platform == "win32":
                msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            else:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            return False
    return True
