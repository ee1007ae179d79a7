"""The folder of a gallery: what lies in it, how it is made and replaced."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from medcli.errors import DamagedError, OutputExistsError, StorageError, UsageError
from medcli.files import check_parent, new_folder
from medcli.home import for_gallery
from medcli.retrieval.catalogue import Catalogue
from medcli.retrieval.media import file_system, medium
from medcli.retrieval.names import CALIBRATION, CATALOGUE, KEY, LABELS, LOCK, MODEL
from medcli.retrieval.storage import damage_hint, held_folder, storage_errors, writer_lock

_OURS = {
    *(CATALOGUE, *(f"{CATALOGUE}-{suffix}" for suffix in ("wal", "shm", "journal"))),
    *(KEY, MODEL, LOCK, CALIBRATION, LABELS),
}
_CACHE_SUFFIXES = {".faiss", ".tmp"}
KEY_CHECK = b"medcli patient key"
_HASH_DIGITS = 16
_ABANDONED_SECONDS = 3600.0
_DRAFT = re.compile(r"\.[0-9a-f]{16}\.draft")


def keyed_hash(key: bytes, message: bytes) -> str:
    """HMAC-SHA256, the first 16 hex digits."""
    return hmac.new(key, message, hashlib.sha256).hexdigest()[:_HASH_DIGITS]


@contextlib.contextmanager
def new_gallery_folder(
    path: Path,
    model_dir: Path,
    settings: Mapping[str, str | int],
    *,
    overwrite: bool,
    lock_timeout: float,
) -> Iterator[Path]:
    """An empty gallery beside `path` that takes its place when the block ends well.

    A gallery that stands there answers until then. See `Gallery.build`.
    """
    check_target(path, overwrite=overwrite)
    _check_model(model_dir, path)
    old = path.is_dir() and any(path.iterdir())
    lock = writer_lock(path / LOCK, lock_timeout) if old else None
    sweep_drafts(path)
    with (
        contextlib.ExitStack() as until_in_place,
        new_folder(path, overwrite=overwrite, replaceable=is_gallery, while_swapping=lock) as draft,
    ):
        until_in_place.enter_context(held_folder(draft))
        with storage_errors(path):
            _fill(draft, model_dir, settings)
        yield draft


def is_writable(folder: Path) -> bool:
    """Whether files can be made in `folder`, and locks of other machines are seen there."""
    return os.access(folder, os.W_OK | os.X_OK) and medium(folder) != "without locks"


def check_medium(folder: Path) -> None:
    """Refuse to write where a lock does not hold.

    Raises
    ------
    StorageError : the file system has none
    """
    if medium(folder) == "without locks":
        raise StorageError(
            f"{folder} lies on {file_system(folder)}, where no lock holds between machines: "
            "a gallery can be read there, but not written",
            "build it on a local disk, or on NFS or SMB, and copy it there",
        )


def file_identity(file: Path) -> tuple[int, int]:
    """Which file a path names, whatever it is called."""
    with storage_errors(file):
        status = file.stat()
    return status.st_dev, status.st_ino


def check_present(path: Path, file: Path) -> None:
    """Tell a missing gallery from a damaged one."""
    if file.is_file():
        return
    if (path / KEY).exists():
        raise DamagedError(f"{path} has lost {file.name}", damage_hint(path, mendable=False))
    what = "is no gallery" if path.exists() else "does not exist"
    raise UsageError(f"{path} {what}", "build it with: " + for_gallery("medcli index build", path))


def check_target(path: Path, *, overwrite: bool) -> None:
    """Allow a new gallery only where one can be made and nothing but a gallery is lost."""
    check_parent(path)
    check_medium(path)
    if not path.exists():
        return
    if path.is_dir() and not any(path.iterdir()):
        return
    if not is_gallery(path):
        foreign = ", ".join(_foreign(path)[:3])
        raise OutputExistsError(
            f"{path} exists and holds other files ({foreign})",
            "name another place with -g",
        )
    if not overwrite:
        raise OutputExistsError(
            f"{path} is a gallery already",
            f"use {for_gallery('medcli index add', path)} or "
            f"{for_gallery('medcli index update', path)}, or replace it with --overwrite",
        )


def is_gallery(path: Path) -> bool:
    """Whether `path` holds a gallery, damaged or not, and nothing else."""
    ours = any((path / name).exists() for name in (CATALOGUE, KEY))
    return ours and not _foreign(path)


def _foreign(path: Path) -> list[str]:
    """The names at `path` that are none of a gallery's."""
    names = {item.name for item in path.iterdir()} if path.is_dir() else {path.name}
    return sorted(name for name in names - _OURS if Path(name).suffix not in _CACHE_SUFFIXES)


def _check_model(model_dir: Path, path: Path) -> None:
    """A gallery takes a copy of its model, so neither may lie inside what is copied."""
    if not model_dir.is_dir():
        raise UsageError(f"{model_dir} is no model package", "name one with --model")
    if path.is_relative_to(model_dir.resolve()):
        raise UsageError(f"{path} lies inside its model {model_dir}", "name another place with -g")


def _fill(folder: Path, model_dir: Path, settings: Mapping[str, str | int]) -> None:
    """Write a new, empty gallery into `folder`."""
    from importlib.metadata import version

    copy_files(model_dir, folder / MODEL)
    key = secrets.token_bytes(32)
    descriptor = os.open(folder / KEY, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(key)
    meta = {
        **settings,
        "uuid": secrets.token_hex(16),
        "key_check": keyed_hash(key, KEY_CHECK),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "medcli_version": version("medcli"),
    }
    Catalogue.create(folder / CATALOGUE, meta)


def copy_files(source: Path, target: Path) -> None:
    """Copy a package, which is flat, file by file: the first error is the one to tell."""
    target.mkdir()
    for file in sorted(source.iterdir()):
        if file.is_file():
            shutil.copyfile(file, target / file.name)


def sweep(folder: Path, *, at_once: bool = False) -> None:
    """Remove temporary files that a killed process has left; young ones only `at_once`."""
    for file in folder.glob("*.tmp"):
        with contextlib.suppress(FileNotFoundError):  # it has taken its place meanwhile
            if at_once or time.time() - file.stat().st_mtime > _ABANDONED_SECONDS:
                file.unlink()


def sweep_drafts(path: Path) -> int:
    """Remove what killed builds have left beside the gallery at `path`; return how many.

    A draft in which a process works is held by it, and stays.
    """
    removed = 0
    with storage_errors(path):
        for draft in sorted(path.parent.glob(".*.draft")) if path.parent.is_dir() else ():
            names = {item.name for item in draft.iterdir()} if draft.is_dir() else set()
            if not names or _foreign(draft) or not _DRAFT.fullmatch(draft.name):
                continue
            with held_folder(draft) as held:
                if held:
                    shutil.rmtree(draft)
                    removed += 1
    return removed


def folder_bytes(folder: Path) -> int:
    """The size of all files under `folder`; SQLite's log may vanish while they are counted."""
    total = 0
    with storage_errors(folder):
        for file in folder.rglob("*"):
            with contextlib.suppress(FileNotFoundError):
                total += file.stat().st_size if file.is_file() else 0
    return total
