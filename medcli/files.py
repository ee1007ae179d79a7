"""Folders and files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from medcli.errors import OutputExistsError, StorageError


@contextlib.contextmanager
def new_folder(target: Path, *, overwrite: bool, replaceable: bool) -> Iterator[Path]:
    """A folder to write into that takes the place of `target` when the block ends well.

    Parameters
    ----------
    overwrite : replace what is there
    replaceable : whether what is there is something that this program wrote; anything
        else is never replaced

    Raises
    ------
    OutputExistsError : `target` exists and may not be replaced
    StorageError : the operating system refused; nothing half-made is left
    """
    check_target(target, overwrite=overwrite, replaceable=replaceable)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise StorageError(f"cannot write to {target.parent}: {error.strerror}") from error
    try:
        draft.chmod(0o777 & ~_umask())
        yield draft
        _swap(draft, target)
    except OSError as error:
        raise StorageError(f"cannot write {target}: {error.strerror}") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def check_target(target: Path, *, overwrite: bool, replaceable: bool) -> None:
    """Raise where `target` must not be written; call it before the long work."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not overwrite:
        raise OutputExistsError(f"{target} exists", "Give another -o, or --overwrite to replace it")
    if not replaceable:
        raise OutputExistsError(
            f"{target} exists and was not written by medcli", "Give another -o; it is left alone"
        )


def check_file(path: Path, *, overwrite: bool) -> None:
    """Raise where the file `path` must not be written; call it before the long work."""
    if path.is_dir():
        raise OutputExistsError(f"{path} is a folder", "Give the name of a file")
    if path.exists() and not overwrite:
        raise OutputExistsError(f"{path} exists", "Give another name, or --overwrite")


def write_file(path: Path, content: bytes) -> None:
    """Write a file beside its place and put it there.

    Raises
    ------
    StorageError : the operating system refused; what was there stays
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, draft = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            os.chmod(draft, 0o666 & ~_umask())
            os.replace(draft, path)
        except BaseException:
            os.unlink(draft)
            raise
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}") from error


def _swap(draft: Path, target: Path) -> None:
    """Put `draft` in the place of `target`, whose old content goes last."""
    if not target.exists():
        os.replace(draft, target)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent))
    os.replace(target, old / "content")
    os.replace(draft, target)
    shutil.rmtree(old)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
