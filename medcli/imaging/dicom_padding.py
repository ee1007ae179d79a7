"""Pixels outside of what was imaged: found by their stored value.

References
----------
DICOM PS3.3 C.7.5.1.1.2, Pixel Padding Value and Pixel Padding Range Limit
"""

from __future__ import annotations

import numpy as np
from pydicom.dataset import Dataset

from medcli.imaging.dicom_pixels import Layout
from medcli.imaging.dicom_tags import numbers

_PREFIXES = {"FloatPixelData": "Float", "DoubleFloatPixelData": "DoubleFloat"}


def padding_mask(dataset: Dataset, stored: np.ndarray, shape: Layout) -> np.ndarray | None:
    """(F, H, W, 1) where `stored` is padding; None where nothing is, or everything."""
    prefix = next((name for data, name in _PREFIXES.items() if data in dataset), "")
    first = _value(dataset, f"{prefix}PixelPaddingValue", shape)
    if first is None:
        return None
    last = _value(dataset, f"{prefix}PixelPaddingRangeLimit", shape)
    low, high = sorted((first, first if last is None else last))
    padding: np.ndarray = (stored >= low) & (stored <= high)
    return padding if padding.any() and not padding.all() else None


def fill_padding(
    values: np.ndarray, padding: np.ndarray | None
) -> tuple[np.ndarray, tuple[int, ...]]:
    """`values` with padding as the smallest value that is none; its pixels in each frame."""
    if padding is None:
        return values, (0,) * len(values)
    filled = np.where(padding, values[~padding].min(), values)
    return filled, tuple(np.count_nonzero(padding, axis=(1, 2, 3)).tolist())


def _value(dataset: Dataset, keyword: str, shape: Layout) -> float | None:
    """A padding value in the sign of the pixels; writers often store it in the other."""
    found = numbers(dataset, keyword, 1)
    if found is None or not keyword.startswith("Pixel"):
        return None if found is None else found[0]
    number, size = int(found[0]), 1 << shape.bits_allocated
    if shape.signed and number >= size // 2:
        return number - size
    return number + size if number < 0 and not shape.signed else number
