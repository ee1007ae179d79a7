"""What a person sees of a slice: thumbnails, montages, reports."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from medcli.config import Window
from medcli.imaging.intensity import (
    brightness,
    is_line,
    line,
    percentile_range,
    sampled,
    window_range,
)
from medcli.imaging.resize import fitted_shape, resample
from medcli.records import Scan, Tones

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
    uint8, (h, w) or (h, w, 3), with the tones of `display_tones`; pixels drawn in true
    proportion
    """
    shown = display_tones(scan, window)
    shape = fitted_shape(scan.pixels.shape[1:3], edge, scan.spacing_mm[1:])
    for index in indices:
        unit = brightness(scan.pixels[index : index + 1], tones_of(shown, index))
        levels = np.rint(resample(unit, *shape)[0] * 255).astype(np.uint8)
        yield levels[..., 0] if levels.shape[2] == 1 else levels


def display_tones(scan: Scan, window: Window | None = None) -> tuple[Tones, ...]:
    """How each slice is shown: one for all of them, or one for each.

    Through `window`; else as the files say, each slice by its own VOI LUT or window; else,
    also for a slice whose file says nothing, 0–255 for pictures, and for all others
    percentiles over the scan without its padding.
    """
    if window is not None:
        return (line(window_range(window)),)
    own = scan.tones or _of_window(scan.window)
    if not own or not _show_greys(scan, own):
        return (_usual(scan),)
    given = [each for each in own if each is not None]
    if len(given) == len(own):
        return tuple(given)
    usual = _usual(scan)
    return tuple(each or usual for each in own)


def tones_of(shown: Sequence[Tones], index: int) -> Tones:
    """The entry of slice `index` in what `display_tones` gives."""
    return shown[index if len(shown) > 1 else 0]


def shades(pixels: np.ndarray, shown: Sequence[Tones]) -> np.ndarray:
    """(S, H, W, C) all slices of a scan as float32 in 0–1, with what `display_tones` gives."""
    if len(shown) == 1:
        return brightness(pixels, shown[0])
    return np.stack([brightness(*pair) for pair in zip(pixels, shown, strict=True)])


def _usual(scan: Scan) -> Tones:
    if scan.unit == "display":
        return line((0.0, 255.0))
    return line(percentile_range(scan.pixels, PERCENTILES, scan.padded))


def _of_window(window: Window | None) -> tuple[Tones | None, ...]:
    return (line(window_range(window)),) if window is not None and window[1] >= 1 else ()


def _show_greys(scan: Scan, own: Sequence[Tones | None]) -> bool:
    """Whether what the files say leaves any value between black and white.

    Some windows were never meant for the values they stand beside, and show nothing.
    """
    if len(own) == 1:
        return _shows_greys(sampled(scan.pixels), own[0])
    pairs = zip(scan.pixels, own, strict=True)
    return any(_shows_greys(sampled(image), tones) for image, tones in pairs)


def _shows_greys(values: np.ndarray, tones: Tones | None) -> bool:
    if tones is None:
        return False
    if is_line(tones):
        black, white = tones.values
        return bool(np.any((values > black) & (values < white)))
    levels = brightness(values, tones)
    return bool(np.any((levels > tones.levels.min()) & (levels < tones.levels.max())))
