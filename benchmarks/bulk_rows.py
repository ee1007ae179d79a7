"""Galleries of a million rows in a minute, to be measured: rows in bulk, past `Gallery.add`.

The rows are those that `scale.fill` stores, but for vectors rounded to float16 as they come, not at
the best of several lengths. How fast rows come in by the proper way is what scale.py measures.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scale import DIM, entry, package_beside, vectors

from medcli.records import GalleryEntry
from medcli.retrieval.gallery import Gallery
from medcli.retrieval.rows import FIELDS, ScanRow, SliceRow, row_checksum, source_values

ROOT = "/archive"
_COLUMNS = FIELDS.count(",") + 3  # with the id and the checksum
_INSERTS = (
    f"INSERT INTO scans (id, {FIELDS}, checksum) VALUES ({', '.join('?' * _COLUMNS)})",
    "INSERT INTO sources VALUES (?, ?, ?, ?, ?)",
    "INSERT INTO vectors (scan, slice, view, vector) VALUES (?, NULL, 'model', ?)",
    "INSERT INTO slices VALUES (?, ?, ?, ?, ?)",
)


def fill_in_bulk(path: Path, count: int, seed: int) -> None:
    """A gallery of `count` scans of one slice, with its indexes."""
    package = package_beside(path)
    with Gallery.build(
        path, model_dir=package, fingerprint="0" * 64, dim=DIM, root=ROOT
    ) as gallery:
        with gallery.writing():
            connection = gallery.catalogue.connection
            for start, part in _parts(count, seed):
                rows = zip(
                    *(_rows(gallery, start + n, row) for n, row in enumerate(part)), strict=True
                )
                for insert, values in zip(_INSERTS, rows, strict=True):
                    connection.executemany(insert, values)
            gallery.catalogue.set_meta("scans", count)
        gallery.refresh()


def _parts(count: int, seed: int) -> Iterator[tuple[int, np.ndarray]]:
    """The vectors in parts, with the number of the first row of each."""
    start = 0
    for part in vectors(count, seed, count):
        yield start, part.astype("<f2")
        start += len(part)


def _rows(gallery: Gallery, number: int, vector: np.ndarray) -> tuple[tuple[Any, ...], ...]:
    """The rows of one scan, one a table."""
    made: GalleryEntry = entry(f"{ROOT}/{number // 1000:04}/{number:08}.dcm", number, vector)
    row = ScanRow(
        scan_id=made.scan_id,
        path=made.path,
        files=made.files,
        n_slices=1,
        label=made.label,
        patient=gallery.patient_hash(made.patient_id),
        modality=made.modality,
        pixel_sha256=made.pixel_sha256,
    )
    scan, blob = number + 1, vector.tobytes()
    columns = row.below(ROOT).columns()
    part = SliceRow(0, made.slice_files[0]).below(ROOT)
    return (
        (scan, *columns, row_checksum(columns, [(None, "model", blob)])),
        source_values(scan, columns, None),
        (scan, blob),
        part.values(scan),
    )
