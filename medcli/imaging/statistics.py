"""What kind of picture it is, in numbers that need no network: tone, texture, colour, layout."""

from __future__ import annotations

import numpy as np

from medcli.imaging.preprocess import LEVELS

LAYOUT_GRID = 8
_QUANTILES = (0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98)
_FLOOR = 1 / 1024  # a quarter of a grey level of 256: below it a difference is no texture
_SMALLEST = 4  # sides below this hold no texture


def picture_views(images: np.ndarray) -> dict[str, np.ndarray]:
    """The two descriptions (F,) of a scan by name; `images` are (S, C, H, W) in 0–1."""
    each = slice_views(images)
    return {name: rows.mean(axis=0).astype(np.float32) for name, rows in each.items()}


def slice_views(images: np.ndarray) -> dict[str, np.ndarray]:
    """The same of each of (S, C, H, W) slices in 0–1 by itself: (S, F) float."""
    return {"statistics": image_statistics(images), "layout": coarse_layout(images)}


def image_statistics(images: np.ndarray) -> np.ndarray:
    """Tone, texture at each scale, and colour of each slice.

    Parameters
    ----------
    images : (S, C, H, W) in 0–1, C is 1 or 3

    Returns
    -------
    (S, F) float; F depends on C, H and W only. Of the grey picture: quantiles, mean, spread
    and the shares of black and white; of each Haar band of each octave: the log of the mean
    size of its coefficients, and of their spread over that size, which tells edges from
    noise; of colour pictures: mean, spread and tails of R - G and G - B
    """
    grey = images.mean(axis=1)
    parts = [_tone(grey), *_texture(grey)]
    if images.shape[1] == 3:
        parts += [_difference(images[:, channel] - images[:, channel + 1]) for channel in (0, 1)]
    return np.concatenate(parts, axis=1)


def coarse_layout(images: np.ndarray, grid: int = LAYOUT_GRID) -> np.ndarray:
    """Where bright and dark lie: (S, C, H, W) → (S, grid²) float.

    Each slice's fields have mean 0 and length 1; an even picture has 0 everywhere.
    """
    grey = images.mean(axis=1)
    rows, columns = (np.linspace(0, side, grid + 1).astype(int) for side in grey.shape[1:])
    sums = np.add.reduceat(np.add.reduceat(grey, rows[:-1], axis=1), columns[:-1], axis=2)
    fields = (sums / np.outer(np.diff(rows), np.diff(columns))).reshape(len(grey), -1)
    centred = fields - fields.mean(axis=1, keepdims=True)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    return np.asarray(centred / np.maximum(length, 1e-3))


def _tone(grey: np.ndarray) -> np.ndarray:
    """(S, H, W) → (S, 11)."""
    flat = grey.reshape(len(grey), -1)
    shares = _histogram(flat)
    ends = [shares[:, :2].sum(axis=1), shares[:, -2:].sum(axis=1)]
    quantiles = _quantiles(shares, _QUANTILES) / LEVELS
    return np.column_stack([quantiles, flat.mean(axis=1), flat.std(axis=1), *ends])


def _histogram(values: np.ndarray) -> np.ndarray:
    """(S, P) in 0–1 → (S, 256) shares; far faster than sorting, and no coarser than a byte."""
    steps = np.rint(values * LEVELS).astype(np.intp)
    steps += (LEVELS + 1) * np.arange(len(values))[:, np.newaxis]
    counts = np.bincount(steps.ravel(), minlength=(LEVELS + 1) * len(values))
    return np.asarray(counts.reshape(len(values), -1) / values.shape[1])


def _quantiles(shares: np.ndarray, wanted: tuple[float, ...]) -> np.ndarray:
    """(S, 256) shares → (S, Q) the first steps that this much lies at or below."""
    below = np.cumsum(shares, axis=1)[:, :, np.newaxis]
    return np.asarray((below < np.array(wanted) - 1e-9).sum(axis=1))


def _texture(grey: np.ndarray) -> list[np.ndarray]:
    """(S, H, W) → one (S, 2) for each band of each octave, finest first."""
    found = []
    while min(grey.shape[1:]) >= _SMALLEST:
        height, width = (side // 2 * 2 for side in grey.shape[1:])
        quads = [grey[:, y:height:2, x:width:2] for y in (0, 1) for x in (0, 1)]
        top, bottom = quads[0] + quads[1], quads[2] + quads[3]
        left, right = quads[0] - quads[1], quads[2] - quads[3]
        found += [_band(band) for band in (left + right, top - bottom, left - right)]
        grey = (top + bottom) / 4
    return found


def _band(coefficients: np.ndarray) -> np.ndarray:
    """(S, h, w) sums and differences of four pixels → (S, 2)."""
    flat = coefficients.reshape(len(coefficients), -1) / 4
    size = np.abs(flat).mean(axis=1) + _FLOOR
    spread = np.sqrt(np.einsum("ij,ij->i", flat, flat) / flat.shape[1]) + _FLOOR
    return np.column_stack([np.log(size), np.log(spread / size)])


def _difference(values: np.ndarray) -> np.ndarray:
    """(S, H, W) of one channel less another, in -1–1 → (S, 4)."""
    flat = values.reshape(len(values), -1)
    tails = _quantiles(_histogram((flat + 1) / 2), (0.05, 0.95)) / LEVELS * 2 - 1
    return np.column_stack([flat.mean(axis=1), flat.std(axis=1), tails])
