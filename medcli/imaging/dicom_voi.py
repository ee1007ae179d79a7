"""VOI of a DICOM file: what its maker meant to be shown black and white, frame by frame.

References
----------
DICOM PS3.3 C.11.2, VOI LUT Module; C.7.6.16.2.10, Frame VOI LUT Macro
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from pydicom.dataset import Dataset

from medcli.config import Window
from medcli.errors import ScanError
from medcli.imaging.dicom_lut import descriptor, entries
from medcli.imaging.dicom_tags import functional_groups, macro, text, value
from medcli.imaging.intensity import line, window_range
from medcli.records import Tones

_EXACT = ("LINEAR_EXACT", "SIGMOID")

_SIGMOID_WIDTHS = 3
"""So far on both sides of its center a sigmoid is drawn; 6e-6 is left there."""

_SIGMOID_POINTS = 769
"""Lines through so many points are nowhere further than 2e-5 from a sigmoid."""

_LARGEST = 1e38
"""Beyond it float32 ends; NaN is not below it either."""

FrameTones = tuple[Tones | None, ...]


def voi_window(dataset: Dataset) -> Window | None:
    """The first usable window of the file, of an enhanced object that of its first frame.

    Returns
    -------
    (center, width) of the LINEAR window that shows the same values black and white, in
    modality values; None where the file names none. LINEAR_EXACT (c, w) spans half a
    value more at both ends: (c + 0.5, w + 1). SIGMOID is taken as its tangent at the
    center, LINEAR_EXACT with the same numbers, from which it differs by at most 0.12.
    """
    return _window(_sources(dataset, 1)[0])


def voi_tones(dataset: Dataset, values: np.ndarray, *, little_endian: bool) -> FrameTones:
    """The VOI transformation of each frame, in modality values before any inversion.

    A table comes before a window, as in pydicom's `apply_voi_lut`: the standard calls them
    alternatives. Of several tables the first counts, of several windows the first with a
    width. A table that is damaged is left out, which `quiet` counts.

    Parameters
    ----------
    values : (F, H, W, 1) modality values. Where some are negative, the first value of a
        table is read as a number with a sign

    Returns
    -------
    One for each frame, None where the file names nothing; only one where all are alike, and
    none where no frame has any
    """
    known: dict[int, Tones | None] = {}
    found = []
    for source in _sources(dataset, len(values)):
        if id(source) not in known:
            known[id(source)] = _tones(source, values, little_endian=little_endian)
        found.append(known[id(source)])
    return alike(found)


def alike(found: Sequence[Tones | None]) -> FrameTones:
    """Equal ones as one object; a single one where all are equal, none where all are None."""
    kept: dict[Tones | None, Tones | None] = {}
    same = tuple(kept.setdefault(each, each) for each in found)
    if len(kept) > 1:
        return same
    return () if None in kept else same[:1]


def of_frame(tones: FrameTones, frame: int) -> Tones | None:
    """The entry of one frame in what `voi_tones` gives."""
    return tones[frame if len(tones) > 1 else 0] if tones else None


def mirrored(window: Window | None, total: float) -> Window | None:
    """The window on `total − x` that shows what 1 − window(x) showed."""
    return None if window is None else (total - window[0] + 1, window[1])


def mirrored_tones(tones: FrameTones, totals: Iterable[float]) -> FrameTones:
    """`mirrored` for each frame; `totals` are one for all frames, or one for each."""
    sums = list(totals)
    count = max(len(tones), len(sums)) if tones else 0
    pairs = [(of_frame(tones, frame), sums[frame % len(sums)]) for frame in range(count)]
    return alike([None if each is None else _mirrored(each, total) for each, total in pairs])


def spans_bytes(window: Window) -> bool:
    """Whether a window shows 0 to 255 as they are, to two grey levels."""
    low, high = window_range(window)
    return abs(low) <= 2 and abs(high - 255) <= 2


def _sources(dataset: Dataset, frames: int) -> list[Dataset]:
    """For each frame the dataset that holds its VOI attributes."""
    groups = functional_groups(dataset, frames)[:frames]
    macros = [macro(group, "FrameVOILUTSequence") for group in groups]
    sources = [each if isinstance(each, Dataset) else dataset for each in macros]
    return sources + [dataset] * (frames - len(sources))


def _tones(source: Dataset, values: np.ndarray, *, little_endian: bool) -> Tones | None:
    """The table of a VOI macro, else its window; None where it names neither."""
    tables = value(source, "VOILUTSequence")
    if tables:
        try:
            signed = bool(values.min() < 0)
            return _table(tables[0], signed=signed, little_endian=little_endian)
        except ScanError:  # a header that is a bomb
            raise
        except Exception:  # damaged tables fail in many ways, and values do not hang on them
            warnings.warn("VOILUTSequence is unreadable", stacklevel=2)  # counted by `quiet`
    window = _window(source)
    if window is None:
        return None
    function = _function(source)
    if function == "SIGMOID":
        return _sigmoid(window[0] - 0.5, window[1] - 1)
    return replace(line(window_range(window)), function=function)


def _function(source: Dataset) -> str:
    named = (text(source, "VOILUTFunction") or "").upper()
    return named if named in _EXACT else "LINEAR"


def _window(source: Dataset) -> Window | None:
    exact = _function(source) in _EXACT
    centers, widths = _numbers(source, "WindowCenter"), _numbers(source, "WindowWidth")
    for center, width in zip(centers, widths, strict=False):
        usable = width > 0 if exact else width >= 1
        if usable and abs(center) + width < _LARGEST:
            return (center + 0.5, width + 1) if exact else (center, width)
    return None


def _sigmoid(center: float, width: float) -> Tones:
    """PS3.3 C.11.2.1.3.1: 1 / (1 + exp(−4 (x − c) / w))."""
    steps = np.linspace(-_SIGMOID_WIDTHS, _SIGMOID_WIDTHS, _SIGMOID_POINTS)
    return Tones(center + steps * width, 1 / (1 + np.exp(-4 * steps)), "SIGMOID")


def _table(item: Dataset, *, signed: bool, little_endian: bool) -> Tones:
    """The table of an item of the VOI LUT Sequence; its bits say what is white.

    Where entries are larger than their bits allow, the largest is white.
    """
    count, first, bits = descriptor(item, "LUTDescriptor", signed=signed)
    table = entries(value(item, "LUTData"), count, little_endian=little_endian)
    white = max((1 << min(max(bits, 1), 16)) - 1, int(table.max()))
    return Tones(first + np.arange(count, dtype=float), table / white, "LUT")


def _mirrored(tones: Tones, total: float) -> Tones:
    """What shows on `total − x` the inverse of what `tones` shows on x."""
    return Tones(total - tones.values[::-1], 1 - tones.levels[::-1], tones.function)


def _numbers(dataset: Dataset, keyword: str) -> list[float]:
    """All numbers of a tag, NaN for what is none."""
    found: list[float] = []
    for part in (text(dataset, keyword) or "").split("\\"):
        try:
            found.append(float(part))
        except ValueError:
            found.append(math.nan)
    return found
