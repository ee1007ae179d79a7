"""What was found in a scan, as a picture, as COCO, as rows of a table, as queries."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from medcli.config import Window
from medcli.imaging.display import display_slices
from medcli.records import Detection, FoundBox, Scan
from medcli.report.boxes import draw_boxes
from medcli.report.contact_sheet import Panel, contact_sheet

MOST_SLICES = 10
"""So many slices of a volume are drawn, those with the best boxes."""
_PICTURE, _SLICE, _COLUMNS = 512, 256, 5  # pixels; columns of slices


def detection_picture(
    scan: Scan, detection: Detection, title: str, window: Window | None = None
) -> bytes:
    """A PNG of the slices with their boxes; without boxes the middle slice."""
    classes = sorted({box.label for box in detection.boxes})
    slices = list(dict.fromkeys(box.slice for box in detection.boxes))[:MOST_SLICES]
    shown = sorted(slices) or [len(scan.pixels) // 2]
    alone = len(shown) == 1
    side = _PICTURE if alone else _SLICE
    drawn = []
    pictures = display_slices(scan, shown, window=window, edge=side)
    for number, picture in zip(shown, pictures, strict=True):
        own = [box for box in detection.boxes if box.slice == number]
        rows, columns = scan.pixels.shape[1:3]
        wide, high = picture.shape[1] / columns, picture.shape[0] / rows
        drawn.append(
            draw_boxes(
                picture,
                [(b.x0 * wide, b.y0 * high, b.x1 * wide, b.y1 * high) for b in own],
                [f"{box.label} {box.score:.2f}" for box in own],
                [classes.index(box.label) for box in own],
            )
        )
    captions = ["" if len(scan.pixels) == 1 else f"{number}" for number in shown]
    panel = Panel(title, facts(detection, len(scan.pixels)), drawn, captions)
    return contact_sheet([panel], columns=1 if alone else _COLUMNS, side=side)


def facts(detection: Detection, slices: int) -> str:
    """What was found, in words."""
    if not detection.boxes:
        return f"{detection.task}: nothing found"
    boxes = _count(len(detection.boxes), "box", "boxes")
    if slices == 1:
        return f"{detection.task}: {boxes}"
    lesions = _count(len(detection.lesions), "lesion", "lesions")
    return f"{detection.task}: {boxes} in {slices} slices, {lesions}"


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def box_rows(detection: Detection, path: str) -> list[dict[str, Any]]:
    """A row of a table for each box, with the columns of a manifest and its score.

    A manifest of them can be trained on once a person has looked at it.
    """
    return [
        {
            "path": path,
            "label": box.label,
            "slice": box.slice,
            **{name: round(getattr(box, name), 1) for name in ("x0", "y0", "x1", "y1")},
            "score": round(box.score, 4),
            "lesion": box.lesion,
        }
        for box in detection.boxes
    ]


COLUMNS = ("path", "label", "slice", "x0", "y0", "x1", "y1", "score", "lesion")
"""Of `box_rows`."""


def coco_json(
    found: Sequence[tuple[str, tuple[int, int, int], Detection]], classes: Sequence[str]
) -> Mapping[str, Any]:
    """Answers in the format of COCO: an image a slice, an annotation a box.

    Parameters
    ----------
    found : of each scan what stands for its path, (slices, rows, columns), and the answer
    classes : of the detector, which become categories 1, 2, …

    References
    ----------
    cocodataset.org, Data format and Results format; boxes are [x, y, width, height]
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for path, (slices, rows, columns), detection in found:
        first = len(images) + 1
        for number in range(slices):
            name = os.path.basename(path) if slices == 1 else f"{os.path.basename(path)}#{number}"
            image = {"id": first + number, "file_name": name, "height": rows, "width": columns}
            images.append({**image, "slice": number})
        for box in detection.boxes:
            place = len(annotations) + 1
            annotations.append(_annotation(box, place, first + box.slice, classes))
    return {
        "info": {"description": f"medcli {version('medcli')}: candidate lesions, research use"},
        "images": images,
        "categories": [{"id": k, "name": name} for k, name in enumerate(classes, start=1)],
        "annotations": annotations,
    }


def _annotation(box: FoundBox, place: int, image: int, classes: Sequence[str]) -> dict[str, Any]:
    width, height = box.x1 - box.x0, box.y1 - box.y0
    return {
        "id": place,
        "image_id": image,
        "category_id": 1 + classes.index(box.label),
        "bbox": [round(value, 1) for value in (box.x0, box.y0, width, height)],
        "area": round(width * height, 1),
        "iscrowd": 0,
        "score": round(box.score, 4),
    }
