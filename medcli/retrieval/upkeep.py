"""Looking after a gallery: its caches checked, its file compacted, its rows put right."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from medcli.errors import LockedError, MedcliError
from medcli.home import for_gallery
from medcli.records import GalleryEntry, Source
from medcli.retrieval.checking import Problem, check_vectors, scan_ids
from medcli.retrieval.entries import entry_rows
from medcli.retrieval.folder import folder_bytes, sweep, sweep_drafts
from medcli.retrieval.rows import (
    FIELDS,
    ScanRow,
    StoredScan,
    VectorRow,
    fields_checksum,
    restored,
    source_checksum,
    source_of,
)
from medcli.retrieval.schema import COUNTERS
from medcli.retrieval.sources import put_slice
from medcli.retrieval.storage import storage_errors

if TYPE_CHECKING:
    from medcli.retrieval.gallery import Gallery

_MOST_VARIANTS = 50_000


def check_caches(gallery: Gallery) -> Iterator[Problem]:
    """Cache files that are damaged, or that know a later generation than the catalogue.

    Absent and stale ones are no problem: they are rebuilt by the next search.
    """
    try:
        with gallery.snapshot() as state:
            unusable = list(gallery.caches.unusable(state))
        with gallery.snapshot() as later:
            written_meanwhile = later.generation > state.generation
    except MedcliError as error:
        yield Problem("catalogue_damaged", error.message)
        return
    for file, why in unusable:
        if why.newer and not written_meanwhile:
            yield Problem(
                "generation_lost",
                f"{file} was made from a later generation: writes to the catalogue are lost",
            )
        elif why.reason not in ("stale", "absent"):
            yield Problem("index_damaged", f"{file} is {why.reason}")


@dataclass(frozen=True, slots=True)
class Compacted:
    """Bytes of the folder before and after, and how many abandoned drafts were removed."""

    before: int
    after: int
    drafts: int


def compact(gallery: Gallery) -> Compacted:
    """Rewrite the catalogue without gaps and the caches anew; remove what killed builds left.

    Readers go on meanwhile.

    Raises
    ------
    LockedError : a writer, or a reader that keeps an old state open, is in the way
    DamagedError : a row does not match its checksum
    StorageError : the disk is full; the gallery is as it was
    """
    before = folder_bytes(gallery.path)
    with gallery.locked():
        drafts = sweep_drafts(gallery.path)
        with storage_errors(gallery.path):
            sweep(gallery.path)
        vacuum(gallery)
        gallery.rebuild()
    return Compacted(before, folder_bytes(gallery.path), drafts)


def vacuum(gallery: Gallery) -> None:
    """Rewrite the catalogue's file and empty its log; nothing removed stays in them.

    Raises
    ------
    LockedError : a reader keeps an old state open
    """
    connection = gallery.catalogue.connection
    with storage_errors(gallery.catalogue.path):
        connection.execute("VACUUM")
        (busy, *_) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if busy:
        raise LockedError(
            f"{gallery.path}: a reader keeps an older state open, which cannot be removed yet",
            "wait until it has finished, then run: "
            + for_gallery("medcli index compact", gallery.path),
        )


def recount(gallery: Gallery) -> None:
    """Set the counters of the catalogue to what its tables hold."""
    connection = gallery.catalogue.connection
    with gallery.writing():
        scans = len(scan_ids(gallery.catalogue))
        (slices,) = connection.execute("SELECT COUNT(slice) FROM vectors").fetchone()
        for name, value in zip(COUNTERS[1:], (scans, slices), strict=True):
            gallery.catalogue.set_meta(name, value)


def reindex(gallery: Gallery) -> None:
    """Build SQLite's lookup tables anew."""
    with gallery.locked(), storage_errors(gallery.catalogue.path):
        gallery.catalogue.connection.execute("REINDEX")


@dataclass(frozen=True, slots=True)
class DamagedScan:
    """A scan of which something does not match, with what is proven of it.

    Parameters
    ----------
    columns : its fields as they are now, not proven
    source, fields : from the row of `sources`, which is sound
    """

    id: int
    columns: tuple[Any, ...]
    source: Source | None
    fields: bytes

    @property
    def row(self) -> ScanRow | None:
        """The row as it is now; None where it cannot be parsed."""
        try:
            row = ScanRow.from_columns(self.columns)
            paths = (row.path, row.scan_id, *row.files)
            return row if all(isinstance(each, str) for each in paths) else None
        except (ValueError, TypeError):
            return None


