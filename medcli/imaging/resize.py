"""Resizing with an antialiasing triangle filter, as matrix products.

The same filter as Pillow's BILINEAR for "F" images: its support grows with the
reduction, so fine structures are averaged, not skipped. Few target pixels at a time are
multiplied with the source pixels under them alone, since most weights are 0.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

_BAND = 8  # target pixels that share a product

Spacing = tuple[float | None, float | None]


def resize(images: np.ndarray, size: int, spacing: Spacing = (None, None)) -> np.ndarray:
    """Fit images into a square, aspect ratio in mm kept, the rest filled with 0.

    Parameters
    ----------
    images :
        (S, H, W, C) float32 in 0–1
    size :
        rows and columns of the result
    spacing :
        mm between rows and between columns; square pixels where one is unknown

    Returns
    -------
    (S, size, size, C) float32; nothing is cropped, the picture stands in the middle
    """
    rows, columns = fitted_shape(images.shape[1:3], size, spacing)
    fitted = resample(images, rows, columns)
    if (rows, columns) == (size, size):
        return fitted
    square = np.zeros((len(images), size, size, images.shape[3]), dtype=np.float32)
    top, left = (size - rows) // 2, (size - columns) // 2
    square[:, top : top + rows, left : left + columns] = fitted
    return square


def unfit(
    images: np.ndarray, shape: tuple[int, int], spacing: Spacing = (None, None)
) -> np.ndarray:
    """Take images that lie in a square back to the shape they had before `resize`.

    Parameters
    ----------
    images :
        (S, size, size, C) float32
    shape :
        rows and columns of the pictures that were fitted
    spacing :
        as given to `resize`

    Returns
    -------
    (S, *shape, C) float32
    """
    size = images.shape[1]
    rows, columns = fitted_shape(shape, size, spacing)
    top, left = (size - rows) // 2, (size - columns) // 2
    return resample(images[:, top : top + rows, left : left + columns], *shape)


def fitted_shape(shape: tuple[int, ...], size: int, spacing: Spacing) -> tuple[int, int]:
    """Rows and columns of a picture (H, W) whose longer side, in mm, becomes `size`."""
    row_mm, column_mm = spacing
    known = row_mm is not None and column_mm is not None
    height = shape[0] * (row_mm if known and row_mm else 1.0)
    width = shape[1] * (column_mm if known and column_mm else 1.0)
    longer = max(height, width)
    return max(1, round(size * height / longer)), max(1, round(size * width / longer))


def resample(images: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """(S, H, W, C) → (S, rows, columns, C) float32, aspect ratio not kept."""
    planes = np.ascontiguousarray(np.moveaxis(images, 3, 1), dtype=np.float32)  # (S, C, H, W)
    count, channels, height, width = planes.shape
    if width != columns:
        lines = np.empty((count, channels, height, columns), dtype=np.float32)
        for target, source, weights in _bands(width, columns):
            np.matmul(planes[..., source], weights.T, out=lines[..., target])
        planes = lines
    if height != rows:
        lines = np.empty((count, channels, rows, columns), dtype=np.float32)
        for target, source, weights in _bands(height, rows):
            np.matmul(weights, planes[..., source, :], out=lines[..., target, :])
        planes = lines
    return np.ascontiguousarray(np.moveaxis(planes, 1, 3))


class _Band(NamedTuple):
    """Neighbouring target pixels, the source pixels under them, and (target, source) weights."""

    target: slice
    source: slice
    weights: np.ndarray


@lru_cache(maxsize=64)
def _bands(source: int, target: int) -> tuple[_Band, ...]:
    """`triangle_weights` without most of its zeros."""
    whole = triangle_weights(source, target)
    bands = []
    for start in range(0, target, _BAND):
        rows = slice(start, min(start + _BAND, target))
        under = np.flatnonzero(whole[rows].any(axis=0))
        columns = slice(int(under[0]), int(under[-1]) + 1)
        bands.append(_Band(rows, columns, np.ascontiguousarray(whole[rows, columns])))
    return tuple(bands)


@lru_cache(maxsize=64)
def triangle_weights(source: int, target: int) -> np.ndarray:
    """(target, source) float32: row i holds the weights of the source pixels for pixel i.

    A triangle around the centre of each target pixel, as wide as the pixel spacing of
    the coarser grid; every row sums to 1.
    """
    scale = source / target
    reach = max(scale, 1.0)
    centres = (np.arange(target) + 0.5) * scale
    distance = np.abs(np.arange(source) + 0.5 - centres[:, np.newaxis]) / reach
    weights = np.clip(1 - distance, 0, None)
    result: np.ndarray = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    result.flags.writeable = False  # shared by all callers
    return result
