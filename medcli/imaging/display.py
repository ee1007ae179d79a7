"""What a person sees of a slice: thumbnails, montages, reports."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from medcli.config import Window
from medcli.imaging.intensity import Range, percentile_range, sampled, scale, window_range
from medcli.imaging.resize import fitted_shape, resample
from medcli.records import Scan

PERCENTILES = (0.5, 99.5)


def display_slice(
    scan: Scan, index: int, *, window: Window | None = None, edge: int = 96
) -> np.ndarray:
    """Render one slice; see `display_slices`."""
    return next(display_slices(scan, [index], window=window, edge=edge))


def display_slices(
    scan: Scan, indices: Iterable[int], *, window: Window | None = None, edge: int = 96
) -> Iterator[np.ndarray]:
    """Render slices with the longer side, in mm, of `edge` pixels.

    Yields
    ------
    uint8, (h, w) or (h, w, 3): seen through `window`, else the file's own window, else
    0–255 for pictures, else percentiles over the scan without its padding; pixels drawn
    in true proportion
    """
    shown = display_range(scan, window)
    shape = fitted_shape(scan.pixels.shape[1:3], edge, scan.spacing_mm[1:])
    for index in indices:
        unit = scale(scan.pixels[index : index + 1], shown)
        levels = np.rint(resample(unit, *shape)[0] * 255).astype(np.uint8)
        yield levels[..., 0] if levels.shape[2] == 1 else levels


def display_range(scan: Scan, window: Window | None = None) -> Range:
    """The values shown as black and as white."""
    chosen = window or scan.window
    if chosen is not None and chosen[1] >= 1 and (window or _shows_greys(scan, chosen)):
        return window_range(chosen)
    if scan.unit == "display":
        return 0.0, 255.0
    return percentile_range(scan.pixels, PERCENTILES, scan.padded)


def _shows_greys(scan: Scan, window: Window) -> bool:
    """Whether a file's window leaves any value between black and white.

    Some windows were never meant for the values they stand beside, and show nothing.
    """
    low, high = window_range(window)
    values = sampled(scan.pixels)
    return bool(np.any((values > low) & (values < high)))
