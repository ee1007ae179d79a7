"""The catalogue of a gallery: one SQLite file that holds the truth.

Every scan is one row of `scans` with its vectors (float16, little-endian) in
`vectors` and its slices (source file, thumbnail) in `slices`. A checksum over
all that an answer is made of is stored with each row and compared whenever the
row is read, so a flipped bit is an error and never a wrong hit. Ids are never
reused (AUTOINCREMENT). Each committed write raises `generation` by one.

A name that is no UTF-8 is stored as its bytes (`rows.storable`); checksums are taken over it
as Python has it.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any, Self

import numpy as np

from medcli.errors import DamagedError, StorageError, UsageError
from medcli.retrieval.rows import (
    FIELDS,
    ScanRow,
    SliceRow,
    State,
    StoredScan,
    VectorRow,
    restored,
    row_checksum,
    storable,
)
from medcli.retrieval.storage import DAMAGE_HINT, storage_errors

FORMAT_VERSION = 1
_APPLICATION_ID = 0x6D656463  # "medc", in the header of the file
_BUSY_SECONDS = 30.0

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;
CREATE TABLE scans (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    scan_id TEXT NOT NULL UNIQUE,
    path TEXT NOT NULL,
    files TEXT NOT NULL,       -- JSON list
    n_slices INTEGER NOT NULL,
    label TEXT,
    patient TEXT,              -- keyed hash
    modality TEXT,
    format TEXT,
    decoder TEXT,
    pixel_sha256 TEXT,
    metadata TEXT NOT NULL,    -- JSON object
    checksum BLOB NOT NULL
);
CREATE INDEX scans_by_patient ON scans (patient) WHERE patient IS NOT NULL;
CREATE INDEX scans_by_pixels ON scans (pixel_sha256) WHERE pixel_sha256 IS NOT NULL;
CREATE TABLE vectors (
    id INTEGER PRIMARY KEY,
    scan INTEGER NOT NULL REFERENCES scans ON DELETE CASCADE,
    slice INTEGER,             -- NULL: the scan as a whole
    view TEXT NOT NULL,
    vector BLOB NOT NULL
);
CREATE INDEX vectors_by_scan ON vectors (scan);
CREATE TABLE slices (
    scan INTEGER NOT NULL REFERENCES scans ON DELETE CASCADE,
    slice INTEGER NOT NULL,
    file TEXT NOT NULL,
    thumbnail BLOB,
    checksum BLOB NOT NULL,
    PRIMARY KEY (scan, slice)
);
"""
_CHOSEN = "IN (SELECT value FROM json_each(?))"
_Raw = tuple[int, Sequence[Any], list[tuple[int | None, str, bytes]]]
_COUNTERS = ("generation", "scans", "slice_vectors")


