"""VOI window of a DICOM file: what its maker meant to be shown black and white.

References
----------
DICOM PS3.3 C.11.2, VOI LUT Module; C.7.6.16.2.10, Frame VOI LUT Macro
"""

from __future__ import annotations

import math

from pydicom.dataset import Dataset

from medcli.config import Window
from medcli.imaging.dicom_tags import functional_groups, macro, text


def voi_window(dataset: Dataset) -> Window | None:
    """The first usable window of the file, of an enhanced object that of its first frame.

    Returns
    -------
    (center, width) of the LINEAR window that shows the same values black and white, in
    modality values; None where the file names none. LINEAR_EXACT (c, w) spans half a
    value more at both ends: (c + 0.5, w + 1). SIGMOID is taken as its tangent at the
    center, LINEAR_EXACT with the same numbers, from which it differs by at most 0.12.
    """
    groups = functional_groups(dataset, 1)[:1]
    source = (macro(groups[0], "FrameVOILUTSequence") if groups else None) or dataset
    exact = (text(source, "VOILUTFunction") or "").upper() in ("LINEAR_EXACT", "SIGMOID")
    centers, widths = _numbers(source, "WindowCenter"), _numbers(source, "WindowWidth")
    for center, width in zip(centers, widths, strict=False):
        usable = width > 0 if exact else width >= 1
        if usable and math.isfinite(center + width):
            return (center + 0.5, width + 1) if exact else (center, width)
    return None


def mirrored(window: Window | None, total: float) -> Window | None:
    """The window on `total − x` that shows what 1 − window(x) showed."""
    return None if window is None else (total - window[0] + 1, window[1])


def spans_bytes(window: Window) -> bool:
    """Whether a window shows 0 to 255 as they are, to two grey levels."""
    middle, half = window[0] - 0.5, (window[1] - 1) / 2
    return abs(middle - half) <= 2 and abs(middle + half - 255) <= 2


def _numbers(dataset: Dataset, keyword: str) -> list[float]:
    """All numbers of a tag, NaN for what is none."""
    found: list[float] = []
    for part in (text(dataset, keyword) or "").split("\\"):
        try:
            found.append(float(part))
        except ValueError:
            found.append(math.nan)
    return found
