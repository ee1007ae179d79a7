"""Slices of a scan → what the viewer of a page draws: values behind a window, heat over them.

A page carries the values themselves, not pictures of them, so that their window can be
changed: each value is a code of at most 12 bits in the red and green bytes of a PNG.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from medcli.report.heat import OPACITY, STOPS
from medcli.report.pictures import data_uri, encode_jpeg

CODES = 4096
HU_RANGE = (-1024.0, 3071.0)
"""What a CT stores in 12 bits; beyond it lies nothing but metal."""
PRESETS = {"Lung": (-600.0, 1500.0), "Soft tissue": (40.0, 400.0), "Bone": (400.0, 1800.0)}
"""Window center and width, HU."""


class Codes(NamedTuple):
    """How values are coded: the value of code 0, the value between two codes, the highest value."""

    low: float
    step: float
    high: float


@dataclass(frozen=True, slots=True)
class ShownSlice:
    """A slice in a page.

    Parameters
    ----------
    number : in the scan, from 0
    values : (h, w) float32 modality values, or uint8 (h, w, 3)
    ends : what is black and what is white as the file says; None in colour
    heat : (h', w') in 0–1, of any size; None where there is none
    share : of the slice in the heat of the scan
    """

    number: int
    values: np.ndarray = field(repr=False)
    ends: tuple[float, float] | None = None
    heat: np.ndarray | None = field(default=None, repr=False)
    share: float | None = None


def viewer_data(
    slices: Sequence[ShownSlice], *, unit: str, first: int, count: int
) -> tuple[str, Codes]:
    """JSON for the script of a page, safe inside a script element, and how it codes values.

    Parameters
    ----------
    slices : of one size, all grey or all in colour
    unit : "HU", "display" or "stored"
    first : which of `slices` is seen first
    count : slices of the whole scan
    """
    colour = slices[0].values.ndim == 3
    codes = Codes(0.0, 1.0, 255.0) if colour else _codes(slices, unit)
    height, width = slices[0].values.shape[:2]
    data: dict[str, Any] = {
        "height": height,
        "width": width,
        "first": first,
        "count": count,
        "colour": colour,
        **codes._asdict(),
        "unit": "HU" if unit == "HU" else "",
        "stops": STOPS.tolist(),
        "opacity": OPACITY,
        "slices": [_slice_data(each, codes) for each in slices],
    }
    return json.dumps(data, allow_nan=False).replace("<", "\\u003c"), codes


def _codes(slices: Sequence[ShownSlice], unit: str) -> Codes:
    """Steps of one unit where that spans all values, else as fine as 12 bits allow."""
    low = min(float(each.values.min()) for each in slices)
    high = max(float(each.values.max()) for each in slices)
    if unit == "HU":
        low, high = max(low, HU_RANGE[0]), min(high, HU_RANGE[1])
    if 2 < high - low < CODES - 1:  # steps of one unit hold all that a reader can tell
        return Codes(float(np.floor(low)), 1.0, float(np.ceil(high)))
    high = high if high > low else low + 1
    return Codes(low, (high - low) / (CODES - 1), high)


def _slice_data(each: ShownSlice, codes: Codes) -> dict[str, Any]:
    """One slice as pictures and numbers."""
    return {
        "number": each.number,
        "share": None if each.share is None else round(each.share, 4),
        "ends": each.ends and [round(end, 4) for end in each.ends],
        "values": data_uri(_value_picture(each.values, codes)),
        "heat": None if each.heat is None else data_uri(_bytes_picture(each.heat * 255)),
    }


def _value_picture(values: np.ndarray, coding: Codes) -> bytes:
    """Colour as JPEG; grey as a PNG whose red and green are the high and low byte of the code."""
    if values.ndim == 3:
        return encode_jpeg(values, quality=88)
    codes = np.clip(np.rint((values - coding.low) / coding.step), 0, CODES - 1).astype(np.uint16)
    if codes.max() < 256:
        return _bytes_picture(codes)
    nothing = np.zeros_like(codes)
    return _png(np.stack([codes >> 8, codes & 255, nothing], axis=-1).astype(np.uint8))


def _bytes_picture(levels: np.ndarray) -> bytes:
    """Grey: a code below 256 in each of the three channels."""
    return _png(np.asarray(np.rint(levels), np.uint8))


def _png(pixels: np.ndarray) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", compress_level=7)
    return stream.getvalue()
