"""Scans of any format → a folder of NIfTI or PNG files with a manifest, or one `.npz`.

Nothing of a patient gets into names or tables: files and scans are numbered, and a
patient that only the tags name gets a number too.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

from medcli.config import Window
from medcli.data.manifest import BOX_COLUMNS
from medcli.data.npz_writer import NpzWriter
from medcli.errors import MedcliError, ScanError
from medcli.files import check_target, new_folder
from medcli.imaging.batch import read_all
from medcli.imaging.discovery import CONVERTED
from medcli.imaging.nifti_writer import write_nifti
from medcli.imaging.png_writer import Bits, Levels, choose_levels, render, write_png
from medcli.records import Case, Failure, Scan, ScanWarning

Target = Literal["nifti", "png", "npz"]
Row = dict[str, str]  # of the manifest

MANIFEST = "manifest.csv"
MEMBERS = "members.csv"  # of an `.npz`, which is read without a manifest
_FIRST_COLUMNS = ("path", "label", "patient_id", "scan_id")


@dataclass(frozen=True, slots=True)
class ConvertedScan:
    """One scan and the files made of it; `outputs` are relative to the new folder."""

    path: str
    scan_id: str
    files: tuple[str, ...]
    outputs: tuple[str, ...]
    warnings: tuple[ScanWarning, ...]


@dataclass(frozen=True, slots=True)
class Conversion:
    """What was made: every input in its order, and what was decided on the way."""

    folder: Path
    results: tuple[ConvertedScan | Failure, ...]
    notes: tuple[str, ...]


class Writer(Protocol):
    """Writes scans into a folder, one after the other."""

    def add(self, case: Case, scan: Scan) -> tuple[str, ...]:
        """Write a scan named `case.scan_id`; returns its files, relative to the folder."""

    def finish(self) -> tuple[list[Row], list[str]]:
        """Rows with `scan_id` and `path`, and what was decided without being told."""


def convert_scans(
    cases: Sequence[Case | Failure],
    output: Path,
    to: Target,
    *,
    window: Window | None = None,
    bits: Bits = 8,
    size: int = 64,
    overwrite: bool = False,
    on_scan: Callable[[int, int], None] = lambda done, total: None,
    on_failure: Callable[[Failure], None] = lambda failure: None,
) -> Conversion:
    """Write every readable scan into the new folder `output`.

    Parameters
    ----------
    cases : as from `medcli.data.gathering.gather_cases`
    to : "nifti" keeps geometry and values, which are those of a `Scan`: rescaled, larger is
        brighter, so that stored values of MONOCHROME1 come out inverted; "png" draws each
        slice; "npz" draws into squares of one size, laid out as MedMNIST does
    window : (center, width) for PNG and `.npz`; by default the file's own, else 0–255 of
        pictures, else percentiles of the scan
    bits : of a PNG; 16 keep whole numbers of a `Scan` as they are, the manifest says from
        which value
    size : rows and columns (of stacks also slices) in an `.npz`

    Raises
    ------
    OutputExistsError : `output` exists, and not `overwrite` or not written by a conversion
    ScanError : none of the scans can be read
    UsageError : what cannot stand in one `.npz`: stacks with pictures, some labels missing
    StorageError : the disk is full, or the folder cannot be written
    """
    check_conversion(output, overwrite=overwrite)
    results: list[ConvertedScan | Failure] = []
    facts: dict[str, Row] = {}  # by new scan_id
    with new_folder(output, overwrite=overwrite, replaceable=is_conversion) as folder:
        writer = _writer(to, folder, window, bits, size)
        naming = _Naming(cases)
        for case, scan in read_all(cases):
            result = _convert(case, scan, naming, writer, facts)
            results.append(result)
            if isinstance(result, Failure):
                on_failure(result)
            on_scan(len(results), len(cases))
        if not facts:
            raise _nothing(results)
        rows, notes = writer.finish()
        table = folder / (MEMBERS if to == "npz" else MANIFEST)
        _write_manifest(table, [{**facts[row["scan_id"]], **row} for row in rows])
        (folder / CONVERTED).write_text(json.dumps(_listing(folder)) + "\n")
    return Conversion(output, tuple(results), tuple(notes))


def check_conversion(output: Path, *, overwrite: bool) -> None:
    """Raise where `output` must not or cannot be written, before the long work.

    Raises
    ------
    OutputExistsError, StorageError : as `convert_scans`
    """
    check_target(output, overwrite=overwrite, replaceable=is_conversion)


def is_conversion(folder: Path) -> bool:
    """Whether a folder holds what a conversion wrote and nothing else."""
    try:
        written = json.loads((folder / CONVERTED).read_text())
    except (OSError, ValueError):
        return False
    return isinstance(written, list) and set(_listing(folder)) <= {*written, CONVERTED}


class _Naming:
    """Numbers for scans, and for patients that only their tags name."""

    def __init__(self, cases: Sequence[Case | Failure]) -> None:
        self._digits = max(4, len(str(len(cases))))
        self._scans = 0
        self._patients: dict[str, str] = {
            case.patient_id: case.patient_id
            for case in cases
            if isinstance(case, Case) and case.patient_id is not None
        }
        self._unnamed = 0

    def renamed(self, case: Case, scan: Scan) -> Case:
        """The case with its new `scan_id` and `patient_id`."""
        self._scans += 1
        scan_id = f"scan-{self._scans:0{self._digits}d}"
        return replace(case, scan_id=scan_id, patient_id=self._patient(scan.patient_id))

    def _patient(self, patient_id: str | None) -> str | None:
        """What the manifest names as it is, others by number."""
        if patient_id is None:
            return None
        if patient_id not in self._patients:
            self._unnamed += 1
            self._patients[patient_id] = f"anon-{self._unnamed:0{self._digits}d}"
        return self._patients[patient_id]


def _convert(
    case: Case | Failure,
    scan: Scan | Failure,
    naming: _Naming,
    writer: Writer,
    facts: dict[str, Row],
) -> ConvertedScan | Failure:
    """Write one scan and note its columns; a scan that the format cannot hold is a failure."""
    if isinstance(scan, Failure):
        return scan
    assert isinstance(case, Case)
    named = naming.renamed(case, scan)
    try:
        outputs = writer.add(named, scan)
    except ScanError as error:
        return Failure(case.path, error.code, str(error), "failed", case.files, case.scan_id)
    facts[named.scan_id] = {
        "label": named.label or "",
        "patient_id": named.patient_id or "",
        "split": named.split or "",
        "modality": scan.modality or "",
        **{name: value for name, value in case.columns.items() if name != "boxes"},
    }
    return ConvertedScan(scan.path, scan.scan_id, scan.files, outputs, scan.warnings)


def _writer(to: Target, folder: Path, window: Window | None, bits: Bits, size: int) -> Writer:
    if to == "nifti":
        return _NiftiWriter(folder)
    if to == "png":
        return _PngWriter(folder, window, bits)
    return NpzWriter(folder, size, window)


class _NiftiWriter:
    """One `.nii.gz` a scan."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._rows: list[Row] = []

    def add(self, case: Case, scan: Scan) -> tuple[str, ...]:
        """See `Writer`."""
        name = f"{case.scan_id}.nii.gz"
        write_nifti(self._folder / name, scan)
        boxes = [{**box, "slice": str(number)} for number, box in _boxes(case)]
        self._rows += [{"scan_id": case.scan_id, "path": name, **box} for box in boxes or [{}]]
        return (name,)

    def finish(self) -> tuple[list[Row], list[str]]:
        """See `Writer`."""
        return self._rows, []


