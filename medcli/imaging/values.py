"""Pixel values whatever their file format: budget, number types, NaN."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from medcli.errors import ScanError
from medcli.imaging.isolation.inside import VALUES_PER_SECOND, ask_for_time
from medcli.records import ScanWarning

MAX_SAMPLES = 2**29
"""Most values (pixels times channels) of one scan: two thousand CT slices."""


def check_budget(path: str, dimensions: Iterable[int]) -> int:
    """The product of `dimensions`, which is the number of values to be decoded.

    Raises
    ------
    ScanError : too_large, when it exceeds `MAX_SAMPLES`
    """
    samples = math.prod(dimensions)
    if samples > MAX_SAMPLES:
        raise ScanError(
            "too_large",
            f"{path}: the header announces {samples:,} values, the limit is {MAX_SAMPLES:,}",
            "Split the scan or reduce its size",
        )
    ask_for_time(samples / VALUES_PER_SECOND)
    return samples


def compact(values: np.ndarray) -> np.ndarray:
    """`values` in the smallest of uint8 (if they came so), int16, uint16 and float32.

    Integers beyond 16 bits become float32, which is exact up to 2**24; floats beyond its
    range become infinite.
    """
    if values.dtype == np.bool_ or values.dtype == np.uint8:
        return values.astype(np.uint8, copy=False)
    if values.dtype.kind not in "iu" or values.size == 0:
        with np.errstate(over="ignore"):
            return values.astype(np.float32, copy=False)
    low, high = int(values.min()), int(values.max())
    for kind in (np.int16, np.uint16):
        limits = np.iinfo(kind)
        if limits.min <= low and high <= limits.max:
            return values.astype(kind, copy=False)
    return values.astype(np.float32)


def replace_nonfinite(path: str, values: np.ndarray) -> tuple[np.ndarray, tuple[ScanWarning, ...]]:
    """`values` with NaN and infinities as the smallest finite value.

    Raises
    ------
    ScanError : damaged_pixels, where none is finite
    """
    if values.dtype.kind != "f":
        return values, ()
    finite = np.isfinite(values)
    if finite.all():
        return values, ()
    if not finite.any():
        message = f"{path}: none of its {values.size:,} values is a finite number"
        raise ScanError("damaged_pixels", message, "Check how the file was made")
    fill = values[finite].min()
    count = int(values.size - np.count_nonzero(finite))
    message = f"{count} of {values.size} values are not finite; set to the smallest finite value"
    filled = np.where(finite, values, np.float32(fill)).astype(np.float32)
    return filled, (ScanWarning("nan_replaced", message),)


def is_constant(pixels: np.ndarray) -> bool:
    """Whether all pixels of (S, H, W, C) have one value, or one colour."""
    first = pixels[0, 0, 0]
    middle = pixels[len(pixels) // 2, pixels.shape[1] // 2]
    if (middle != first).any():  # of nearly every scan: the rest need not be looked at
        return False
    return all(bool((image == first).all()) for image in pixels)
