"""A detector on scans whose boxes are known; no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from medcli.data.boxes import TrueBox, check_within
from medcli.errors import ScanError
from medcli.evaluation.detection import ImageBoxes, detection_metrics
from medcli.evaluation.intervals import patient_groups
from medcli.imaging.batch import read_all
from medcli.imaging.hashing import pixel_sha256
from medcli.inference.detector import Detector
from medcli.records import Case, Failure, FoundBox


@dataclass(frozen=True, slots=True)
class MeasuredScan:
    """The true and found boxes of a scan, slice by slice."""

    case: Case
    patient_id: str | None
    pixel_sha256: str
    images: tuple[ImageBoxes, ...]


def measure_scans(
    detector: Detector,
    cases: Sequence[Case],
    truths: Sequence[Sequence[TrueBox]],
    *,
    on_scan: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[list[MeasuredScan], list[Failure]]:
    """Look for boxes in every slice of every scan.

    Raises
    ------
    ManifestError : a true box leaves its picture
    ScanError : nothing can be read
    """
    rows: list[MeasuredScan] = []
    failures: list[Failure] = []
    pairs = zip(truths, read_all(cases), strict=True)
    for done, (own, (case, scan)) in enumerate(pairs, start=1):
        on_scan(done, len(cases))
        if isinstance(scan, Failure):
            failures.append(scan)
            continue
        assert isinstance(case, Case)
        check_within(own, scan)
        found = detector.boxes(scan)
        classes = detector.package.task.classes
        images = tuple(_image(own, found, number, classes) for number in range(len(scan.pixels)))
        rows.append(MeasuredScan(case, scan.patient_id, pixel_sha256(scan), images))
    if not rows and failures:
        raise ScanError(failures[0].code, f"no scan could be read: {failures[0].message}")
    return rows, failures


def _image(
    truths: Sequence[TrueBox], found: Sequence[FoundBox], number: int, classes: Sequence[str]
) -> ImageBoxes:
    own = [box for box in truths if box.slice == number]
    here = [box for box in found if box.slice == number]
    return ImageBoxes(
        truths=np.array([box.corners for box in own]).reshape(-1, 4),
        truth_classes=np.array([classes.index(box.label) for box in own], dtype=int),
        boxes=np.array([(b.x0, b.y0, b.x1, b.y1) for b in here]).reshape(-1, 4),
        scores=np.array([box.score for box in here], dtype=float),
        classes=np.array([classes.index(box.label) for box in here], dtype=int),
    )


def box_metrics(rows: Sequence[MeasuredScan], num_classes: int, *, seed: int = 0) -> dict[str, Any]:
    """The fields of `medcli.evaluation.detection.detection_metrics`, each slice an image."""
    images = [image for row in rows for image in row.images]
    # A blank patient is unknown: each such scan, not each slice, stands for itself.
    keys = [row.patient_id or f"\0{place}" for place, row in enumerate(rows)]
    groups = patient_groups(
        [key for key, row in zip(keys, rows, strict=True) for _ in row.images], len(images)
    )
    metrics = detection_metrics(images, groups, num_classes, seed=seed)
    return {**metrics, "n_scans": len(rows), "n_patients": len(set(keys))}
