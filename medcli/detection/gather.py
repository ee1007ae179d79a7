"""Scans with boxes → slices at the model's size, read once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from medcli.config import PreprocessConfig
from medcli.data.boxes import BoxSet, TrueBox, check_within
from medcli.data.likeness import Look, look_of
from medcli.data.survey import stop_if_many
from medcli.detection.arrays import BoxArrays
from medcli.imaging.batch import read_all
from medcli.imaging.hashing import pixel_sha256
from medcli.imaging.placing import into_square
from medcli.imaging.preprocess import LEVELS, Preprocessor, sample_slices
from medcli.records import Case, Failure, Scan

WITHOUT = 8  # slices without a box that are taken of a stack, evenly spaced


@dataclass(frozen=True, slots=True, eq=False)
class BoxScan:
    """A scan as training needs it: `slices` as `BoxArrays` hold them, what it looks like."""

    case: Case
    truths: tuple[TrueBox, ...]
    slices: BoxArrays
    pixel_sha256: str
    look: Look


def read_boxes(
    data: BoxSet,
    preprocess: PreprocessConfig,
    *,
    on_read: Callable[[int, int], None],
    on_failure: Callable[[Failure], None],
) -> list[BoxScan]:
    """Read every scan of `data`; unreadable ones are reported and left out.

    Raises
    ------
    ManifestError : a box leaves its picture
    ScanError : too many scans cannot be read
    """
    preprocessor = Preprocessor(preprocess)
    read: list[BoxScan] = []
    failures: list[Failure] = []
    pairs = zip(data.boxes, read_all(data.cases), strict=True)
    for done, (truths, (case, scan)) in enumerate(pairs, start=1):
        on_read(done, len(data.cases))
        if isinstance(scan, Failure):
            failures.append(scan)
            on_failure(scan)
            continue
        assert isinstance(case, Case)
        check_within(truths, scan)
        read.append(_resized(case, scan, truths, preprocessor, data.classes))
    stop_if_many(failures, len(data.cases))
    return read


def _resized(
    case: Case,
    scan: Scan,
    truths: Sequence[TrueBox],
    preprocessor: Preprocessor,
    classes: Sequence[str],
) -> BoxScan:
    """The slices with boxes, and some without."""
    held = sorted({box.slice for box in truths})
    others = np.setdiff1d(np.arange(len(scan.pixels)), held)
    chosen = sorted([*held, *others[sample_slices(len(others), WITHOUT)].tolist()])
    unit = preprocessor.unit_input(scan, slices=chosen)
    images = np.rint(unit * LEVELS).astype(np.uint8)
    shape, spacing = scan.pixels.shape[1:3], scan.spacing_mm[1:]
    boxes, labels = [], []
    for number in chosen:
        own = [box for box in truths if box.slice == number]
        corners = np.array([box.corners for box in own]).reshape(-1, 4)
        boxes.append(into_square(corners, shape, preprocessor.config.size, spacing))
        labels.append(np.array([1 + classes.index(box.label) for box in own], dtype=np.int64))
    return BoxScan(
        case=replace(case, patient_id=scan.patient_id),
        truths=tuple(truths),
        slices=BoxArrays(images, tuple(boxes), tuple(labels)),
        pixel_sha256=pixel_sha256(scan),
        look=look_of(images),
    )


def joined(scans: Sequence[BoxScan]) -> BoxArrays:
    """The slices of several scans in a row."""
    return BoxArrays(
        np.concatenate([scan.slices.images for scan in scans]),
        tuple(box for scan in scans for box in scan.slices.boxes),
        tuple(label for scan in scans for label in scan.slices.labels),
    )
