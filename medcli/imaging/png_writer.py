"""`Scan` → PNG files: grey levels through a window, or values kept whole in 16 bits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from medcli.config import Window
from medcli.imaging.display import display_tones, tones_of
from medcli.imaging.intensity import brightness, is_line, line
from medcli.records import Scan, Tones

Bits = Literal[8, 16]


@dataclass(frozen=True, slots=True)
class Levels:
    """How values become the grey levels of a PNG.

    Attributes
    ----------
    tones : how bright values become, one for all slices or one for each
    """

    tones: tuple[Tones, ...]
    bits: Bits

    def way_back(self, index: int) -> tuple[float, float] | None:
        """(slope, intercept) of slice `index`: a value is slope · level + intercept.

        None where no line leads back, as from a VOI LUT.
        """
        tones = tones_of(self.tones, index)
        if not is_line(tones):
            return None
        black, white = tones.values.tolist()
        return (white - black) / (2**self.bits - 1), black


def choose_levels(scan: Scan, *, window: Window | None = None, bits: Bits = 8) -> Levels:
    """Grey levels for a scan; colour keeps its 8 bits whatever is asked for.

    With 8 bits the window given, else the tones of `medcli.imaging.display.display_tones`.
    With 16 bits the window given, else all values: whole numbers one by one from the
    smaller of 0 and their minimum, where they fit.
    """
    if scan.pixels.shape[3] == 3:
        return Levels((line((0.0, 255.0)),), 8)
    if window is not None or bits == 8:
        return Levels(display_tones(scan, window), bits)
    low, high = float(scan.pixels.min()), float(scan.pixels.max())
    whole = scan.pixels.dtype.kind in "iu" and high - min(low, 0.0) < 2**16
    ends = (min(low, 0.0), min(low, 0.0) + 2**16 - 1) if whole else (low, high)
    return Levels((line(ends),), 16)


def render(scan: Scan, levels: Levels) -> Iterator[np.ndarray]:
    """Each slice as uint8 or uint16, (H, W) or (H, W, 3)."""
    kind = np.uint8 if levels.bits == 8 else np.uint16
    top = 2**levels.bits - 1
    for index, image in enumerate(scan.pixels):
        unit = brightness(image, tones_of(levels.tones, index)).astype(np.float64)
        drawn = np.rint(unit * top).astype(kind)
        yield drawn[..., 0] if drawn.shape[2] == 1 else drawn


def write_png(path: Path, pixels: np.ndarray) -> None:
    """Write uint8 (H, W), (H, W, 3) or uint16 (H, W); the same pixels give the same bytes."""
    from PIL import Image

    Image.fromarray(np.ascontiguousarray(pixels)).save(path, "PNG")
