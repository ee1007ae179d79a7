"""What lies in the boxes of a scan, as scans of their own: searched with, classified."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from medcli.imaging.hashing import pixel_sha256
from medcli.imaging.region import Box, crop_box
from medcli.records import Detection, Failure, FoundBox, Prediction, Scan, SearchResult
from medcli.retrieval.query import Query, Wanted
from medcli.retrieval.search import search_many

if TYPE_CHECKING:
    from medcli.inference.detector import Detector
    from medcli.inference.predictor import Predictor
    from medcli.retrieval.gallery import Gallery

AROUND = 0.15  # share of a box's sides that is taken on each side of it, where mm do not count


def cut_out(scan: Scan, box: FoundBox, region_mm: float | None) -> Scan:
    """What a model sees of a box.

    Parameters
    ----------
    region_mm : side of the cube that the model answers about; None, or a scan whose pixels
        have no known size: the box itself with a rim
    """
    exact = _whole_pixels(scan, box, 0.0)
    known = all(mm is not None for mm in scan.spacing_mm[1:])
    if len(scan.pixels) > 1:
        known = known and scan.spacing_mm[0] is not None
    if region_mm is not None and known:
        return crop_box(scan, exact, region_mm)
    return crop_box(scan, _whole_pixels(scan, box, AROUND))


def _whole_pixels(scan: Scan, box: FoundBox, rim: float) -> Box:
    """The pixels that a box touches and a rim around it, inside of the scan."""
    rows, columns = scan.pixels.shape[1:3]
    wide, high = rim * (box.x1 - box.x0), rim * (box.y1 - box.y0)
    x0, y0 = max(0, int(box.x0 - wide)), max(0, int(box.y0 - high))
    x1 = min(columns, max(x0 + 1, math.ceil(box.x1 + wide)))
    y1 = min(rows, max(y0 + 1, math.ceil(box.y1 + high)))
    return Box(min(x0, x1 - 1), min(y0, y1 - 1), x1, y1, box.slice, box.slice + 1)


def best_of_lesions(detection: Detection) -> list[FoundBox]:
    """The best box of each lesion, in the order of the lesions: what is asked about."""
    best: dict[int, FoundBox] = {}
    for box in detection.boxes:  # best first
        best.setdefault(box.lesion, box)
    return [best[number] for number in sorted(best)]


def search_boxes(
    gallery: Gallery,
    predictor: Predictor,
    scan: Scan,
    boxes: Sequence[FoundBox],
    *,
    k: int = 5,
) -> list[SearchResult]:
    """The stored scans most like what lies in each box; not the scan itself, nor its patient's.

    Parameters
    ----------
    predictor : the gallery's own model
    """
    pixels, patient = pixel_sha256(scan), gallery.patient_hash(scan.patient_id)
    region = predictor.region_mm
    queries = [
        Query.from_embedding(
            scan.path,
            predictor.embed(cut_out(scan, box, region)),
            patient=patient,
            pixel_sha256=pixels,
        )
        for box in boxes
    ]
    results = search_many(gallery, queries, Wanted(k=k))
    return [
        replace(result, query_slice=box.slice) for box, result in zip(boxes, results, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class JudgedBox:
    """A box and what a classifier says of what lies in it."""

    box: FoundBox
    prediction: Prediction


def classify_boxes(predictor: Predictor, scan: Scan, boxes: Sequence[FoundBox]) -> list[JudgedBox]:
    """What a model says of what lies in each box."""
    answers, asked = [], predictor.for_region()
    for box in boxes:
        (said,) = asked.predict([cut_out(scan, box, asked.region_mm)])
        assert isinstance(said, Prediction)  # the scan was read before
        answers.append(JudgedBox(box, said))
    return answers


def with_boxes(
    scans: Iterable[Scan | Failure],
    detector: Detector,
    predictor: Predictor,
    judged: deque[list[JudgedBox]],
) -> Iterator[Scan | Failure]:
    """The scans as they come; of each the best box of every lesion goes into `judged`.

    A failure has an empty list there, so that both stay side by side.
    """
    for scan in scans:
        if isinstance(scan, Failure):
            judged.append([])
        else:
            boxes = best_of_lesions(detector.detect(scan))
            judged.append(classify_boxes(predictor, scan, boxes))
        yield scan
