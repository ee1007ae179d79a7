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
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any, Self

import numpy as np

from medcli.errors import DamagedError, StorageError, UsageError
from medcli.home import for_gallery
from medcli.records import Source
from medcli.retrieval.rows import (
    FIELDS,
    ScanRow,
    SliceRow,
    State,
    StoredScan,
    VectorRow,
    below,
    cells,
    restored,
    row_checksum,
    source_values,
    storable,
)
from medcli.retrieval.schema import (
    APPLICATION_ID,
    COUNTERS,
    FORMAT_VERSION,
    SEAL,
    connect,
    create_tables,
    format_of,
    is_unfinished,
    journal_for,
    keeps_log,
    meta_checksum,
    open_mode,
    seal_meta,
    set_journal,
    upgrade_tables,
)
from medcli.retrieval.storage import damage_hint, storage_errors

_CHOSEN = "IN (SELECT value FROM json_each(?))"
_Raw = tuple[int, Sequence[Any], list[tuple[int | None, str, bytes]]]


@dataclass(frozen=True, slots=True)
class Tally:
    """How many scans there are of each label and modality; None: of none, and first."""

    labels: Mapping[str | None, int]
    modalities: Mapping[str | None, int]
    slices: int
    patients: int
    unknown_patients: int


class Catalogue:
    """Access to the SQLite file; statements run inside `reading` or `writing`."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection
        self._root: str | None = None  # as of the transaction
        self._changed = False

    @classmethod
    def create(cls, path: Path, meta: Mapping[str, str | int]) -> None:
        """Write an empty catalogue with the settings `meta`, durably.

        Raises
        ------
        StorageError : the file cannot be written
        """
        with storage_errors(path), contextlib.closing(connect(path, "mode=rwc")) as connection:
            create_tables(connection, meta, path)

    @classmethod
    def open(cls, path: Path, *, write: bool, writable: bool) -> Self:
        """Open an existing catalogue.

        Parameters
        ----------
        write : rows will be added or removed
        writable : the folder can be written; SQLite's WAL needs that even to read, and a
            file system of this machine

        Raises
        ------
        DamagedError : the file is not a catalogue
        UsageError : a newer medcli wrote it
        StorageError : it cannot be opened here
        """
        with storage_errors(path):
            if not write and journal_for(path) != "WAL" and keeps_log(path):
                writable = False
                if is_unfinished(path):
                    raise StorageError(
                        f"{path} has an unfinished write-ahead log, which cannot be read over a "
                        "network",
                        "run once, on one machine: "
                        + for_gallery("medcli index compact", path.parent),
                    )
            try:
                connection = connect(path, open_mode(path, writable), query_only=not write)
            except sqlite3.OperationalError as error:
                if writable or error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_CANTOPEN:
                    raise
                raise StorageError(
                    f"{path} has an unfinished log or journal and its folder cannot be written",
                    "copy the gallery to a writable folder and use it there",
                ) from error
        catalogue = cls(path, connection)
        try:
            if write and journal_for(path) != "WAL":  # no look through the log, over a network
                set_journal(connection, path)
            catalogue._check_format()
            if write:
                set_journal(connection, path)
        except BaseException:
            connection.close()
            raise
        return catalogue

    def _check_format(self) -> None:
        """Refuse a file that is no catalogue, or one of a newer format."""
        with storage_errors(self.path):
            (application,) = self._connection.execute("PRAGMA application_id").fetchone()
            version = format_of(self._connection)
        if application != APPLICATION_ID or version < 1:
            raise self.damaged("it is not a medcli catalogue")
        if version != self._told_format():
            raise self.damaged("its format number is not the one in its settings")
        if version > FORMAT_VERSION:
            raise UsageError(
                f"{self.path} has format {version}; this medcli reads up to {FORMAT_VERSION}",
                "upgrade medcli: pip install --upgrade medcli",
            )

    def _told_format(self) -> object:
        """The number of the format in the settings; one turned bit cannot change both."""
        with storage_errors(self.path):
            found = self._connection.execute("SELECT value FROM meta WHERE key = 'format_version'")
            return (found.fetchone() or (None,))[0]

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

        The generation rises by one if an answer can have changed. A file of an older
        format is brought up to date first.
        """
        with storage_errors(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                self._state()
                self._changed = False
                if format_of(self._connection) < FORMAT_VERSION:
                    upgrade_tables(self._connection)
                    seal_meta(self._connection)
                yield
                if self._changed:
                    self._count("generation", 1)
                    seal_meta(self._connection)
                self._connection.execute("COMMIT")
            finally:
                self._rollback()

    def answers_change(self) -> None:
        """Say that what was written, inside `writing`, can change an answer."""
        self._changed = True

    @property
    def connection(self) -> sqlite3.Connection:
        """For the modules that look at the file itself: `checking`, `upkeep`."""
        return self._connection

    @property
    def root(self) -> str | None:
        """The folder at which stored paths start, as of the transaction."""
        return self._root

    def set_meta(self, name: str, value: str | int) -> None:
        """Change a setting, inside `writing`."""
        self._connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))
        self.answers_change()

    def set_index(self, name: str, value: str | None) -> None:
        """Change a setting that changes no row, inside `writing`; None takes it away."""
        if value is None:
            self._connection.execute("DELETE FROM meta WHERE key = ?", (name,))
        else:
            self._connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))
        seal_meta(self._connection)

    def _rollback(self) -> None:
        """End what is still open; SQLite has ended it already after some errors."""
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def meta(self) -> dict[str, Any]:
        """The settings written at creation, and the counters."""
        return dict(self._connection.execute("SELECT key, value FROM meta"))

    def _state(self) -> State:
        values = self.meta()
        if values.get(SEAL, expected := meta_checksum(values)) != expected:
            raise self.damaged("its settings do not match their checksum")
        self._root = values.get("root") or None
        try:
            return State(*(int(values[name]) for name in COUNTERS))
        except (KeyError, ValueError) as error:
            raise self.damaged("its counters are lost") from error

    def _count(self, name: str, change: int) -> None:
        self.answers_change()
        self._connection.execute("UPDATE meta SET value = value + ? WHERE key = ?", (change, name))

    def damaged(self, what: str) -> DamagedError:
        """The error that says `what` is wrong with this file."""
        return DamagedError(f"{self.path} is damaged: {what}", damage_hint(self.path))

    def insert(
        self,
        row: ScanRow,
        vectors: Sequence[VectorRow],
        slices: Sequence[SliceRow],
        source: Source | None = None,
        *,
        id: int | None = None,
    ) -> int:
        """Add a scan and return its new id; exactly one of `vectors` is the whole scan.

        `id` is given only to put back a scan that was there.
        """
        stored = [(v.slice, v.view, v.vector.astype("<f2").tobytes()) for v in vectors]
        columns = row.below(self._root).columns()
        marks = ", ".join("?" * (len(columns) + 2))
        cursor = self._connection.execute(
            f"INSERT INTO scans (id, {FIELDS}, checksum) VALUES ({marks})",
            (id, *cells(columns), row_checksum(columns, stored)),
        )
        scan = cursor.lastrowid
        assert scan is not None  # an INSERT always sets it
        self._connection.execute(
            "INSERT INTO sources VALUES (?, ?, ?, ?, ?)", source_values(scan, columns, source)
        )
        self._connection.executemany(
            "INSERT INTO vectors (scan, slice, view, vector) VALUES (?, ?, ?, ?)",
            ((scan, *values) for values in stored),
        )
        self._connection.executemany(
            "INSERT INTO slices VALUES (?, ?, ?, ?, ?)",
            (cells(s.below(self._root).values(scan)) for s in slices),
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
                row=ScanRow.from_columns(columns, self._root),
                vectors=np.frombuffer(b"".join(blobs), dtype="<f2").reshape(len(blobs), -1),
                slice_numbers=np.array([-1 if n is None else n for n in numbers]),
                views=views,
            )

    def matrix(
        self, dim: int, scans: Iterable[int] | None = None, *, whole: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """Vectors (N, `dim`) float16 of whole scans, or of slices, and their scans' ids (N,).

        Parameters
        ----------
        scans : ids; None: all scans

        Raises
        ------
        DamagedError : a row does not match its checksum, or a vector has another length
        """
        ids: list[int] = []
        blobs: list[bytes] = []
        for scan, _, vectors in self._intact(scans):
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
        for scan, *held, checksum in rows:
            columns = [restored(cell) for cell in held]
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
        if column == "scan_id":
            value = below(value, self._root)
        rows = self._connection.execute(
            f"SELECT id FROM scans WHERE {column} = ? ORDER BY id", (storable(value),)
        )
        return [scan for (scan,) in rows]

    def of_label(self, label: str | None) -> list[int]:
        """Ids of the scans with a label, None: without one; reads the whole table."""
        rows = self._connection.execute(
            "SELECT id FROM scans WHERE label IS ? ORDER BY id", (storable(label),)
        )
        return [scan for (scan,) in rows]

    def slice(self, scan: int, number: int) -> SliceRow | None:
        """One slice of a scan, compared with its checksum; None if it is not stored.

        Raises
        ------
        DamagedError : the row does not match its checksum
        """
        return self.slices([(scan, number)]).get((scan, number))

    def slices(self, places: Iterable[tuple[int, int]]) -> dict[tuple[int, int], SliceRow]:
        """Those of the slices (scan, number) that are stored, compared with their checksums.

        Raises
        ------
        DamagedError : a row does not match its checksum
        """
        found = self._connection.execute(
            "SELECT scan, slice, file, thumbnail, slices.checksum FROM json_each(?) AS place "
            "CROSS JOIN slices ON scan = place.value ->> 0 AND slice = place.value ->> 1",
            (json.dumps(list(places)),),
        )
        rows = {}
        for scan, number, file, thumbnail, checksum in found:
            row = SliceRow(number, restored(file), thumbnail)
            if row.checksum(scan) != checksum:
                raise self.damaged(f"slice {number} of scan {scan} does not match its checksum")
            rows[scan, number] = row.under(self._root)
        return rows

    def tally(self) -> Tally:
        """How many scans have each label and each modality, and of how many patients they are."""
        rows = self._connection.execute(
            "SELECT label, modality, COUNT(*), TOTAL(n_slices) FROM scans GROUP BY label, modality"
        ).fetchall()
        patients, known = self._connection.execute(
            "SELECT COUNT(DISTINCT patient), COUNT(*) FROM scans WHERE patient IS NOT NULL"
        ).fetchone()
        labels: Counter[str | None] = Counter()
        modalities: Counter[str | None] = Counter()
        for label, modality, count, _ in rows:
            labels[restored(label)] += count
            modalities[restored(modality)] += count
        return Tally(
            labels=_by_name(labels),
            modalities=_by_name(modalities),
            slices=int(sum(each[3] for each in rows)),
            patients=patients,
            unknown_patients=sum(labels.values()) - known,
        )

    def last_id(self) -> int:
        """The highest id that a scan has ever had; 0 without any."""
        found = self._connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'scans'")
        return int((found.fetchone() or (0,))[0])


def _by_name(counts: Mapping[str | None, int]) -> dict[str | None, int]:
    return dict(sorted(counts.items(), key=lambda each: (each[0] is not None, each[0] or "")))
