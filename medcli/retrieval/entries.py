"""Scans on their way into a gallery: checked, converted to rows, stored."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from medcli.errors import MismatchError, ScanError
from medcli.records import Embedding, Failure, GalleryEntry, ScanWarning, Source
from medcli.retrieval.catalogue import Catalogue
from medcli.retrieval.rows import ScanRow, SliceRow, StoredScan, VectorRow, storable
from medcli.retrieval.sources import touch

Outcome = Literal["added", "updated", "unchanged"]

_NORM_TOLERANCE = 1e-3
_ROUNDED_AT_ONCE = 4  # vectors whose roundings stay in the cache of the processor
_ROUNDING_SCALES = 1 + np.linspace(-2e-4, 2e-4, 81)


@dataclass(frozen=True, slots=True)
class AddReport:
    """What became of the entries given to `Gallery.add`."""

    added: int = 0
    updated: int = 0
    unchanged: int = 0
    refused: tuple[Failure, ...] = ()
    warnings: tuple[ScanWarning, ...] = ()


@dataclass(frozen=True, slots=True)
class EntryRows:
    """One entry as the catalogue takes it."""

    scan: ScanRow
    vectors: tuple[VectorRow, ...]
    slices: tuple[SliceRow, ...]
    source: Source | None = None


def unit_vectors(vectors: np.ndarray, dim: int, name: str) -> np.ndarray:
    """(V, D) vectors → (V, D) float32 of length one, if they were that but for rounding.

    Parameters
    ----------
    dim : D of the gallery
    name : whose vectors they are, for the message

    Raises
    ------
    MismatchError : vectors of another length
    ScanError : NaN, infinite, zero, or not of unit length (code "bad_vector")
    """
    if vectors.ndim != 2 or vectors.shape[1] != dim:
        raise MismatchError(
            f"the vectors of {name} have {vectors.shape[-1]} values, the gallery's {dim}",
            "use the gallery's own model: leave out --model",
        )
    wide = vectors.astype(np.float64)
    norms = np.linalg.norm(wide, axis=1, keepdims=True)
    if not np.isfinite(norms).all() or (np.abs(norms - 1.0) > _NORM_TOLERANCE).any():
        raise ScanError(
            "bad_vector",
            f"the model gave no unit vector for {name}",
            "look at the pixels with: medcli inspect",
        )
    unit: np.ndarray = (wide / norms).astype(np.float32)
    return unit


def rounded_unit_vectors(vectors: np.ndarray) -> np.ndarray:
    """(V, D) float32 unit vectors → (V, D) float16 whose length is nearest to one.

    Rounding hardly turns a vector (1 - cos is about 1e-8) but changes its length by up to
    1e-4, and an inner product feels the length: neighbouring slices of a CT differ by less.
    So each vector is rounded at several scales close to one, and the rounding that comes
    out with the best length is kept.
    """
    best = np.empty(vectors.shape, np.float16)
    for start in range(0, len(vectors), _ROUNDED_AT_ONCE):
        wide = vectors[start : start + _ROUNDED_AT_ONCE].astype(np.float64)
        halves = (wide * _ROUNDING_SCALES[:, None, None]).astype(np.float16)  # (scales, V, D)
        off = np.abs(np.linalg.norm(halves.astype(np.float64), axis=2) - 1)
        best[start : start + len(wide)] = halves[off.argmin(axis=0), np.arange(len(wide))]
    return best


def entry_rows(
    entry: GalleryEntry, patient: str | None, dim: int, marks: Mapping[str, str] | None = None
) -> EntryRows:
    """The rows of `entry`; paths become absolute.

    Parameters
    ----------
    patient : the keyed hash
    marks : of the study, from `medcli.retrieval.studies.study_marks`

    Raises
    ------
    MismatchError, ScanError : see `unit_vectors`
    ScanError : a name that no file system holds (code "bad_name")
    ValueError : slice numbers outside of the scan
    """
    files = tuple(os.path.abspath(file) for file in entry.files)
    slice_files = tuple(os.path.abspath(file) for file in entry.slice_files)
    scan = ScanRow(
        scan_id=entry.scan_id,
        path=os.path.abspath(entry.path),
        files=files,
        n_slices=len(slice_files),
        label=entry.label,
        patient=patient,
        modality=entry.modality,
        format=entry.format,
        decoder=entry.decoder,
        pixel_sha256=entry.pixel_sha256,
        metadata={**entry.metadata, **(marks or {})},
    )
    _check_names(entry, (scan.path, scan.scan_id, scan.label or "", *files, *slice_files))
    slices = tuple(
        SliceRow(number, file, entry.thumbnails.get(number))
        for number, file in enumerate(slice_files)
    )
    _check_slices(entry)
    return EntryRows(scan, vector_rows(entry.embedding, dim, entry.path), slices, entry.source)


def _check_names(entry: GalleryEntry, names: tuple[str, ...]) -> None:
    """Names that are no UTF-8 are stored as bytes; what stands for no bytes cannot be."""
    try:
        for name in names:
            storable(name)
    except ValueError as error:
        raise ScanError(
            "bad_name",
            f"the name {entry.path!a} cannot be stored",
            "rename the file and add it again",
        ) from error


def _check_slices(entry: GalleryEntry) -> None:
    """Slice numbers that the scan does not have are a mistake in the program."""
    embedding = entry.embedding
    numbers = [int(number) for number in embedding.slice_numbers]
    in_range = all(0 <= number < len(entry.slice_files) for number in numbers)
    if not in_range or not len(numbers) == len(embedding.slice_vectors) == len(
        embedding.slice_views
    ):
        raise ValueError(f"slice numbers do not fit {len(entry.slice_files)} slices")


def vector_rows(embedding: Embedding, dim: int, name: str) -> tuple[VectorRow, ...]:
    """The vector of the scan called `name`, then those of its slices, as float16.

    Raises
    ------
    MismatchError, ScanError : see `unit_vectors`
    """
    numbers = [int(number) for number in embedding.slice_numbers]
    vectors = embedding.vector[np.newaxis]
    if numbers:
        vectors = np.concatenate([vectors, embedding.slice_vectors])
    halves = rounded_unit_vectors(unit_vectors(vectors, dim, name))
    views = ("model", *embedding.slice_views)
    return tuple(
        VectorRow(number, view, vector)
        for number, view, vector in zip((None, *numbers), views, halves, strict=True)
    )


def store(catalogue: Catalogue, rows: EntryRows, replaces: int | None = None) -> Outcome:
    """Insert `rows`, or replace the same scan if its pixels, label or patient have changed.

    What a new entry does not know (label, patient) is no change and stays. A replaced scan
    gets a new id; its old rows go in the same transaction.

    Parameters
    ----------
    replaces : id of the scan in whose place this one has come, whatever it is called
    """
    old = next(catalogue.stored([replaces]), None) if replaces is not None else None
    if old is not None:
        catalogue.delete(old.id)
    stored = _stored_already(catalogue, rows.scan)
    if stored is not None and _is_same(stored.row, rows.scan):
        if rows.source is not None and stored.row.files == rows.scan.files:
            touch(catalogue, stored.id, rows.source)
        return "unchanged" if old is None else "updated"
    if stored is not None:
        catalogue.delete(stored.id)
    before = stored or old
    scan = rows.scan
    if before is not None:
        scan = replace(
            scan,
            label=scan.label or before.row.label,
            patient=scan.patient or before.row.patient,
        )
    catalogue.insert(scan, rows.vectors, rows.slices, rows.source)
    return "added" if before is None else "updated"


def _stored_already(catalogue: Catalogue, scan: ScanRow) -> StoredScan | None:
    """The stored scan of the same `scan_id`, else of the same pixels and files."""
    found = catalogue.find("scan_id", scan.scan_id)
    if found:
        return next(catalogue.stored(found))
    if scan.pixel_sha256 is None:
        return None
    twins = catalogue.stored(catalogue.find("pixel_sha256", scan.pixel_sha256))
    place = (scan.path, scan.files)
    return next((twin for twin in twins if (twin.row.path, twin.row.files) == place), None)


def _is_same(old: ScanRow, new: ScanRow) -> bool:
    """Whether `new` says nothing that `old` does not say."""
    return (
        new.pixel_sha256 is not None
        and new.pixel_sha256 == old.pixel_sha256
        and new.label in (None, old.label)
        and new.patient in (None, old.patient)
    )
