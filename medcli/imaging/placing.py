"""Boxes of a slice ⇄ boxes of the square that a model sees; see `medcli.imaging.resize`."""

from __future__ import annotations

import numpy as np

from medcli.imaging.resize import Spacing, fitted_shape


def into_square(
    boxes: np.ndarray, shape: tuple[int, ...], size: int, spacing: Spacing = (None, None)
) -> np.ndarray:
    """(B, 4) boxes in pixels of a slice of (H, W) → in pixels of the square, float32.

    Boxes are (x0, y0, x1, y1), x1 and y1 exclusive; `spacing` as given to `resize`.
    """
    scale, shift = _placed(shape, size, spacing)
    return np.asarray(boxes * scale + shift, dtype=np.float32)


def out_of_square(
    boxes: np.ndarray, shape: tuple[int, ...], size: int, spacing: Spacing = (None, None)
) -> np.ndarray:
    """`into_square` backwards, cut at the border of the slice."""
    scale, shift = _placed(shape, size, spacing)
    height, width = shape
    return np.asarray(np.clip((boxes - shift) / scale, 0, [width, height, width, height]))


def _placed(shape: tuple[int, ...], size: int, spacing: Spacing) -> tuple[np.ndarray, np.ndarray]:
    """(4,) factors and (4,) offsets of the corners."""
    rows, columns = fitted_shape(shape, size, spacing)
    scale = np.array([columns / shape[1], rows / shape[0]] * 2)
    shift = np.array([(size - columns) // 2, (size - rows) // 2] * 2, dtype=float)
    return scale, shift
