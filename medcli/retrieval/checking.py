"""What is wrong with a catalogue, row by row: all of it is named, nothing is raised or changed."""

from __future__ import annotations

import hashlib
import itertools
import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from medcli.errors import DamagedError, MedcliError
from medcli.retrieval.catalogue import Catalogue
from medcli.retrieval.schema import format_of
from medcli.retrieval.sources import stored_sources
from medcli.retrieval.storage import storage_errors

if TYPE_CHECKING:
    from medcli.retrieval.gallery import Gallery

_CHUNK = 256
_NORM_TOLERANCE = 2e-3
SAME_DIRECTION = 0.999
"""The cosine above which a vector made anew is the stored one; rounding takes 1e-7 of it."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with a gallery; `code` is one of docs/codes.md, `scan` the id it is about."""

    code: str
    message: str
    scan: int | None = None


def check_rows(gallery: Gallery) -> Iterator[Problem]:
    """The problems of the catalogue: of its file, its scans, its counters."""
    catalogue = gallery.catalogue
    yield from _check_file(catalogue)
    try:
        with gallery.snapshot() as state:
            ids = scan_ids(catalogue)
            slice_vectors = 0
            for problem, count in _check_scans(catalogue, ids, gallery.dim):
                slice_vectors += count
                if problem:
                    yield problem
            if (state.scans, state.slice_vectors) != (len(ids), slice_vectors):
                yield Problem("counters_wrong", "the counters of the catalogue are wrong")
    except MedcliError as error:
        yield Problem("catalogue_damaged", error.message)


def scan_ids(catalogue: Catalogue) -> list[int]:
    """All ids, by id."""
    return [scan for (scan,) in catalogue.connection.execute("SELECT id FROM scans ORDER BY id")]


def _check_file(catalogue: Catalogue) -> Iterator[Problem]:
    """What SQLite itself says of the file."""
    try:
        with storage_errors(catalogue.path):
            found = catalogue.connection.execute("PRAGMA integrity_check(5)").fetchall()
            strays = catalogue.connection.execute("PRAGMA foreign_key_check").fetchall()
    except MedcliError as error:
        yield Problem("catalogue_damaged", error.message)
        return
    for (text,) in found:
        if text != "ok":
            yield Problem("catalogue_damaged", f"{catalogue.path}: {' '.join(text.split())}")
    for table, *_ in strays[:1]:
        yield Problem(
            "catalogue_damaged", f"{catalogue.path}: {len(strays)} rows of {table} have no scan"
        )


def _check_scans(
    catalogue: Catalogue, ids: list[int], dim: int
) -> Iterator[tuple[Problem | None, int]]:
    """The problem of each scan that has one, and its slice vectors; in chunks while all is well."""
    for start in range(0, len(ids), _CHUNK):
        chunk = ids[start : start + _CHUNK]
        try:
            yield None, _examine(catalogue, chunk, dim)
        except (DamagedError, sqlite3.Error):
            for scan in chunk:
                yield check_scan(catalogue, scan, dim)


def check_scan(catalogue: Catalogue, scan: int, dim: int) -> tuple[Problem | None, int]:
    """The problem of one scan, and how many slice vectors it has."""
    parts: list[tuple[str, Callable[[], object]]] = [
        ("row_damaged", lambda: check_vectors(catalogue, [scan], dim)),
        ("slice_damaged", lambda: check_slices(catalogue, [scan])),
        ("source_damaged", lambda: list(stored_sources(catalogue, [scan]))),
    ]
    count = _count_vectors(catalogue, scan)
    for code, part in parts:
        try:
            with storage_errors(catalogue.path):
                part()
        except MedcliError as error:
            return Problem(code, error.message, scan), count
    return None, count


def _examine(catalogue: Catalogue, scans: list[int], dim: int) -> int:
    """All checks of `scans` at once; how many slice vectors they have."""
    check_slices(catalogue, scans)
    for _ in stored_sources(catalogue, scans):
        pass
    return check_vectors(catalogue, scans, dim)


def _count_vectors(catalogue: Catalogue, scan: int) -> int:
    try:
        (count,) = catalogue.connection.execute(
            "SELECT COUNT(slice) FROM vectors WHERE scan = ?", (scan,)
        ).fetchone()
    except sqlite3.Error:  # named by the check of the row
        return 0
    return int(count)


