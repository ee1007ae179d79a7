"""Resizing with an antialiasing triangle filter, as two matrix products.

The same filter as Pillow's BILINEAR for "F" images: its support grows with the
reduction, so fine structures are averaged, not skipped.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

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
        lines = planes.reshape(-1, width) @ triangle_weights(width, columns).T
        planes = lines.reshape(count, channels, height, columns)
    if height != rows:
        planes = triangle_weights(height, rows) @ planes
    return np.ascontiguousarray(np.moveaxis(planes, 1, 3))


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
