"""Manifests with boxes: what a detector learns from and is measured on.

Columns ``x0,y0,x1,y1`` in pixels of the picture, x1 and y1 exclusive, one line a box; a
scan whose lines have none holds no lesion. The label is that of the box, "lesion" where the
manifest gives none.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np

from medcli.data.manifest import (
    BOX_COLUMNS,
    Manifest,
    check_spelling,
    closest,
    no_box,
    read_manifest,
)
from medcli.data.sources import folder_manifest
from medcli.errors import ManifestError, ScanError, UsageError
from medcli.records import Case, Scan

UNNAMED = "lesion"


@dataclass(frozen=True, slots=True)
class TrueBox:
    """A box of a manifest; `line` says where it stands, for messages."""

    corners: tuple[float, float, float, float]
    slice: int
    label: str
    line: str


@dataclass(frozen=True, slots=True)
class BoxSet:
    """Scans with their boxes.

    Attributes
    ----------
    cases : without labels of their own
    boxes : of each case, by its place
    classes : labels of the boxes, sorted
    """

    cases: tuple[Case, ...]
    boxes: tuple[tuple[TrueBox, ...], ...]
    classes: tuple[str, ...]
    source: str
    warnings: tuple[str, ...] = ()


def load_boxes(inputs: Sequence[str], *, known: Sequence[str] | None = None) -> BoxSet:
    """The scans of one or several manifests with their boxes.

    Parameters
    ----------
    inputs : manifests, or folders that hold a `manifest.csv`
    known : classes of a trained detector. Boxes of others are an error

    Raises
    ------
    ScanError : an input is missing
    UsageError : an input is no manifest
    ManifestError : an unusable manifest; a box that is inverted, empty or begins outside the
        picture; no box at all; a label that the detector does not know
    """
    cases: list[Case] = []
    boxes: list[tuple[TrueBox, ...]] = []
    warnings: list[str] = []
    for name in inputs:
        manifest = read_manifest(_manifest_of(name), labelled_boxes=True)
        _require_columns(manifest)
        cases += manifest.cases
        boxes += [_boxes(manifest, place) for place in range(len(manifest.cases))]
        warnings += manifest.warnings
        warnings += [f"{count} dropped: {reason}" for reason, count in manifest.dropped.items()]
    source = ", ".join(inputs)
    labels = [box.label for own in boxes for box in own]
    check_spelling(source, labels)
    if not labels:
        raise ManifestError(
            f"{source}: no line has a box", f"Give {', '.join(BOX_COLUMNS)} in pixels"
        )
    classes = tuple(known or sorted(set(labels)))
    for strange in sorted(set(labels) - set(classes)):
        raise ManifestError(
            f"{source}: boxes of {strange!r}, which the detector does not know",
            f"{closest(strange, classes)}It knows {', '.join(classes)}",
        )
    return BoxSet(tuple(cases), tuple(boxes), classes, source, tuple(warnings))


def check_within(boxes: Sequence[TrueBox], scan: Scan) -> None:
    """Raise where a box leaves its picture, or stands in a slice that is not there.

    Raises
    ------
    ManifestError : names the line
    """
    count, height, width = scan.pixels.shape[:3]
    for box in boxes:
        if not box.slice < count:
            raise ManifestError(
                f"{box.line}: a box in slice {box.slice} of a scan of {count}",
                "Slices count from 0",
            )
        if box.corners[2] > width or box.corners[3] > height:
            raise ManifestError(
                f"{box.line}: the box {_told(box.corners)} leaves its picture of "
                f"{width} x {height} pixels",
                "Boxes are in pixels of the file itself, x1 and y1 exclusive",
            )


def unusable_boxes(case: Case, scan: Scan) -> Iterator[str]:
    """What is wrong with each box of a scan with which a detector could not be trained.

    Parameters
    ----------
    case : of `read_manifest` with `any_boxes`
    """
    name = PurePath(case.path).name
    for values in json.loads(case.columns.get("boxes", "[]")):
        try:
            check_within([_box(name, values, case.label or "")], scan)
        except ManifestError as error:
            yield error.message


def _manifest_of(name: str) -> Path:
    path = Path(name)
    if not path.exists():
        raise ScanError("not_found", f"{name} does not exist")
    manifest = folder_manifest(path) if path.is_dir() else path
    if manifest is None or manifest.suffix.lower() != ".csv":
        raise UsageError(
            f"{name} is no manifest with boxes",
            f"A detector learns from a .csv with path, {', '.join(BOX_COLUMNS)}",
        )
    return manifest


def _require_columns(manifest: Manifest) -> None:
    missing = [name for name in BOX_COLUMNS if name not in manifest.columns]
    if missing:
        raise ManifestError(
            f"{manifest.path} has no column {missing[0]!r}",
            f"A detector learns from {', '.join(BOX_COLUMNS)}; for classes alone leave "
            "-detection out of --task",
        )


def _boxes(manifest: Manifest, place: int) -> tuple[TrueBox, ...]:
    """The boxes of one scan, each with the line it stands in."""
    corners = json.loads(manifest.cases[place].columns.get("boxes", "[]"))
    lines = zip(manifest.lines[place], manifest.numbers[place], strict=True)
    held = [(line, n) for line, n in lines if any(line.get(c, "").strip() for c in BOX_COLUMNS)]
    return tuple(
        _box(f"{manifest.path}, line {number}", values, line.get("label", "").strip())
        for values, (line, number) in zip(corners, held, strict=True)
    )


def _box(line: str, values: Sequence[float | str], label: str) -> TrueBox:
    numbers = [value for value in values if not isinstance(value, str)]
    if len(numbers) < len(values):
        raise no_box(line, values[:4])
    x0, y0, x1, y1, number = numbers
    corners = (x0, y0, x1, y1)
    if not np.isfinite(numbers).all() or number != int(number) or number < 0:
        raise ManifestError(f"{line}: a box of {_told(corners)} in slice {number:g}")
    if x1 <= x0 or y1 <= y0:
        what = "inverted" if x1 < x0 or y1 < y0 else "empty"
        raise ManifestError(
            f"{line}: the box {_told(corners)} is {what}",
            "x1 is greater than x0 and y1 than y0; the picture's first row is y = 0",
        )
    if x0 < 0 or y0 < 0:
        raise ManifestError(
            f"{line}: the box {_told(corners)} begins outside the picture",
            "Pixels count from 0",
        )
    return TrueBox(corners, int(number), label or UNNAMED, line)


def _told(corners: Sequence[float]) -> str:
    return "(" + ", ".join(f"{value:g}" for value in corners) + ")"
