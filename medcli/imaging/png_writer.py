"""`Scan` → PNG files: grey levels through a window, or values kept whole in 16 bits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from medcli.config import Window
from medcli.imaging.display import display_range
from medcli.imaging.intensity import Range, scale, window_range
from medcli.records import Scan

Bits = Literal[8, 16]


@dataclass(frozen=True, slots=True)
class Levels:
    """How values become the grey levels of a PNG; a value is `slope` · level + `intercept`.

    Attributes
    ----------
    ends : values that become black and white
    """

    ends: Range
    bits: Bits

    @property
    def slope(self) -> float:
        """Value between two levels."""
        return float((self.ends[1] - self.ends[0]) / (2**self.bits - 1))

    @property
    def intercept(self) -> float:
        """Value of level 0."""
        return self.ends[0]


def choose_levels(scan: Scan, *, window: Window | None = None, bits: Bits = 8) -> Levels:
    """Grey levels for a scan; colour keeps its 8 bits whatever is asked for.

    With 8 bits the window given, else what `medcli.imaging.display.display_range` shows.
    With 16 bits the window given, else all values: whole numbers one by one from the
    smaller of 0 and their minimum, where they fit.
    """
    if scan.pixels.shape[3] == 3:
        return Levels((0.0, 255.0), 8)
    if window is not None:
        return Levels(window_range(window), bits)
    if bits == 8:
        return Levels(display_range(scan), 8)
    low, high = float(scan.pixels.min()), float(scan.pixels.max())
    whole = scan.pixels.dtype.kind in "iu" and high - min(low, 0.0) < 2**16
    return Levels((min(low, 0.0), min(low, 0.0) + 2**16 - 1) if whole else (low, high), 16)


def render(scan: Scan, levels: Levels) -> Iterator[np.ndarray]:
    """Each slice as uint8 or uint16, (H, W) or (H, W, 3)."""
    kind = np.uint8 if levels.bits == 8 else np.uint16
    top = 2**levels.bits - 1
    for image in scan.pixels:
        drawn = np.rint(scale(image, levels.ends).astype(np.float64) * top).astype(kind)
        yield drawn[..., 0] if drawn.shape[2] == 1 else drawn


def write_png(path: Path, pixels: np.ndarray) -> None:
    """Write uint8 (H, W), (H, W, 3) or uint16 (H, W); the same pixels give the same bytes."""
    from PIL import Image

    Image.fromarray(np.ascontiguousarray(pixels)).save(path, "PNG")