def check_vectors(catalogue: Catalogue, scans: Iterable[int], dim: int) -> int:
    """Compare the rows and vectors of `scans` with their checksums; count the slice vectors.

    Raises
    ------
    DamagedError : one does not match, or holds a vector that is none
    """
    count = 0
    for scan in catalogue.stored(scans):
        wide = scan.vectors.astype(np.float32)
        lengths = np.linalg.norm(wide, axis=1)
        whole = int((scan.slice_numbers < 0).sum())
        # written so that NaN fails
        if wide.shape[1] != dim or not (np.abs(lengths - 1) < _NORM_TOLERANCE).all():
            raise catalogue.damaged(f"scan {scan.id} has a vector that is none")
        if whole != 1:
            raise catalogue.damaged(f"scan {scan.id} has {whole} vectors as a whole")
        count += len(scan.vectors) - whole
    return count


def check_slices(catalogue: Catalogue, scans: list[int]) -> None:
    """Compare the slices of `scans` with their checksums, and their number with the scan's.

    Raises
    ------
    DamagedError : one does not match or is missing
    """
    from medcli.retrieval.rows import SliceRow, restored

    chosen = (json.dumps(scans),)
    marks = "IN (SELECT value FROM json_each(?))"
    rows = catalogue.connection.execute(
        f"SELECT scan, slice, file, thumbnail, checksum FROM slices WHERE scan {marks} "
        "ORDER BY scan, slice",
        chosen,
    )
    held = {
        scan: list(group) for scan, group in itertools.groupby(rows, key=lambda row: int(row[0]))
    }
    wanted = dict(
        catalogue.connection.execute(f"SELECT id, n_slices FROM scans WHERE id {marks}", chosen)
    )
    for scan in scans:
        own = held.get(scan, [])
        in_order = all(row[1] == number for number, row in enumerate(own))
        if len(own) != wanted.get(scan) or not in_order:
            raise catalogue.damaged(f"slices of scan {scan} are missing")
        for _, number, file, thumbnail, checksum in own:
            if SliceRow(number, restored(file), thumbnail).checksum(scan) != checksum:
                raise catalogue.damaged(
                    f"slice {number} of scan {scan} does not match its checksum"
                )


def keep_canaries(gallery: Gallery, vectors: Mapping[str, np.ndarray]) -> None:
    """Store the (D,) float32 answers of the model to pictures that never change."""
    rows = [(name, vector.astype("<f4").tobytes()) for name, vector in vectors.items()]
    with gallery.writing():
        gallery.catalogue.connection.executemany(
            "INSERT OR REPLACE INTO canaries VALUES (?, ?, ?)",
            ((name, blob, _canary_checksum(name, blob)) for name, blob in rows),
        )


def stored_canaries(gallery: Gallery) -> dict[str, np.ndarray]:
    """The (D,) float32 vectors that `keep_canaries` stored; none in a gallery of format 1.

    Raises
    ------
    DamagedError : one does not match its checksum
    """
    connection = gallery.catalogue.connection
    found = {}
    with gallery.snapshot():
        if format_of(connection) < 2:
            return {}
        for name, blob, checksum in connection.execute("SELECT * FROM canaries ORDER BY name"):
            if _canary_checksum(name, blob) != checksum:
                raise gallery.catalogue.damaged(f"{name} does not match its checksum")
            found[name] = np.frombuffer(blob, "<f4")
    return found


def compare_canaries(
    stored: Mapping[str, np.ndarray], now: Mapping[str, np.ndarray]
) -> Iterator[Problem]:
    """The canaries that the model answers otherwise than when the gallery was built."""
    for name, vector in stored.items():
        cosine = float(vector @ now[name]) if name in now else 0.0
        if not cosine >= SAME_DIRECTION:
            yield Problem(
                "engine_changed",
                f"the model answers {name} otherwise than when the gallery was built "
                f"(cosine {cosine:.4f}): the engine or its version gives other vectors",
            )


def _canary_checksum(name: str, blob: bytes) -> bytes:
    return hashlib.blake2b(name.encode() + b"\n" + blob, digest_size=16).digest()
