"""Scans → one `.npz` laid out as MedMNIST does: uint8 squares, labels as digits.

References
----------
Yang et al., MedMNIST v2, Scientific Data 10:41 (2023)
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from medcli.config import Window
from medcli.data.findings import finding_names, indicator, names_several
from medcli.data.splits import PARTS, split_by_patient
from medcli.errors import ManifestError, UsageError
from medcli.imaging.display import shades
from medcli.imaging.png_writer import choose_levels
from medcli.imaging.resize import resize, triangle_weights
from medcli.records import Case, Scan

ARCHIVE = "scans.npz"
SPOOL = ".spool"


class NpzWriter:
    """Collects pictures in a file beside the archive, so that memory stays small.

    A picture becomes (size, size), in true proportion with black around it. Where one scan
    is a stack all become (size, size, size), stretched along the slices. Parts are those
    that the scans name; where none does, scans with labels are split by patient.
    """

    def __init__(self, folder: Path, size: int, window: Window | None) -> None:
        self._folder = folder
        self._size = size
        self._window = window
        self._spool = folder / SPOOL
        self._cases: list[Case] = []
        self._shapes: list[tuple[int, int]] = []  # slices (1 or size) and channels

    def add(self, case: Case, scan: Scan) -> tuple[str, ...]:
        """Draw a scan; which member of the archive it becomes is known at the end."""
        tones = choose_levels(scan, window=self._window).tones
        squares = resize(shades(scan.pixels, tones), self._size, scan.spacing_mm[1:])
        if len(squares) > 1:
            weights = triangle_weights(len(squares), self._size)
            squares = weights @ squares.reshape(len(squares), -1)
        with self._spool.open("ab") as spool:
            spool.write(np.rint(squares * 255).astype(np.uint8).tobytes())
        self._cases.append(case)
        self._shapes.append((self._size if len(scan.pixels) > 1 else 1, scan.pixels.shape[3]))
        return (ARCHIVE,)

    def finish(self) -> tuple[list[dict[str, str]], list[str]]:
        """Write the archive; its rows name the member and the part of each scan.

        Raises
        ------
        UsageError : some scans have a label and some have none; stacks, and colour
        """
        if any(slices > 1 for slices, _ in self._shapes) and any(c == 3 for _, c in self._shapes):
            raise UsageError("an .npz holds stacks or colour, not both", "Convert --to png")
        classes = _classes(self._cases)
        parts, notes = _parts(self._cases, labelled=bool(classes))
        rows: list[dict[str, str]] = []
        with zipfile.ZipFile(self._folder / ARCHIVE, "w", zipfile.ZIP_DEFLATED) as archive:
            for part, places in parts.items():
                self._write_images(archive, f"{part}_images", places)
                if classes:
                    labels = [str(self._cases[place].label) for place in places]
                    _write_array(archive, f"{part}_labels", _digits(labels, classes))
                rows += [
                    {
                        "path": ARCHIVE,
                        "member": f"{part}_images/{number}",
                        "scan_id": self._cases[place].scan_id,
                        "split": part,
                    }
                    for number, place in enumerate(places)
                ]
            if classes:
                _write_array(archive, "class_names", np.array(classes))
        self._spool.unlink()
        return rows, notes

    def _write_images(self, archive: zipfile.ZipFile, name: str, places: Sequence[int]) -> None:
        """An array of the pictures at `places`, one picture in memory at a time."""
        slices, channels = (max(each) for each in zip(*self._shapes, strict=True))
        square = self._size**2
        starts = np.cumsum([0, *(square * math.prod(shape) for shape in self._shapes)])
        item = (slices,) * (slices > 1) + (self._size,) * 2 + (3,) * (channels == 3)
        header = {"descr": "|u1", "fortran_order": False, "shape": (len(places), *item)}
        member = archive.open(f"{name}.npy", "w", force_zip64=True)
        with member, self._spool.open("rb") as spool:
            npy.write_array_header_1_0(member, header)
            for place in places:
                own_slices, own_channels = self._shapes[place]
                spool.seek(int(starts[place]))
                data = spool.read(square * own_slices * own_channels)
                pixels = np.frombuffer(data, np.uint8).repeat(channels // own_channels)
                member.write(pixels.tobytes() * (slices // own_slices))


def _write_array(archive: zipfile.ZipFile, name: str, array: np.ndarray) -> None:
    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
        npy.write_array(member, array, allow_pickle=False)


def _classes(cases: Sequence[Case]) -> list[str]:
    """The labels, or the findings they name, sorted. Empty where no scan has one."""
    labelled = [case.label for case in cases if case.label is not None]
    if labelled and len(labelled) < len(cases):
        raise UsageError(
            f"{len(cases) - len(labelled)} of {len(cases)} scans have no label",
            "An .npz holds labels for all pictures or for none: leave the others out",
        )
    if names_several(labelled):
        return list(finding_names(labelled))
    return sorted(set(labelled))


def _digits(labels: Sequence[str], classes: Sequence[str]) -> np.ndarray:
    """(N, 1) numbers of the classes; of findings (N, F) of 0 and 1."""
    if not set(labels) <= set(classes):
        return indicator(labels, classes)
    kind = np.uint8 if len(classes) <= 256 else np.uint16
    return np.array([[classes.index(label)] for label in labels], kind)


def _parts(cases: Sequence[Case], *, labelled: bool) -> tuple[dict[str, list[int]], list[str]]:
    """Places of the scans in train, val and test; a part without scans is left out."""
    notes = []
    split = {case.scan_id: case.split or "train" for case in cases}
    if labelled and not any(case.split for case in cases):
        try:
            carved = split_by_patient(cases)
            split = {case.scan_id: part for part in PARTS for case in getattr(carved, part)}
            notes = ["split by patient into train, val and test", *carved.warnings]
        except ManifestError as error:
            notes = [f"all scans are in the training part: {error.message}"]
    places: dict[str, list[int]] = {part: [] for part in PARTS}
    for place, case in enumerate(cases):
        places[split[case.scan_id]].append(place)
    return {part: found for part, found in places.items() if found}, notes