class _PngWriter:
    """One PNG a slice, those of a stack in a folder of their own."""

    def __init__(self, folder: Path, window: Window | None, bits: Bits) -> None:
        self._folder = folder
        self._window = window
        self._bits: Bits = bits
        self._rows: list[Row] = []

    def add(self, case: Case, scan: Scan) -> tuple[str, ...]:
        """See `Writer`."""
        levels = choose_levels(scan, window=self._window, bits=self._bits)
        is_stack = len(scan.pixels) > 1
        if is_stack:
            (self._folder / case.scan_id).mkdir()
        names = []
        for number, pixels in enumerate(render(scan, levels)):
            name = f"{case.scan_id}/{number:04d}.png" if is_stack else f"{case.scan_id}.png"
            write_png(self._folder / name, pixels)
            place = {"slice": str(number)} if is_stack else {}
            boxes = [box for where, box in _boxes(case) if where == number]
            facts = {"scan_id": case.scan_id, **_pixel_facts(scan, levels, number)}
            self._rows += [{"path": name, **place, **box, **facts} for box in boxes or [{}]]
            names.append(name)
        return tuple(names)

    def finish(self) -> tuple[list[Row], list[str]]:
        """See `Writer`."""
        return self._rows, []


def _pixel_facts(scan: Scan, levels: Levels, number: int) -> Row:
    """What the PNG of a slice does not hold: the value of its levels, and the spacing in mm."""
    way_back = levels.way_back(number)
    spacing = zip("zyx", scan.spacing_mm, strict=True)
    return {
        "slope": "" if way_back is None else f"{way_back[0]:.9g}",
        "intercept": "" if way_back is None else f"{way_back[1]:.9g}",
        **{f"spacing_{axis}": "" if mm is None else f"{mm:.9g}" for axis, mm in spacing},
    }


def _boxes(case: Case) -> list[tuple[int, Row]]:
    """The boxes of a manifest: slice number, and the corners as columns."""
    boxes: list[list[float]] = json.loads(case.columns.get("boxes", "[]"))
    return [
        (int(box[4]), dict(zip(BOX_COLUMNS, (f"{value:g}" for value in box), strict=False)))
        for box in boxes
    ]


def _write_manifest(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    """CSV in UTF-8; columns that no row fills are left out, the first four excepted."""
    filled = dict.fromkeys(
        name for row in rows for name, value in row.items() if value and name not in _FIRST_COLUMNS
    )
    columns = [*_FIRST_COLUMNS, *filled]
    with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.DictWriter(file, columns, restval="", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def _listing(folder: Path) -> list[str]:
    """Every file below a folder, by its relative path."""
    return sorted(
        str(Path(parent, name).relative_to(folder))
        for parent, _, names in os.walk(folder)
        for name in names
    )


def _nothing(results: Iterable[ConvertedScan | Failure]) -> MedcliError:
    first = next((each for each in results if isinstance(each, Failure)), None)
    if first is None:
        return ScanError("no_scans", "no scan was found", "Name files or folders with images")
    return ScanError(first.code, f"no scan could be read; the first: {first.message}")
