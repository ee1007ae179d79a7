"""Modality values → 0 to 1. Every way is linear between two values, and clipped."""

from __future__ import annotations

import numpy as np

from medcli.config import PreprocessConfig, Window
from medcli.records import Scan, Tones

Range = tuple[float, float]

_SAMPLE = 2**20


def apply_window(pixels: np.ndarray, center: float, width: float) -> np.ndarray:
    """Map the values inside a window onto [0, 1] and clip the rest.

    Parameters
    ----------
    pixels :
        any shape, modality values (HU for CT: after rescale slope and intercept)
    center, width :
        window center (level) and width, in the unit of `pixels`

    Returns
    -------
    float32, same shape: 0 below the window, 1 above it, linear inside

    Raises
    ------
    ValueError : `width` below 1

    References
    ----------
    DICOM PS3.3 C.11.2.1.2.1, VOI LUT Function LINEAR
    """
    return scale(pixels, window_range((center, width)))


def window_range(window: Window) -> Range:
    """The values that a window maps to 0 and to 1 (formula of `apply_window`)."""
    center, width = window
    if width < 1:
        raise ValueError(f"window width {width} is below 1")
    middle, half = center - 0.5, (width - 1) / 2
    return middle - half, middle + half


def percentile_range(
    pixels: np.ndarray, percentiles: tuple[float, float], padded: int = 0
) -> Range:
    """The values at two percentiles; smallest and largest value where these coincide.

    `padded` values, the smallest ones, are padding and do not count. Large scans are
    sampled.
    """
    hidden = padded / max(1, pixels.size - 1)
    shares = [100 * hidden + (1 - hidden) * percent for percent in percentiles]
    low, high = np.percentile(sampled(pixels), shares)
    if low == high:
        low, high = pixels.min(), pixels.max()
    return float(low), float(high)


def sampled(pixels: np.ndarray) -> np.ndarray:
    """(N,) all values up to a million, above it every n-th.

    n is odd, so that columns of an image do not fall in step with it.
    """
    every: np.ndarray = pixels.reshape(-1)[:: max(1, pixels.size // _SAMPLE) | 1]
    return every


def value_range(scan: Scan, config: PreprocessConfig) -> Range:
    """The values of `scan` that become 0 and 1 for the model.

    The model's CT window for HU; 0–255 for pictures (unless the model normalises grey
    ones by percentiles); else percentiles over the scan without its padding.
    """
    if scan.unit == "HU":
        return window_range(config.ct_window)
    is_colour = scan.pixels.shape[3] == 3
    if scan.unit == "display" and (is_colour or config.pictures == "full_range"):
        return 0.0, 255.0
    return percentile_range(scan.pixels, config.percentiles, scan.padded)


def line(ends: Range) -> Tones:
    """The tones that show the first of two values black and the second white."""
    return Tones(np.array(ends, dtype=float), np.array([0.0, 1.0]))


def brightness(pixels: np.ndarray, tones: Tones) -> np.ndarray:
    """Float32 of the same shape: the level, 0 to 1, that `tones` gives each value."""
    if is_line(tones):
        return scale(pixels, (float(tones.values[0]), float(tones.values[1])))
    levels: np.ndarray = np.interp(pixels, tones.values, tones.levels)
    return levels.astype(np.float32)


def is_line(tones: Tones) -> bool:
    """Whether tones are one straight line from black to white."""
    return bool(np.array_equal(tones.levels, (0.0, 1.0)))


def scale(pixels: np.ndarray, ends: Range) -> np.ndarray:
    """Float32 of the same shape: `ends` become 0 and 1, what lies outside is clipped.

    Where both ends are one value, everything above it is 1.
    """
    low, high = ends
    if high <= low:
        return (pixels > low).astype(np.float32)
    scaled: np.ndarray = np.subtract(pixels, low, dtype=np.float32)
    scaled *= np.float32(1 / (high - low))
    np.clip(scaled, 0, 1, out=scaled)
    return scaled
