"""A gallery: a folder in which scans are stored and found again.

::

    gallery/
    ├── catalogue.sqlite   the truth: scans, vectors, slices, thumbnails
    ├── scan.faiss         caches, rebuilt from the catalogue whenever they are
    ├── slice.faiss          absent, damaged or of another generation
    ├── labels.numbers       (which scans have the same label)
    ├── calibration.json     (what scores are usual: see `calibration`)
    ├── model/             a copy of the model package the vectors were made with
    ├── patient.key        secret of the patient hashes, readable by the owner only
    └── writer.lock        held while a batch is written

One process writes at a time; readers are never blocked and see one generation.
The folder holds no path to itself and can be moved.
"""

from __future__ import annotations

import contextlib
import hmac
import itertools
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from medcli.errors import (
    DamagedError,
    MismatchError,
    ScanError,
    StorageError,
    UsageError,
)
from medcli.files import SPACE_HINT
from medcli.home import for_gallery
from medcli.records import Failure, GalleryEntry, ScanWarning
from medcli.retrieval.caches import Caches
from medcli.retrieval.catalogue import Catalogue
from medcli.retrieval.columns import Column
from medcli.retrieval.entries import AddReport, EntryRows, entry_rows, store
from medcli.retrieval.folder import (
    KEY_CHECK,
    check_medium,
    check_present,
    file_identity,
    folder_bytes,
    is_writable,
    keyed_hash,
    new_gallery_folder,
    sweep,
)
from medcli.retrieval.names import CALIBRATION, CATALOGUE, KEY, LOCK, MODEL
from medcli.retrieval.rows import State, StoredScan
from medcli.retrieval.storage import damage_hint, storage_errors, writer_lock
from medcli.retrieval.studies import study_marks
from medcli.retrieval.where import column_of


