"""Scans → a picture to look at: windowed slices in true proportion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medcli.config import Window
from medcli.imaging.display import display_slices, display_tones
from medcli.imaging.preprocess import sample_slices
from medcli.records import Scan, Tones
from medcli.report.contact_sheet import Panel, contact_sheet

MOST_SCANS = 60
"""So many scans stand on one sheet."""


@dataclass(frozen=True, slots=True)
class _Layout:
    """How the slices of each scan are laid out; `side` is of a cell, in pixels."""

    side: int
    columns: int
    slices: int


_PICTURE = _Layout(side=640, columns=1, slices=1)
_VOLUME = _Layout(side=208, columns=5, slices=20)
_SEVERAL = _Layout(side=176, columns=6, slices=6)


class Preview:
    """One sheet of scans, drawn while they are read: no pixels of a scan are kept.

    Of more than `MOST_SCANS` a sample is drawn, evenly spread.

    Parameters
    ----------
    scans : how many will come; a lone one is drawn larger and with more slices
    window : (center, width) in the scans' unit; by default as in
        `medcli.imaging.display.display_slices`
    """

    def __init__(self, scans: int = 1, *, window: Window | None = None) -> None:
        self._wanted = frozenset(sample_slices(scans, MOST_SCANS).tolist())
        self._seen = 0
        self._alone = scans <= 1
        self._window = window
        self._layout = _SEVERAL
        self._panels: list[Panel] = []

    def add(self, scan: Scan, title: str | None = None) -> None:
        """Draw a scan under a title, by default its path."""
        place, self._seen = self._seen, self._seen + 1
        if place not in self._wanted:
            return
        if self._alone:
            self._layout = _VOLUME if len(scan.pixels) > 1 else _PICTURE
        self._panels.append(_panel(scan, title or scan.path, self._layout, self._window))

    def thumbnails(self) -> list[tuple[str, np.ndarray]]:
        """Each picture on the sheet with its title and number: uint8, (h, w) or (h, w, 3)."""
        return [
            (f"{caption} {panel.title}".strip(), picture)
            for panel in self._panels
            for caption, picture in zip(panel.captions, panel.pictures, strict=True)
        ]

    @property
    def left_out(self) -> int:
        """How many of the scans that were added are not on the sheet."""
        return self._seen - len(self._panels)

    def png(self) -> bytes:
        """The sheet.

        Raises
        ------
        ValueError : no scan was added
        """
        layout = self._layout
        return contact_sheet(self._panels, columns=layout.columns, side=layout.side)


def _panel(scan: Scan, title: str, layout: _Layout, window: Window | None) -> Panel:
    """Evenly sampled slices of a scan, numbered from 0."""
    numbers = sample_slices(len(scan.pixels), layout.slices).tolist()
    pictures = display_slices(scan, numbers, window=window, edge=layout.side)
    return Panel(
        title=title,
        facts=_facts(scan, window),
        pictures=tuple(pictures),
        captions=tuple(map(str, numbers)) if len(scan.pixels) > 1 else ("",),
        mm_per_pixel=_longer_side_mm(scan, layout.side),
    )


def _longer_side_mm(scan: Scan, side: int) -> float | None:
    """Mm that a pixel shows when the longer side of a slice is drawn `side` pixels long."""
    _, row_mm, column_mm = scan.spacing_mm
    if row_mm is None or column_mm is None:
        return None
    _, rows, columns, _ = scan.pixels.shape
    return float(max(rows * row_mm, columns * column_mm) / side)


def _facts(scan: Scan, window: Window | None) -> str:
    """Modality, size, spacing and the values shown as black and white, in ASCII."""
    slices, rows, columns, _ = scan.pixels.shape
    z, y, x = scan.spacing_mm
    parts = [scan.modality or scan.format]
    if slices > 1:
        parts.append(f"{slices} slices" + (f" every {z:.3g} mm" if z else ""))
    parts.append(f"{columns} x {rows} px" + (f" of {x:.3g} x {y:.3g} mm" if x and y else ""))
    parts.append(_tones_in_words(display_tones(scan, window), scan.unit))
    return ", ".join(parts)


def _tones_in_words(shown: Sequence[Tones], unit: str) -> str:
    """What is black and what is white, or that each slice says so itself."""
    by = "by the VOI LUT " if shown[0].function == "LUT" else ""
    if len(shown) > 1:
        return "each slice shown as its file says"
    low, high = shown[0].values[[0, -1]]
    if shown[0].function == "SIGMOID":
        return f"shown by a sigmoid around {(low + high) / 2:.4g}"
    return f"shown {by}{low:.4g} to {high:.4g}{' HU' if unit == 'HU' else ''}"