class Catalogue:
    """Access to the SQLite file; statements run inside `reading` or `writing`."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection

    @classmethod
    def create(cls, path: Path, meta: Mapping[str, str | int]) -> None:
        """Write an empty catalogue with the settings `meta`, durably.

        Raises
        ------
        StorageError : the file cannot be written
        """
        with storage_errors(path), contextlib.closing(_connect(path, "mode=rwc")) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {FORMAT_VERSION}")
            connection.executescript(_SCHEMA)
            values = {**meta, "format_version": FORMAT_VERSION, **dict.fromkeys(_COUNTERS, 0)}
            connection.executemany("INSERT INTO meta VALUES (?, ?)", values.items())

    @classmethod
    def open(cls, path: Path, *, write: bool, writable: bool) -> Self:
        """Open an existing catalogue.

        Parameters
        ----------
        write : rows will be added or removed
        writable : the folder can be written; SQLite's WAL needs that even to read

        Raises
        ------
        DamagedError : the file is not a catalogue
        UsageError : a newer medcli wrote it
        StorageError : it cannot be opened here
        """
        with storage_errors(path):
            try:
                connection = _connect(path, _open_mode(path, writable), query_only=not write)
            except sqlite3.OperationalError as error:
                if writable or error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_CANTOPEN:
                    raise
                raise StorageError(
                    f"{path} has an unfinished write-ahead log and its folder cannot be written",
                    "copy the gallery to a writable folder and use it there",
                ) from error
        catalogue = cls(path, connection)
        try:
            catalogue._check_format()
        except BaseException:
            connection.close()
            raise
        return catalogue

    def _check_format(self) -> None:
        """Refuse a file that is no catalogue, or one of a newer format."""
        with storage_errors(self.path):
            (application,) = self._connection.execute("PRAGMA application_id").fetchone()
            (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        if application != _APPLICATION_ID or version < 1:
            raise self.damaged("it is not a medcli catalogue")
        if version > FORMAT_VERSION:
            raise UsageError(
                f"{self.path} has format {version}; this medcli reads up to {FORMAT_VERSION}",
                "upgrade medcli: pip install --upgrade medcli",
            )

    def close(self) -> None:
        """Close the file; the last connection folds the write-ahead log into it."""
        with storage_errors(self.path):
            self._connection.close()

    @contextlib.contextmanager
    def reading(self) -> Iterator[State]:
        """One consistent view: what other processes commit meanwhile is not seen.

        Inside another `reading` it is the same view.
        """
        with storage_errors(self.path):
            if self._connection.in_transaction:
                yield self._state()
                return
            self._connection.execute("BEGIN")
            try:
                yield self._state()
            finally:
                self._rollback()

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """One transaction: all or nothing, on disk when the block has ended.

        The generation rises by one if anything was changed.
        """
        with storage_errors(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            changes = self._connection.total_changes
            try:
                yield
                if self._connection.total_changes > changes:
                    self._count("generation", 1)
                self._connection.execute("COMMIT")
            finally:
                self._rollback()

    def _rollback(self) -> None:
        """End what is still open; SQLite has ended it already after some errors."""
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def meta(self) -> dict[str, Any]:
        """The settings written at creation, and the counters."""
        return dict(self._connection.execute("SELECT key, value FROM meta"))

    def _state(self) -> State:
        values = self.meta()
        try:
            return State(*(int(values[name]) for name in _COUNTERS))
        except (KeyError, ValueError) as error:
            raise self.damaged("its counters are lost") from error

    def _count(self, name: str, change: int) -> None:
        self._connection.execute("UPDATE meta SET value = value + ? WHERE key = ?", (change, name))

    def damaged(self, what: str) -> DamagedError:
        """The error that says `what` is wrong with this file."""
        return DamagedError(f"{self.path} is damaged: {what}", DAMAGE_HINT)

    def insert(self, row: ScanRow, vectors: Sequence[VectorRow], slices: Sequence[SliceRow]) -> int:
        """Add a scan and return its new id; exactly one of `vectors` is the whole scan."""
        stored = [(v.slice, v.view, v.vector.astype("<f2").tobytes()) for v in vectors]
        columns = row.columns()
        marks = ", ".join("?" * (len(columns) + 1))
        cursor = self._connection.execute(
            f"INSERT INTO scans ({FIELDS}, checksum) VALUES ({marks})",
            (*map(_storable, columns), row_checksum(columns, stored)),
        )
        scan = cursor.lastrowid
        assert scan is not None  # an INSERT always sets it
        self._connection.executemany(
            "INSERT INTO vectors (scan, slice, view, vector) VALUES (?, ?, ?, ?)",
            ((scan, *values) for values in stored),
        )
        self._connection.executemany(
            "INSERT INTO slices VALUES (?, ?, ?, ?, ?)",
            ((scan, s.slice, storable(s.file), s.thumbnail, s.checksum(scan)) for s in slices),
        )
        self._count("scans", 1)
        self._count("slice_vectors", sum(v.slice is not None for v in vectors))
        return scan

    def delete(self, scan: int) -> bool:
        """Remove a scan with its vectors and slices; False if there is none of that id."""
        (slice_vectors,) = self._connection.execute(
            "SELECT COUNT(slice) FROM vectors WHERE scan = ?", (scan,)
        ).fetchone()
        if not self._connection.execute("DELETE FROM scans WHERE id = ?", (scan,)).rowcount:
            return False
        self._count("scans", -1)
        self._count("slice_vectors", -slice_vectors)
        return True

    def stored(self, ids: Iterable[int] | None = None) -> Iterator[StoredScan]:
        """The scans of `ids`, or all of them, by id, each compared with its checksum.

        Raises
        ------
        DamagedError : a row does not match its checksum
        """
        for scan, columns, vectors in self._intact(ids):
            numbers, views, blobs = zip(*vectors, strict=True)
            yield StoredScan(
                id=scan,
                row=ScanRow.from_columns(columns),
                vectors=np.frombuffer(b"".join(blobs), dtype="<f2").reshape(len(blobs), -1),
                slice_numbers=np.array([-1 if n is None else n for n in numbers]),
                views=views,
            )

    def matrix(self, dim: int, *, whole: bool) -> tuple[np.ndarray, np.ndarray]:
        """All vectors (N, `dim`) float16 of whole scans, or of slices, and their scans' ids (N,).

        Raises
        ------
        DamagedError : a row does not match its checksum, or a vector has another length
        """
        ids: list[int] = []
        blobs: list[bytes] = []
        for scan, _, vectors in self._intact():
            chosen = [blob for number, _, blob in vectors if (number is None) == whole]
            blobs += chosen
            ids += [scan] * len(chosen)
        if any(len(blob) != 2 * dim for blob in blobs):
            raise self.damaged("it holds vectors of another length")
        rows = np.frombuffer(b"".join(blobs), dtype="<f2").reshape(len(blobs), dim)
        return rows, np.array(ids, dtype=np.int64)

    def _intact(self, ids: Iterable[int] | None = None) -> Iterator[_Raw]:
        """Id, columns and vectors of each scan, by id, once they match their checksum."""
        scans, vectors = (
            f"SELECT id, {FIELDS}, checksum FROM scans",
            "SELECT scan, slice, view, vector FROM vectors",
        )
        chosen: tuple[str, ...] = ()
        if ids is not None:
            chosen = (json.dumps([int(scan) for scan in ids]),)
            scans, vectors = f"{scans} WHERE id {_CHOSEN}", f"{vectors} WHERE scan {_CHOSEN}"
        rows = self._connection.execute(f"{scans} ORDER BY id", chosen)
        groups = itertools.groupby(
            self._connection.execute(f"{vectors} ORDER BY scan, id", chosen), key=itemgetter(0)
        )
        for scan, *cells, checksum in rows:
            columns = [restored(cell) for cell in cells]
            owner, group = next(groups, (None, ()))
            if owner != scan:
                raise self.damaged(f"scan {scan} does not match its vectors")
            own = [values[1:] for values in group]
            try:
                actual = row_checksum(columns, own)
            except TypeError as error:  # a damaged cell changed its type
                raise self.damaged(f"scan {scan} cannot be read") from error
            if actual != checksum:
                raise self.damaged(f"scan {scan} does not match its checksum")
            yield scan, columns, own
        if next(groups, None) is not None:
            raise self.damaged("it holds vectors without a scan")

    def find(self, column: str, value: str) -> list[int]:
        """Ids of the scans whose `column` ("scan_id", "pixel_sha256", "patient") is `value`."""
        if column not in ("scan_id", "pixel_sha256", "patient"):
            raise ValueError(f"{column} has no index")
        rows = self._connection.execute(
            f"SELECT id FROM scans WHERE {column} = ? ORDER BY id", (storable(value),)
        )
        return [scan for (scan,) in rows]

    def slice(self, scan: int, number: int) -> SliceRow | None:
        """One slice of a scan, compared with its checksum; None if it is not stored.

        Raises
        ------
        DamagedError : the row does not match its checksum
        """
        found = self._connection.execute(
            "SELECT file, thumbnail, checksum FROM slices WHERE scan = ? AND slice = ?",
            (scan, number),
        ).fetchone()
        if found is None:
            return None
        file, thumbnail, checksum = found
        row = SliceRow(number, restored(file), thumbnail)
        if row.checksum(scan) != checksum:
            raise self.damaged(f"slice {number} of scan {scan} does not match its checksum")
        return row

    def tally(self, column: str) -> dict[str | None, int]:
        """How many scans have each value of `column` ("label", "modality", "patient")."""
        if column not in ("label", "modality", "patient"):
            raise ValueError(f"{column} is not counted")
        rows = self._connection.execute(
            f"SELECT {column}, COUNT(*) FROM scans GROUP BY {column} ORDER BY {column}"
        )
        return {restored(value): count for value, count in rows}

    def total_slices(self) -> int:
        """Slices of all scans."""
        (total,) = self._connection.execute("SELECT TOTAL(n_slices) FROM scans").fetchone()
        return int(total)


def _storable(cell: Any) -> Any:
    return storable(cell) if isinstance(cell, str) else cell


def _connect(path: Path, mode: str, *, query_only: bool = False) -> sqlite3.Connection:
    """A connection in which every transaction is explicit and every commit is on disk."""
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?{mode}",
        uri=True,
        timeout=_BUSY_SECONDS,
        isolation_level=None,
    )
    try:
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA secure_delete = ON")  # removed rows are overwritten
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute(f"PRAGMA query_only = {int(query_only)}")
    except BaseException:
        connection.close()
        raise
    return connection


def _open_mode(path: Path, writable: bool) -> str:
    """How SQLite can open `path` here.

    A read-only folder has no place for the WAL's shared memory, so the file is
    declared immutable. That is right only while no log waits beside it: SQLite would
    not read the log and would show an older state.
    """
    if writable:
        return "mode=rw"
    log = path.with_name(f"{path.name}-wal")
    if log.exists() and log.stat().st_size:
        return "mode=ro"
    return "mode=ro&immutable=1"