class Gallery:
    """Scans with vectors, labels and thumbnails in a folder; use as a context manager.

    Attributes
    ----------
    path : the folder
    fingerprint : of the model all vectors were made with
    dim : D, the length of a vector
    catalogue : the rows, to be read inside `snapshot`
    calibrated : what `medcli.retrieval.calibration` has read, by generation
    caches : the search indexes over them
    """

    def __init__(self, path: Path, catalogue: Catalogue, *, write: bool, lock_timeout: float):
        self.path = path
        self.catalogue = catalogue
        self._write = write
        self._lock_timeout = lock_timeout
        self._writable = is_writable(path)
        self._file = file_identity(catalogue.path)
        self._key: bytes | None = None
        self.calibrated: dict[int, Mapping[str, Sequence[float]]] = {}
        self._columns: tuple[int, dict[str, Column]] = (-1, {})  # of one generation
        with catalogue.reading():
            meta = catalogue.meta()
        try:
            self.fingerprint = str(meta["fingerprint"])
            self.dim = int(meta["dim"])
            self.created = str(meta["created"])
            self.engine: dict[str, Any] = json.loads(meta["engine"])
            self._uuid = str(meta["uuid"])
            self._key_check = str(meta["key_check"])
        except (KeyError, ValueError, TypeError) as error:
            raise catalogue.damaged("its settings are lost") from error
        self.caches = Caches(path, catalogue, self._uuid, self.dim, save=self._writable)

    @classmethod
    @contextlib.contextmanager
    def build(
        cls,
        path: Path,
        *,
        model_dir: Path,
        fingerprint: str,
        dim: int,
        engine: Mapping[str, Any] | None = None,
        root: str | None = None,
        overwrite: bool = False,
        lock_timeout: float = 60.0,
    ) -> Iterator[Self]:
        """A new gallery to fill, which takes its place at `path` when the block ends well.

        Until then it lies beside its place, and what stands there goes on answering;
        an error or an interruption leaves nothing new. Only a gallery or an empty
        folder is ever replaced, never a folder of other files.

        Parameters
        ----------
        model_dir : the model package to copy into the gallery
        fingerprint, dim : of that model
        engine : settings of the engine that every later `add` and `search` repeats
        root : absolute; paths below it are stored from there, so that it can be moved

        Raises
        ------
        OutputExistsError : `path` exists (with `overwrite`: and is no gallery)
        UsageError : `model_dir` is no folder
        StorageError : the disk is full, or the folder cannot be written
        LockedError : the gallery to be replaced is being written
        """
        settings: dict[str, str | int] = {
            "fingerprint": fingerprint,
            "dim": dim,
            "engine": json.dumps(dict(engine or {})),
            "root": root or "",
        }
        with (
            new_gallery_folder(
                path.resolve(), model_dir, settings, overwrite=overwrite, lock_timeout=lock_timeout
            ) as draft,
            cls.open(draft, write=True) as gallery,
        ):
            yield gallery

    @classmethod
    def open(cls, path: Path, *, write: bool = False, lock_timeout: float = 60.0) -> Self:
        """Open the gallery at `path`; a read-only folder is fine for reading.

        Parameters
        ----------
        lock_timeout : seconds a write waits for another process

        Raises
        ------
        UsageError : there is no gallery, or a newer medcli wrote it
        DamagedError : its catalogue is damaged
        StorageError : it cannot be read, or not be written with `write`
        """
        path = path.resolve()
        file = path / CATALOGUE
        check_present(path, file)
        writable = is_writable(path) and os.access(file, os.W_OK)
        if write:
            check_medium(path)
        if write and not writable:
            raise StorageError(f"{path} cannot be written", SPACE_HINT)
        try:
            return cls._opened(path, file, write, writable, lock_timeout)
        except DamagedError as error:  # `index repair` cannot open it either
            raise DamagedError(error.message, damage_hint(path, mendable=False)) from error

    @classmethod
    def _opened(
        cls, path: Path, file: Path, write: bool, writable: bool, lock_timeout: float
    ) -> Self:
        catalogue = Catalogue.open(file, write=write, writable=writable)
        try:
            return cls(path, catalogue, write=write, lock_timeout=lock_timeout)
        except BaseException:
            catalogue.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the catalogue and forget the loaded indexes."""
        self.caches.clear()
        self.catalogue.close()

    @property
    def model_dir(self) -> Path:
        """The gallery's own copy of its model package."""
        return self.path / MODEL

    @property
    def uuid(self) -> str:
        """What this gallery is told from all others by, wherever it lies."""
        return self._uuid

    @property
    def writable(self) -> bool:
        """Whether caches can be saved."""
        return self._writable

    def check_fingerprint(self, fingerprint: str) -> None:
        """Refuse a model that is not the gallery's.

        Raises
        ------
        MismatchError : the fingerprints differ
        """
        if fingerprint != self.fingerprint:
            raise MismatchError(
                f"{self.path} was built with model {self.fingerprint}, not with {fingerprint}",
                "leave out --model to use the gallery's own copy, or embed the gallery anew: "
                + for_gallery("medcli index migrate MODEL", self.path),
            )

    def patient_hash(self, patient_id: str | None) -> str | None:
        """The patient as this gallery writes it: HMAC-SHA256, 16 hex digits.

        A missing or blank id is an unknown patient: None.

        Raises
        ------
        DamagedError : the key is lost or not the one the stored hashes were made with
        """
        if patient_id is None or not patient_id.strip():
            return None
        if self._key is None:
            self._key = self._read_key()
        return keyed_hash(self._key, patient_id.strip().encode())

    def study_marks(
        self, patient_id: str | None, study_uid: str | None, study_date: str | None
    ) -> dict[str, str]:
        """What the gallery keeps of a study; see `medcli.retrieval.studies.study_marks`.

        Raises
        ------
        DamagedError : as `patient_hash`
        """
        if study_uid is None and (patient_id is None or study_date is None):
            return {}  # who asks for nothing needs no key
        if self._key is None:
            self._key = self._read_key()
        return study_marks(self._key, patient_id, study_uid, study_date)

    def rows_of(self, entry: GalleryEntry) -> EntryRows:
        """An entry as the catalogue takes it.

        Raises
        ------
        MismatchError, ScanError : see `medcli.retrieval.entries.entry_rows`
        """
        patient = self.patient_hash(entry.patient_id)
        marks = self.study_marks(entry.patient_id, entry.study_uid, entry.study_date)
        return entry_rows(entry, patient, self.dim, marks)

    def _read_key(self) -> bytes:
        """The secret of the patient hashes, checked: a wrong one would hide same-patient hits."""
        file = self.path / KEY
        if not file.exists():
            raise DamagedError(f"{file} is lost", "restore it from a backup of the gallery")
        with storage_errors(file):
            key = file.read_bytes()
        if not hmac.compare_digest(keyed_hash(key, KEY_CHECK), self._key_check):
            raise DamagedError(f"{file} is damaged", "restore it from a backup of the gallery")
        return key

    def add(self, entries: Iterable[GalleryEntry], batch: int = 64) -> AddReport:
        """Store `entries`, each batch in one transaction that is on disk when it ends.

        A scan already stored (same `scan_id`, or same pixels and files) with the same
        pixels, label and patient is left alone; one whose pixels or label have changed
        is replaced under a new id. An entry whose vectors are NaN, zero or not of unit
        length, or whose `scan_id` another entry of this call has taken for other
        pixels, is refused and the others go on. Entries are drawn outside the lock.

        Raises
        ------
        MismatchError : vectors of another length: they come from another model
        LockedError : another process writes for longer than the lock timeout
        StorageError : the disk is full; the batches before are kept
        """
        return self.put(((entry, None) for entry in entries), batch)

    def put(self, entries: Iterable[tuple[GalleryEntry, int | None]], batch: int = 64) -> AddReport:
        """`add` of entries that may each stand in the place of a stored scan, given by its id.

        The stored scan goes in the transaction in which the entry comes.
        """
        outcomes: Counter[str] = Counter()
        refused: list[Failure] = []
        taken: dict[str, str | None] = {}
        stream = iter(entries)
        while group := list(itertools.islice(stream, batch)):
            rows = self._converted(group, taken, refused)
            with self.writing():
                outcomes.update([store(self.catalogue, row, old) for row, old in rows])
        changed = outcomes["added"] + outcomes["updated"] > 0
        return AddReport(
            **outcomes, refused=tuple(refused), warnings=self.refresh() if changed else ()
        )

    def _converted(
        self,
        group: Iterable[tuple[GalleryEntry, int | None]],
        taken: dict[str, str | None],
        refused: list[Failure],
    ) -> list[tuple[EntryRows, int | None]]:
        """The rows of the entries that can be stored; the others join `refused`.

        `taken` remembers the pixels of each `scan_id` of this call.
        """
        rows = []
        for entry, old in group:
            try:
                row = self.rows_of(entry)
                _claim(entry, taken)
                rows.append((row, old))
            except ScanError as error:
                refused.append(
                    Failure(
                        path=entry.path,
                        code=error.code,
                        message=str(error),
                        files=entry.files,
                        scan_id=entry.scan_id,
                    )
                )
        return rows

    def remove(self, ids: Iterable[int]) -> int:
        """Remove the scans of `ids` in one transaction; return how many there were.

        Raises
        ------
        LockedError, StorageError : nothing was removed
        """
        with self.writing():
            removed = sum(self.catalogue.delete(scan) for scan in ids)
        self.refresh()
        return removed

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """The writer's lock and one transaction in the folder that was opened."""
        with self.locked(), self.catalogue.writing():
            yield

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """The writer's lock of the folder that was opened."""
        if not self._write:
            raise ValueError("the gallery was opened for reading")
        with writer_lock(self.path / LOCK, self._lock_timeout):
            if file_identity(self.catalogue.path) != self._file:
                raise UsageError(
                    f"{self.path} was replaced while it was open", "run the command again"
                )
            yield

    def snapshot(self) -> contextlib.AbstractContextManager[State]:
        """One generation of the gallery, whatever other processes write meanwhile."""
        return self.catalogue.reading()

    def column(self, name: str, state: State) -> Column:
        """The values of a column of `where` for every scan at `state`, inside `snapshot`.

        Read once for each generation.
        """
        if self._columns[0] != state.generation:
            self._columns = (state.generation, {})
        columns = self._columns[1]
        if name not in columns:
            if name == "label":
                columns[name] = self.caches.labels(state)
            else:
                columns[name] = column_of(self.catalogue, name)
        return columns[name]

    def rebuild(self) -> None:
        """Write the cache files anew from the catalogue, whatever they are now.

        Raises
        ------
        DamagedError : a row does not match its checksum
        StorageError : they cannot be written
        """
        from medcli.retrieval.calibration import calibration

        self.calibrated.clear()
        with self.snapshot() as state, storage_errors(self.path):
            self.caches.rebuild(state)
            (self.path / CALIBRATION).unlink(missing_ok=True)
            calibration(self, state, "slices", several=True)

    def refresh(self) -> tuple[ScanWarning, ...]:
        """Bring the cache files up to date; the notes say what could not be saved."""
        from medcli.retrieval.calibration import calibration

        with storage_errors(self.path):
            sweep(self.path)
        with self.snapshot() as state:
            notes = self.caches.refresh(state)
            calibration(self, state, "slices", several=True)
        return notes

    def lookup(
        self,
        *,
        id: int | None = None,
        scan_id: str | None = None,
        pixel_sha256: str | None = None,
    ) -> tuple[StoredScan, ...]:
        """Stored scans by one of id, `scan_id` or pixels; empty where there is none.

        Raises
        ------
        DamagedError : a row does not match its checksum
        """
        with self.snapshot():
            if id is not None:
                ids = [id]
            elif scan_id is not None:
                ids = self.catalogue.find("scan_id", scan_id)
            elif pixel_sha256 is not None:
                ids = self.catalogue.find("pixel_sha256", pixel_sha256)
            else:
                raise ValueError("lookup needs id, scan_id or pixel_sha256")
            return tuple(self.catalogue.stored(ids))

    def thumbnail(self, id: int, slice: int | None = None) -> bytes | None:
        """The JPEG of a stored slice (None: of a scan of one slice), None where there is none.

        Raises
        ------
        DamagedError : it does not match its checksum
        """
        with self.snapshot():
            row = self.catalogue.slice(id, slice or 0)
        return row.thumbnail if row else None

    def info(self) -> dict[str, Any]:
        """What the gallery holds, without loading an index.

        `classes` and `modalities` count scans; scans without a label are `unlabelled`,
        without a known patient `unknown_patients`. `bytes` covers every file of the
        folder, the model's copy too.
        """
        with self.snapshot() as state:
            counts = self.catalogue.tally()
            root = self.catalogue.root
            choice = self.caches.choice()
        return {
            "path": str(self.path),
            "root": root,
            "scans": state.scans,
            "slices": counts.slices,
            "vectors": state.scans + state.slice_vectors,
            "dim": self.dim,
            "fingerprint": self.fingerprint,
            "generation": state.generation,
            "unlabelled": counts.labels.get(None, 0),
            "classes": {name: n for name, n in counts.labels.items() if name is not None},
            "modalities": {name or "unknown": n for name, n in counts.modalities.items()},
            "unknown_patients": counts.unknown_patients,
            "patients": counts.patients,
            "bytes": folder_bytes(self.path),
            "created": self.created,
            "model": str(self.model_dir),
            "engine": self.engine,
            "index": {"kind": "exact"} if choice is None else asdict(choice),
        }


def _claim(entry: GalleryEntry, taken: dict[str, str | None]) -> None:
    """Refuse a second scan of one call that would silently replace the first."""
    if entry.scan_id in taken:
        pixels = taken[entry.scan_id]
        if pixels is None or pixels != entry.pixel_sha256:
            raise ScanError(
                "duplicate_scan_id",
                f"{entry.path} has the scan_id of another scan with other pixels",
                "give each scan its own scan_id in the manifest",
            )
    taken[entry.scan_id] = entry.pixel_sha256
