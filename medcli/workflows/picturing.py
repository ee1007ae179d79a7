"""Pictures of queries and hits, seen through the same window where that can be."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from medcli.errors import ScanError
from medcli.imaging.batch import read_all
from medcli.imaging.display import display_slice
from medcli.records import Case, Hit, Scan
from medcli.report.contact_sheet import BACKGROUND, Panel, contact_sheet
from medcli.report.pictures import encode_jpeg, fit
from medcli.retrieval.sources import stored_sources
from medcli.workflows.sources import SourceWatch, case_of

if TYPE_CHECKING:
    from medcli.config import Window
    from medcli.models.package import ModelPackage
    from medcli.retrieval.gallery import Gallery
    from medcli.retrieval.query import Query
    from medcli.workflows.searching import Answer

SIDE = 192  # pixels
HitKey = tuple[str, int, int | None]  # query, id, slice


@dataclass(frozen=True, slots=True)
class Pictures:
    """JPEGs by query and by (query, id, slice) of a hit, and the windows of those in HU."""

    queries: dict[str, bytes]
    hits: dict[HitKey, bytes]
    windows: dict[str | HitKey, str]


def pictures_of(gallery: Gallery, package: ModelPackage, answers: Sequence[Answer]) -> Pictures:
    """Draw each query, and its hits through the same window.

    The window is that of the query; of a query that is a picture made to be looked at, the
    one through which its hit was indexed and found. A hit is drawn anew from its file where
    that is in HU and unchanged; else it is the stored thumbnail, in the window of its file.
    """
    made = Pictures({}, {}, {})
    for answer in answers:
        name, window = answer.result.query, answer.window
        if answer.picture is not None:
            made.queries[name] = answer.picture
        if window is not None:
            made.windows[name] = _told(window)
        for hit in (*answer.result.hits, *answer.result.contrast):
            key = (name, hit.id, hit.slice)
            seen = window or _view_window(hit, package)
            picture = None if seen is None else _redrawn(gallery, hit, seen)
            if picture is not None and seen is not None:
                made.windows[key] = _told(seen)
            picture = picture or gallery.thumbnail(hit.id, hit.slice)
            if picture is not None:
                made.hits[key] = picture
    return made


def query_picture(
    scan: Scan, number: int | None, package: ModelPackage
) -> tuple[bytes, Window | None]:
    """A slice of a query (None: the middle one) as JPEG, and the window of a scan in HU."""
    window = scan.window or package.preprocess.ct_window if scan.unit == "HU" else None
    shown = len(scan.pixels) // 2 if number is None else number
    return _drawn(scan, shown, window), window


def stored_picture(gallery: Gallery, query: Query, number: int | None) -> bytes | None:
    """The thumbnail of a slice of a stored scan that is the query."""
    (stored,) = gallery.lookup(id=query.exclude[0])
    return gallery.thumbnail(stored.id, stored.row.n_slices // 2 if number is None else number)


def page_parts(
    gallery: Gallery,
    package: ModelPackage,
    answers: Sequence[Answer],
    pictures: Pictures | None = None,
) -> dict[str, Any]:
    """What a page about `answers` shows: results, pictures, predictions and true labels."""
    made = pictures or pictures_of(gallery, package, answers)
    return {
        "results": [answer.result for answer in answers],
        "pictures": {**made.queries, **made.hits},
        "windows": made.windows,
        "model": {"task": package.task_names},
        "predictions": {a.result.query: a.prediction for a in answers if a.prediction},
        "true_labels": {a.result.query: a.case.label for a in answers if a.case and a.case.label},
    }


def search_sheet(
    gallery: Gallery,
    package: ModelPackage,
    answers: Sequence[Answer],
    names: Mapping[str, str],
    *,
    columns: int = 6,
    side: int = 160,
    pictures: Pictures | None = None,
) -> bytes:
    """A PNG with a panel for each query: its picture, then those of its hits.

    Parameters
    ----------
    names : what each query is called
    columns, side : pictures in a row, and their side in pixels
    pictures : in place of those that `pictures_of` draws
    """
    made = pictures or pictures_of(gallery, package, answers)
    nothing = np.full((side, side), BACKGROUND, np.uint8)

    def drawn(picture: bytes | None) -> np.ndarray:
        return nothing if picture is None else fit(pixels_of(picture), side, enlarge=True)

    panels = []
    for answer in answers:
        name, hits = answer.result.query, answer.result.hits
        window = made.windows.get(name)
        shares = (f"{label} {100 * share:.0f}%" for label, share in answer.result.vote.items())
        facts = [f"window {window}" if window else "", ", ".join(shares)]
        drawings = [made.queries.get(name)]
        drawings += [made.hits.get((name, hit.id, hit.slice)) for hit in hits]
        panels.append(
            Panel(
                title=names[name],
                facts="; ".join(filter(None, facts)) or "no hits",
                pictures=[drawn(picture) for picture in drawings],
                captions=["query", *(_caption(hit) for hit in hits)],
            )
        )
    return contact_sheet(panels, columns=columns, side=side)


def _caption(hit: Hit) -> str:
    return " ".join([f"#{hit.rank}", f"{hit.score:.2f}", *([hit.label] if hit.label else [])])


def pixels_of(picture: bytes) -> np.ndarray:
    """An encoded picture as uint8 (h, w) or (h, w, 3)."""
    from PIL import Image

    with Image.open(io.BytesIO(picture)) as image:
        return np.asarray(image.convert("RGB" if image.mode not in ("L", "RGB") else image.mode))


def _view_window(hit: Hit, package: ModelPackage) -> Window | None:
    """The window through which a hit matched, where that was one of medcli's."""
    if hit.view == "model" and hit.modality == "CT":
        return package.preprocess.ct_window
    try:
        center, width = (float(part) for part in (hit.view or "").split("/"))
    except ValueError:
        return None
    return center, width


def _redrawn(gallery: Gallery, hit: Hit, window: Window) -> bytes | None:
    """A slice of a stored scan in HU from its file; None where that is gone or another."""
    found = read_hit(gallery, hit)
    if found is None or found[0].unit != "HU":
        return None
    return _drawn(*found, window)


def read_hit(gallery: Gallery, hit: Hit) -> tuple[Scan, int] | None:
    """The stored scan of a hit from its file, and the place of the slice that matched.

    None where the file is gone or another. Of a series of files the slice's alone is read.
    """
    with gallery.snapshot():
        found = list(stored_sources(gallery.catalogue, [hit.id]))
    case = case_of(found[0]) if found else None
    if case is None or hit.file is None:
        return None
    number = hit.slice or 0
    if len(case.files) == found[0].row.n_slices > 1 and os.path.isfile(hit.file):
        case, number = Case(hit.file, (hit.file,), case.kind, case.scan_id), 0
    try:
        if SourceWatch().state(found[0]) not in ("same", "same content"):
            return None
    except ScanError:
        return None
    ((_, scan),) = read_all([case])
    return (scan, number) if isinstance(scan, Scan) and number < len(scan.pixels) else None


def _drawn(scan: Scan, number: int, window: Window | None) -> bytes:
    return encode_jpeg(display_slice(scan, number, window=window, edge=SIDE))


def _told(window: Window) -> str:
    return f"{window[0]:g}/{window[1]:g}"
