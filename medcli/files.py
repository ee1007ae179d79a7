"""Folders and files that appear whole or not at all, and stay after a power cut."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from medcli.errors import OutputExistsError, StorageError, UsageError

SPACE_HINT = "Check the free space and the permissions of the folder, then run the command again"
ON_STDOUT = "data on stdout come with --json"
_HERE, _SWAP = -100, 2  # AT_FDCWD; RENAME_EXCHANGE and RENAME_SWAP
_TAKEN = {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR}  # what a rename says of a taken name


@contextlib.contextmanager
def new_folder(
    target: Path,
    *,
    overwrite: bool,
    replaceable: Callable[[Path], bool],
    while_swapping: AbstractContextManager[object] | None = None,
) -> Iterator[Path]:
    """A folder to write into that takes the place of `target` when the block ends well.

    Everything in it is on disk before it gets its name. What `target` held goes last,
    and comes back if the new folder cannot take its place. Only what `target` held when
    the block began is replaced: what has appeared there meanwhile stays.

    Parameters
    ----------
    overwrite : replace what is there
    replaceable : whether a folder is one that this program wrote; anything else is never
        replaced. Asked again when the folders change places
    while_swapping : held while the folders change places

    Raises
    ------
    OutputExistsError : `target` exists and may not be replaced, or has appeared meanwhile
    StorageError : the operating system refused; nothing half-made is left
    """
    check_target(target, overwrite=overwrite, replaceable=replaceable)
    place = target.resolve()
    before = _identity(place) if _is_taken(place) else None
    draft = place.with_name(f".{secrets.token_hex(8)}.draft")
    try:
        draft.mkdir(parents=True)
        yield draft
        sync_tree(draft)
        with while_swapping or nullcontext():
            _swap(draft, place, before, replaceable)
    except OSError as error:
        raise _refused(target, error) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def check_target(target: Path, *, overwrite: bool, replaceable: Callable[[Path], bool]) -> None:
    """Raise where the folder `target` must not or cannot be written, before the long work.

    Raises
    ------
    OutputExistsError, StorageError : as `new_folder` would
    """
    check_parent(target)
    if not _is_taken(target):
        return
    if not overwrite:
        raise OutputExistsError(f"{target} exists", "Give another -o, or --overwrite to replace it")
    if not replaceable(target):
        raise OutputExistsError(
            f"{target} exists and holds files that medcli did not write",
            "Give another -o; it is left alone",
        )


def check_file(path: Path, *, overwrite: bool) -> None:
    """Raise where the file `path` must not or cannot be written, before the long work.

    Raises
    ------
    OutputExistsError : it exists and may not be replaced
    UsageError : ``-``, which other programs take for stdout; a folder that does not exist
    UsageError, StorageError : as `write_file` would
    """
    if str(path) == "-":
        raise UsageError("- is not the name of a file", f"Name one; {ON_STDOUT}")
    place = _destination(path)
    check_parent(place)
    if not place.parent.exists():
        raise UsageError(
            f"cannot write {path}: there is no folder {place.parent}",
            "Make the folder first, or name another place",
        )
    if path.exists() and not overwrite:
        raise OutputExistsError(f"{path} exists", "Give another name, or --overwrite to replace it")


def check_parent(path: Path) -> None:
    """Raise where nothing can be made at `path`.

    Raises
    ------
    StorageError : the nearest folder above it that exists is none, or cannot be written
    """
    nearest = next(folder for folder in path.absolute().parents if os.path.lexists(folder))
    if not nearest.is_dir():
        raise StorageError(f"cannot write {path}: {nearest} is no folder", "Name another place")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise StorageError(f"cannot write {path}: no permission in {nearest}", "Name another place")


def write_file(path: Path, content: bytes) -> None:
    """Write a file beside its place and put it there.

    A symbolic link stays, and the file that it points to is written.

    Raises
    ------
    OutputExistsError, UsageError : a folder, or a device, a pipe or the like, stands there
    StorageError : the operating system refused; what was there stays
    """
    place = _destination(path)
    try:
        replace_file(place, [content])
    except OSError as error:
        raise _refused(path, error) from error


def replace_file(path: Path, parts: Iterable[bytes | memoryview]) -> None:
    """Write `parts` to `path` so that a crash leaves the old file or the new one, whole.

    Whatever has that name is replaced, be it a link or a device: see `write_file`.

    Raises
    ------
    OSError : as the system reports it; the temporary file is gone and `path` untouched
    """
    draft = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        with draft.open("xb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable; Windows has no such call and needs none."""
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Make every file and name under `folder` durable."""
    if sys.platform == "win32":
        return
    for parent, _, names in os.walk(folder):
        for name in names:
            with (Path(parent) / name).open("rb") as file:
                os.fsync(file.fileno())
        sync_folder(Path(parent))


def _destination(path: Path) -> Path:
    """The file that `path` names, through symbolic links; it need not exist.

    Raises
    ------
    OutputExistsError, UsageError : what stands there is no regular file
    """
    place = Path(os.path.realpath(path))
    if place.is_dir():
        raise OutputExistsError(f"{path} is a folder", "Give the name of a file")
    if os.path.lexists(place) and not place.is_file():
        raise UsageError(
            f"{path} is no regular file but a device, a pipe or the like",
            f"Give the name of a file; {ON_STDOUT}",
        )
    return place


def _is_taken(place: Path) -> bool:
    """Whether anything but an empty folder stands at `place`."""
    return place.exists() and not (place.is_dir() and not any(place.iterdir()))


def _identity(place: Path) -> tuple[int, int]:
    """Which folder this is, whatever it is called."""
    status = place.stat()
    return status.st_dev, status.st_ino


def _swap(
    draft: Path,
    place: Path,
    before: tuple[int, int] | None,
    replaceable: Callable[[Path], bool],
) -> None:
    """Put `draft` in its place; what stood there `before` is moved aside and removed last."""
    if before is None or not place.exists():
        _take(draft, place)
        sync_folder(place.parent)
        return
    if exchange(draft, place):
        if _identity(draft) != before or not replaceable(draft):
            exchange(draft, place)
            raise _appeared(place)
        sync_folder(place.parent)
        return  # what stood there goes with the draft's name
    aside = draft.with_suffix(".replaced")
    place.rename(aside)
    try:
        if _identity(aside) != before or not replaceable(aside):
            raise _appeared(place)
        _take(draft, place)
    except BaseException:
        aside.rename(place)
        raise
    sync_folder(place.parent)
    shutil.rmtree(aside)


def exchange(one: Path, other: Path) -> bool:
    """Let two folders change names at once; False where the system cannot.

    With two renames in its place, a process killed between them would leave neither.

    References
    ----------
    renameat2(2), RENAME_EXCHANGE; rename(2) of macOS, RENAME_SWAP
    """
    import ctypes

    if sys.platform == "win32":
        return False
    library: Any = ctypes.CDLL(None)
    names = os.fsencode(one), os.fsencode(other)
    if hasattr(library, "renameat2"):
        return bool(library.renameat2(_HERE, names[0], _HERE, names[1], _SWAP) == 0)
    if hasattr(library, "renamex_np"):
        return bool(library.renamex_np(*names, _SWAP) == 0)
    return False


def _take(draft: Path, place: Path) -> None:
    """Give `draft` its name. Where that is taken the system refuses: no look ahead is as sure."""
    try:
        if sys.platform == "win32" and place.is_dir():
            place.rmdir()  # elsewhere a folder takes the place of an empty one
        draft.rename(place)
    except OSError as error:
        if error.errno in _TAKEN:
            raise _appeared(place) from error
        raise


def _appeared(place: Path) -> OutputExistsError:
    return OutputExistsError(
        f"{place} was written by another program meanwhile; that is kept",
        "Name another place, or look at what is there before you --overwrite it",
    )


def _refused(path: Path, error: OSError) -> StorageError:
    return StorageError(f"cannot write {path}: {error.strerror or error}", SPACE_HINT)