def damaged_scan(gallery: Gallery, scan: int) -> DamagedScan | None:
    """What can be known of a damaged scan; None where its row of `sources` is damaged too."""
    connection = gallery.catalogue.connection
    try:
        with gallery.snapshot():
            own = connection.execute(
                "SELECT recipe, sha256, fields, checksum FROM sources WHERE scan = ?", (scan,)
            ).fetchone()
            columns = connection.execute(
                f"SELECT {FIELDS} FROM scans WHERE id = ?", (scan,)
            ).fetchone()
    except MedcliError:
        return None
    if own is None or columns is None or source_checksum(scan, *own[:3]) != own[3]:
        return None
    return DamagedScan(scan, tuple(map(restored, columns)), source_of(own[0]), own[2])


def is_sound(gallery: Gallery, scan: int) -> bool:
    """Whether fields and vectors of a scan match their checksum."""
    try:
        with gallery.snapshot():
            check_vectors(gallery.catalogue, [scan], gallery.dim)
    except MedcliError:
        return False
    return True


def restore(gallery: Gallery, damaged: DamagedScan, entry: GalleryEntry) -> bool:
    """Put a damaged scan right from `entry`, its source read anew; False if it cannot be proven.

    Its fields are those variants of stored and re-read ones, and of the labels of the
    gallery, that reproduce their checksum: never a guess. Vectors and thumbnails are
    those of the entry; the pixels are the stored ones.
    """
    rows = gallery.rows_of(entry)
    with gallery.writing():
        catalogue = gallery.catalogue
        again = rows.scan.below(catalogue.root).columns()
        proven = _proven_columns(gallery, damaged, again)
        if proven is None:
            return False
        row = ScanRow.from_columns(proven).under(catalogue.root)
        if row.pixel_sha256 != rows.scan.pixel_sha256 or row.n_slices != rows.scan.n_slices:
            return False
        vectors = _stored_vectors(gallery, damaged.id) or rows.vectors
        _drop(gallery, damaged.id)
        catalogue.insert(row, vectors, rows.slices, damaged.source, id=damaged.id)
    return True


def restore_slices(gallery: Gallery, scan: int, entry: GalleryEntry) -> None:
    """Write the slices of a scan anew from its source; its row is sound."""
    rows = entry_rows(entry, None, gallery.dim)
    with gallery.writing():
        gallery.catalogue.connection.execute("DELETE FROM slices WHERE scan = ?", (scan,))
        for each in rows.slices:
            put_slice(gallery.catalogue, scan, each)


def forget_source(gallery: Gallery, scan: int) -> None:
    """Drop what is said of the files of a scan, whose row is sound; `update` notes it anew."""
    with gallery.writing():
        gallery.catalogue.connection.execute("DELETE FROM sources WHERE scan = ?", (scan,))


def _proven_columns(
    gallery: Gallery, damaged: DamagedScan, again: Sequence[Any]
) -> tuple[Any, ...] | None:
    """The one variant of the fields that reproduces their checksum."""
    labels = [
        label
        for (label,) in gallery.catalogue.connection.execute("SELECT DISTINCT label FROM scans")
        if label is None or isinstance(label, str)
    ]
    choices: list[list[Any]] = []
    for name, now, new in zip(FIELDS.split(", "), damaged.columns, again, strict=True):
        extra = [None, *labels] if name == "label" else [None] if name == "patient" else []
        choices.append(list(dict.fromkeys([now, new, *extra])))
    for variant in itertools.islice(itertools.product(*choices), _MOST_VARIANTS):
        if fields_checksum(damaged.id, variant) == damaged.fields:
            return variant
    return None


def _stored_vectors(gallery: Gallery, scan: int) -> list[VectorRow] | None:
    """The vectors of a scan where they are sound: they need not be made anew."""
    try:
        stored: StoredScan = next(iter(gallery.catalogue.stored([scan])))
    except (MedcliError, StopIteration):
        return None
    return [
        VectorRow(None if number < 0 else number, view, vector)
        for number, view, vector in zip(
            stored.slice_numbers.tolist(), stored.views, stored.vectors, strict=True
        )
    ]


def _drop(gallery: Gallery, scan: int) -> None:
    """Delete every row of a scan, whatever its checksum says."""
    connection = gallery.catalogue.connection
    gallery.catalogue.delete(scan)
    for table in ("vectors", "slices", "sources"):
        connection.execute(f"DELETE FROM {table} WHERE scan = ?", (scan,))
