"""Another model for a gallery: a copy is embedded anew beside it, then takes its place."""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medcli.errors import UsageError
from medcli.files import new_folder
from medcli.home import for_gallery
from medcli.retrieval.catalogue import Catalogue
from medcli.retrieval.choice import SETTING
from medcli.retrieval.folder import copy_files, is_gallery, sweep_drafts
from medcli.retrieval.gallery import Gallery
from medcli.retrieval.likeness import nearest_rows
from medcli.retrieval.names import CATALOGUE, KEY, LOCK, MODEL
from medcli.retrieval.rows import VectorRow
from medcli.retrieval.schema import FORMAT_VERSION, format_of
from medcli.retrieval.sources import revector
from medcli.retrieval.storage import held_folder, storage_errors, writer_lock
from medcli.retrieval.upkeep import recount, vacuum


@contextlib.contextmanager
def migration(
    path: Path, model_dir: Path, fingerprint: str, dim: int, *, lock_timeout: float
) -> Iterator[tuple[Gallery, Gallery]]:
    """The gallery at `path` and a copy of it, to be given the vectors of another model.

    When the block ends well the copy takes the place of the gallery, at once; else it goes.
    Ids, labels, patients, thumbnails and sources are those of the old one. Readers of that go
    on; other writers wait from the beginning, as what they wrote would be lost.

    Parameters
    ----------
    model_dir, fingerprint, dim : of the new model

    Raises
    ------
    UsageError : it has the vectors of this model already
    LockedError, StorageError, DamagedError : as `Gallery.open`
    """
    path = path.resolve()
    with Gallery.open(path, write=True) as old:  # says what is wrong before the lock is asked for
        if old.fingerprint == fingerprint:
            raise UsageError(
                f"{path} was built with model {fingerprint}: there is nothing to migrate",
                "name another model, or look at the gallery with: "
                + for_gallery("medcli index info", path),
            )
    with contextlib.ExitStack() as until_in_place:
        until_in_place.enter_context(writer_lock(path / LOCK, lock_timeout))
        sweep_drafts(path)
        draft = until_in_place.enter_context(
            new_folder(path, overwrite=True, replaceable=is_gallery)
        )
        until_in_place.enter_context(held_folder(draft))
        # Both are closed before the folders change places: SQLite tidies up by name.
        with Gallery.open(path) as old:
            with storage_errors(path):
                _copy(old, draft, model_dir, fingerprint, dim)
            with Gallery.open(draft, write=True) as new:
                yield old, new
                recount(new)
                vacuum(new)
                new.rebuild()


def _copy(old: Gallery, draft: Path, model_dir: Path, fingerprint: str, dim: int) -> None:
    """Copy the catalogue and the key into `draft`, with the model that it will belong to."""
    if format_of(old.catalogue.connection) < FORMAT_VERSION:
        raise UsageError(
            f"{old.path} is of an older format, which does not know its files",
            "bring it up to date with: " + for_gallery("medcli index update", old.path),
        )
    old.patient_hash("any")  # a damaged key is told now
    copy_files(model_dir, draft / MODEL)
    descriptor = os.open(draft / KEY, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write((old.path / KEY).read_bytes())
    with contextlib.closing(sqlite3.connect(draft / CATALOGUE)) as target:
        old.catalogue.connection.backup(target)
    catalogue = Catalogue.open(draft / CATALOGUE, write=True, writable=True)
    with contextlib.closing(catalogue), catalogue.writing():
        settings: dict[str, str | int] = {
            "fingerprint": fingerprint,
            "dim": dim,
            "uuid": secrets.token_hex(16),
        }
        for name, value in settings.items():
            catalogue.set_meta(name, value)
        catalogue.set_index(SETTING, None)  # what was measured is no longer so
        catalogue.connection.execute("DELETE FROM canaries")


def embed_anew(new: Gallery, scans: Sequence[tuple[int, Sequence[VectorRow]]]) -> None:
    """Give scans, by their ids, other vectors in one transaction; all else of them stays."""
    with new.writing():
        for scan, vectors in scans:
            revector(new.catalogue, scan, vectors)


@dataclass(frozen=True, slots=True)
class Overlap:
    """How far two models agree on who is near; null where too few scans are left.

    Parameters
    ----------
    k, queries : `k` nearest scans of each of so many scans
    overlap : mean share of them that is the same under both
    same_label : share of neighbours with the query's label, under the old and the new one
    """

    k: int
    queries: int
    overlap: float | None
    same_label: tuple[float | None, float | None]


def measure_overlap(
    old: Gallery, new: Gallery, *, k: int = 10, sample: int = 200, seed: int = 0
) -> Overlap:
    """Compare the nearest whole scans under both models, for `sample` scans drawn by `seed`.

    Only scans that are in both take part; a scan is not its own neighbour.
    """
    ids, vectors, labels = _whole_vectors(new)
    old_ids, old_vectors, _ = _whole_vectors(old)
    in_both = np.isin(old_ids, ids)
    k = min(k, len(ids) - 1)
    rows = np.random.default_rng(seed).permutation(len(ids))[:sample]
    if k < 1:
        return Overlap(max(k, 0), 0, None, (None, None))
    before = nearest_rows(old_vectors[in_both], rows, k)
    after = nearest_rows(vectors, rows, k)
    same = [len(set(a) & set(b)) / k for a, b in zip(before.tolist(), after.tolist(), strict=True)]
    shares = tuple(_same_label(labels, rows, near) for near in (before, after))
    return Overlap(k, len(rows), float(np.mean(same)), (shares[0], shares[1]))


def _whole_vectors(gallery: Gallery) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ids (N,), vectors of whole scans (N, D) and labels (N,), by id."""
    ids, rows, labels = [], [], []
    with gallery.snapshot():
        for scan in gallery.catalogue.stored():
            ids.append(scan.id)
            rows.append(scan.vectors[scan.slice_numbers < 0][0].copy())
            labels.append(scan.row.label)
    return np.array(ids), np.array(rows).reshape(len(ids), -1), np.array(labels, dtype=object)


def _same_label(labels: np.ndarray, rows: np.ndarray, nearest: np.ndarray) -> float | None:
    """The share of (M, k) `nearest` with the label of their row; those without one do not count."""
    own = np.repeat(labels[rows], nearest.shape[1])
    near = labels[nearest.ravel()]
    known = np.array([a is not None and b is not None for a, b in zip(own, near, strict=True)])
    return float((own[known] == near[known]).mean()) if known.any() else None
