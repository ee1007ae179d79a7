"""A gallery as files that any program reads: NumPy arrays with CSV tables, or Parquet.

::

    export/
    ├── export.json        format version, fingerprint of the model, generation, counts
    ├── vectors.npy        (N, D) float16, the scan as a whole; row i is row i of scans.csv
    ├── slice_vectors.npy  (M, D) float16; row j is row j of slices.csv
    ├── scans.csv          id, scan_id, path, label, patient, modality, …
    └── slices.csv         id of the scan, slice, view

Parquet has `scans.parquet` and `slices.parquet` in their place, each with a column `vector`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from medcli.errors import UsageError
from medcli.files import new_folder
from medcli.retrieval.rows import StoredScan
from medcli.retrieval.storage import storage_errors

if TYPE_CHECKING:
    from medcli.retrieval.gallery import Gallery

FORMAT_VERSION = 1
EXPORT_JSON = "export.json"
_NAMES = {
    "numpy": ("vectors.npy", "slice_vectors.npy", "scans.csv", "slices.csv"),
    "parquet": ("scans.parquet", "slices.parquet"),
}
Kind = Literal["numpy", "parquet"]
Row = dict[str, Any]
WriteTable = Callable[[Path, Sequence[Mapping[str, Any]]], None]


def export_gallery(
    gallery: Gallery,
    folder: Path,
    *,
    write_table: WriteTable,
    kind: Kind = "numpy",
    hide_paths: bool = False,
    overwrite: bool = False,
) -> Mapping[str, Any]:
    """Write all rows and vectors of one generation; return what `export.json` says.

    Parameters
    ----------
    write_table : writes rows of one shape as CSV
    hide_paths : leave out the columns that name files

    Raises
    ------
    UsageError : "parquet" without pyarrow
    OutputExistsError : `folder` exists, or is no export
    DamagedError, StorageError : a row does not match its checksum; the disk is full
    """
    if kind == "parquet":
        _pyarrow()
    with (
        storage_errors(folder),
        new_folder(folder, overwrite=overwrite, replaceable=is_export) as draft,
        gallery.snapshot() as state,
    ):
        scans: list[Row] = []
        slices: list[Row] = []
        shape = (state.scans, gallery.dim), (state.slice_vectors, gallery.dim)
        arrays = [_array(draft / name, each) for name, each in zip(_NPY, shape, strict=True)]
        for scan in gallery.catalogue.stored():
            whole = scan.slice_numbers < 0
            arrays[0][len(scans)] = scan.vectors[whole][0]
            scans.append(_scan_row(scan, hide_paths=hide_paths))
            own = list(_slice_rows(scan))
            arrays[1][len(slices) : len(slices) + len(own)] = scan.vectors[~whole]
            slices += own
        _write(draft, kind, arrays, (scans, slices), write_table)
        facts = {
            "format_version": FORMAT_VERSION,
            "fingerprint": gallery.fingerprint,
            "dim": gallery.dim,
            "generation": state.generation,
            "scans": len(scans),
            "slice_vectors": len(slices),
            "files": list(_NAMES[kind]),
        }
        (draft / EXPORT_JSON).write_text(json.dumps(facts, indent=2) + "\n")
    return facts


def is_export(folder: Path) -> bool:
    """Whether `folder` holds an export and nothing else, so that it may be replaced."""
    known = {EXPORT_JSON, *(name for names in _NAMES.values() for name in names)}
    names = {item.name for item in folder.iterdir()} if folder.is_dir() else set()
    return EXPORT_JSON in names and names <= known


_NPY = ("vectors.npy", "slice_vectors.npy")


def _array(file: Path, shape: tuple[int, int]) -> np.ndarray:
    """An array on disk, to be filled row by row; one without rows cannot be mapped."""
    if 0 in shape:
        np.save(file, np.empty(shape, np.float16), allow_pickle=False)
        return np.empty(shape, np.float16)
    return np.lib.format.open_memmap(file, mode="w+", dtype=np.float16, shape=shape)


def _write(
    draft: Path,
    kind: Kind,
    arrays: Sequence[np.ndarray],
    tables: tuple[list[Row], list[Row]],
    write_table: WriteTable,
) -> None:
    """The tables beside the arrays, or both as Parquet."""
    for array in arrays:
        if isinstance(array, np.memmap):
            array.flush()
    if kind == "numpy":
        for name, table in zip(("scans.csv", "slices.csv"), tables, strict=True):
            write_table(draft / name, table)
        return
    for name, table, array in zip(_NAMES["parquet"], tables, arrays, strict=True):
        _write_parquet(draft / name, table, array)
    for name in _NPY:
        (draft / name).unlink()


def _scan_row(scan: StoredScan, *, hide_paths: bool) -> Row:
    row = scan.row
    return {
        "id": scan.id,
        "scan_id": None if hide_paths else row.scan_id,
        "path": None if hide_paths else row.path,
        "label": row.label,
        "patient": row.patient,
        "modality": row.modality,
        "format": row.format,
        "slices": row.n_slices,
        "pixel_sha256": row.pixel_sha256,
    }


def _slice_rows(scan: StoredScan) -> Iterator[Row]:
    for number, view in zip(scan.slice_numbers.tolist(), scan.views, strict=True):
        if number >= 0:
            yield {"id": scan.id, "slice": number, "view": view}


def _write_parquet(file: Path, table: list[Row], vectors: np.ndarray) -> None:
    """One Parquet file of the rows and their (N, D) vectors."""
    pyarrow, parquet = _pyarrow()
    columns = {name: [row[name] for row in table] for name in (table[0] if table else ())}
    flat = pyarrow.array(np.ascontiguousarray(vectors).ravel())
    columns["vector"] = pyarrow.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
    parquet.write_table(pyarrow.table(columns), file)


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise UsageError(
            "Parquet needs pyarrow, which is not installed",
            "pip install 'medcli[parquet]', or leave out --format",
        ) from error
    return pyarrow, parquet
