"""What a catalogue knows about the files of its scans, and how it follows them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from medcli.records import Source
from medcli.retrieval.catalogue import Catalogue
from medcli.retrieval.rows import (
    FIELDS,
    ScanRow,
    SliceRow,
    VectorRow,
    cells,
    fields_checksum,
    restored,
    row_checksum,
    source_checksum,
    source_of,
    source_values,
)
from medcli.retrieval.schema import format_of

Place = tuple[str, tuple[str, ...], str | None, str | None, int | None]


@dataclass(frozen=True, slots=True)
class StoredSource:
    """A stored scan without its vectors; `source` is None where nothing is known of its files."""

    id: int
    row: ScanRow
    source: Source | None

    @property
    def place(self) -> Place:
        """What tells a scan from the others: its path, its files, and which part of them."""
        own = self.source
        parts = (own.member, own.series_uid, own.time_point) if own else (None, None, None)
        return self.row.path, self.row.files, *parts


def stored_sources(
    catalogue: Catalogue, ids: Iterable[int] | None = None
) -> Iterator[StoredSource]:
    """The scans of `ids`, or all, by id, each compared with its checksum.

    Raises
    ------
    DamagedError : a row does not match its checksum
    """
    connection = catalogue.connection
    if format_of(connection) < 2:
        for scan in catalogue.stored(ids):
            yield StoredSource(scan.id, scan.row, None)
        return
    statement = (
        f"SELECT id, recipe, sha256, fields, sources.checksum, {FIELDS} "
        "FROM scans LEFT JOIN sources ON sources.scan = scans.id"
    )
    chosen: tuple[str, ...] = ()
    if ids is not None:
        chosen = (json.dumps([int(scan) for scan in ids]),)
        statement += " WHERE id IN (SELECT value FROM json_each(?))"
    for scan, recipe, sha256, fields, checksum, *held in connection.execute(
        f"{statement} ORDER BY id", chosen
    ):
        columns = [restored(cell) for cell in held]
        if checksum is None:  # a scan of format 1
            yield StoredSource(scan, next(catalogue.stored([scan])).row, None)
            continue
        if fields != fields_checksum(scan, columns) or checksum != source_checksum(
            scan, recipe, sha256, fields
        ):
            raise catalogue.damaged(f"scan {scan} does not match its checksum")
        row = ScanRow.from_columns(columns).under(catalogue.root)
        yield StoredSource(scan, row, source_of(recipe))


def with_content(catalogue: Catalogue, sha256: str) -> list[StoredSource]:
    """The scans whose files have this content."""
    if format_of(catalogue.connection) < 2:
        return []
    found = catalogue.connection.execute("SELECT scan FROM sources WHERE sha256 = ?", (sha256,))
    return list(stored_sources(catalogue, [scan for (scan,) in found.fetchall()]))


def touch(catalogue: Catalogue, scan: int, source: Source) -> None:
    """Note the state of a scan's files; no answer changes by it."""
    columns = _columns(catalogue, scan)
    catalogue.connection.execute(
        "INSERT OR REPLACE INTO sources VALUES (?, ?, ?, ?, ?)",
        source_values(scan, columns, source),
    )


def rewrite(
    catalogue: Catalogue,
    scan: int,
    row: ScanRow,
    source: Source | None,
    slice_files: Mapping[int, str] | None = None,
) -> None:
    """Give a scan other fields under the same id; its vectors and thumbnails stay.

    Parameters
    ----------
    slice_files : the new file of each slice, where they have moved
    """
    (stored,) = catalogue.stored([scan])
    views = zip(stored.slice_numbers.tolist(), stored.views, stored.vectors, strict=True)
    vectors = [
        (None if number < 0 else number, view, np.ascontiguousarray(vector).tobytes())
        for number, view, vector in views
    ]
    columns = row.below(catalogue.root).columns()
    names = ", ".join(f"{name} = ?" for name in FIELDS.split(", "))
    catalogue.connection.execute(
        f"UPDATE scans SET {names}, checksum = ? WHERE id = ?",
        (*cells(columns), row_checksum(columns, vectors), scan),
    )
    catalogue.connection.execute(
        "INSERT OR REPLACE INTO sources VALUES (?, ?, ?, ?, ?)",
        source_values(scan, columns, source),
    )
    for number, file in (slice_files or {}).items():
        old = catalogue.slice(scan, number)
        if old is not None:
            put_slice(catalogue, scan, replace(old, file=file))
    catalogue.answers_change()


def revector(catalogue: Catalogue, scan: int, vectors: Iterable[VectorRow]) -> None:
    """Give a scan other vectors under the same id; its fields and thumbnails stay."""
    columns = _columns(catalogue, scan)
    stored = [(v.slice, v.view, v.vector.astype("<f2").tobytes()) for v in vectors]
    connection = catalogue.connection
    connection.execute("DELETE FROM vectors WHERE scan = ?", (scan,))
    connection.executemany(
        "INSERT INTO vectors (scan, slice, view, vector) VALUES (?, ?, ?, ?)",
        ((scan, *values) for values in stored),
    )
    checksum = row_checksum(columns, stored)
    connection.execute("UPDATE scans SET checksum = ? WHERE id = ?", (checksum, scan))
    catalogue.answers_change()


def put_slice(catalogue: Catalogue, scan: int, row: SliceRow) -> None:
    """Write one slice of a scan anew."""
    catalogue.connection.execute(
        "INSERT OR REPLACE INTO slices VALUES (?, ?, ?, ?, ?)",
        cells(row.below(catalogue.root).values(scan)),
    )
    catalogue.answers_change()


def _columns(catalogue: Catalogue, scan: int) -> tuple[object, ...]:
    """The fields of a scan as they are stored, once they match their checksum."""
    (stored,) = catalogue.stored([scan])
    return stored.row.below(catalogue.root).columns()
