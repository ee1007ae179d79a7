"""Slices side by side with their numbers, a scale bar and a line of facts, as one PNG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from medcli.report.pictures import encode_png, montage

GAP = 4  # pixels between cells
MARGIN = 8
BACKGROUND = 40  # grey level; a black picture stands out from it
TEXT_SIZE = 14
LINE = 19  # pixels from one line of text to the next
BAR_SHARE = 0.3  # of a cell, at most, that a scale bar takes
_INK, _EDGE = 235, 0


@dataclass(frozen=True, slots=True)
class Panel:
    """The pictures of one scan.

    Parameters
    ----------
    title, facts : two lines above the pictures
    pictures : uint8 (h, w) or (h, w, 3), the longer side as long as a cell
    captions : one a picture
    mm_per_pixel : of the pictures, None where unknown: no scale bar then
    below : a drawing under the pictures, uint8 (h, w), as wide as them at most
    """

    title: str
    facts: str
    pictures: Sequence[np.ndarray] = field(repr=False)
    captions: Sequence[str]
    mm_per_pixel: float | None = None
    below: np.ndarray | None = field(default=None, repr=False)


def contact_sheet(panels: Sequence[Panel], *, columns: int, side: int) -> bytes:
    """What `drawn_sheet` draws, as a PNG."""
    return encode_png(drawn_sheet(panels, columns=columns, side=side))


def drawn_sheet(panels: Sequence[Panel], *, columns: int, side: int) -> np.ndarray:
    """All panels, side by side as long as they fit, then one row under the other.

    Parameters
    ----------
    columns : pictures in a row, at most
    side : of a square cell, pixels

    Returns
    -------
    uint8, (h, w) or (h, w, 3)

    Raises
    ------
    ValueError : no panel, or one without pictures
    """
    if not panels:
        raise ValueError("a contact sheet needs a panel")
    drawn = [_panel(panel, columns, side) for panel in panels]
    colour = any(sheet.ndim == 3 for sheet in drawn)
    alike = [_as_colour(sheet) if colour else sheet for sheet in drawn]
    rows = [_joined(row, axis=1) for row in _rows(alike, columns * (side + GAP) + 2 * MARGIN)]
    return _joined(rows, axis=0)


def _rows(sheets: Sequence[np.ndarray], width: int) -> list[list[np.ndarray]]:
    """Pictures in rows of at most `width` pixels."""
    rows: list[list[np.ndarray]] = []
    for sheet in sheets:
        if rows and sum(each.shape[1] for each in rows[-1]) + sheet.shape[1] <= width:
            rows[-1].append(sheet)
        else:
            rows.append([sheet])
    return rows


def _joined(sheets: Sequence[np.ndarray], axis: int) -> np.ndarray:
    """Pictures side by side (axis 1) or one under the other (0), on one background."""
    other = 1 - axis
    longest = max(sheet.shape[other] for sheet in sheets)
    filled = []
    for sheet in sheets:
        missing = [(0, 0)] * sheet.ndim
        missing[other] = (0, longest - sheet.shape[other])
        filled.append(np.pad(sheet, missing, constant_values=BACKGROUND))
    return np.concatenate(filled, axis=axis)


def _as_colour(sheet: np.ndarray) -> np.ndarray:
    return np.repeat(sheet[..., np.newaxis], 3, axis=2) if sheet.ndim == 2 else sheet


def bar_length_mm(available_mm: float) -> float:
    """The longest of 1, 2, 5, 10, 20, 50 … mm (or parts of a mm) that fits."""
    power = 10.0 ** math.floor(math.log10(available_mm))
    return next(step * power for step in (5, 2, 1) if step * power <= available_mm * (1 + 1e-9))


def _panel(panel: Panel, columns: int, side: int) -> np.ndarray:
    """Two lines of text over the pictures of one scan: uint8, (h, w) or (h, w, 3)."""
    cells = montage(panel.pictures, columns, side=side, gap=GAP, background=BACKGROUND)
    head = MARGIN + 2 * LINE
    foot = 0 if panel.below is None else len(panel.below) + MARGIN
    shape = (head + len(cells) + MARGIN + foot, cells.shape[1] + 2 * MARGIN, *cells.shape[2:])
    pixels = np.full(shape, BACKGROUND, np.uint8)
    pixels[head : head + len(cells), MARGIN : MARGIN + cells.shape[1]] = cells
    if panel.below is not None:
        drawing = panel.below if pixels.ndim == 2 else panel.below[..., np.newaxis]
        top = head + len(cells) + MARGIN
        pixels[top : top + len(drawing), MARGIN : MARGIN + drawing.shape[1]] = drawing
    canvas = _Canvas(pixels)
    width = cells.shape[1]
    canvas.write((MARGIN, MARGIN // 2), canvas.cut(panel.title, width, keep_end=True))
    canvas.write((MARGIN, MARGIN // 2 + LINE), canvas.cut(panel.facts, width, keep_end=False))
    in_row = min(columns, len(panel.pictures))
    for place, caption in enumerate(panel.captions):
        left = MARGIN + place % in_row * (side + GAP)
        top = head + place // in_row * (side + GAP)
        canvas.write((left + 4, top + 2), caption)
        if panel.mm_per_pixel is not None:
            length = bar_length_mm(BAR_SHARE * side * panel.mm_per_pixel)
            canvas.bar((left + 6, top + side - 7), round(length / panel.mm_per_pixel))
            canvas.write((left + 6, top + side - 7 - LINE), f"{length:g} mm")
    return canvas.pixels()


class _Canvas:
    """Draws what can be read on any background: light with a dark edge."""

    def __init__(self, pixels: np.ndarray) -> None:
        from PIL import Image, ImageDraw, ImageFont

        self._image = Image.fromarray(pixels)
        self._pen = ImageDraw.Draw(self._image)
        self._font = ImageFont.load_default(TEXT_SIZE)
        self._ink = _level(_INK, self._image.mode)
        self._edge = _level(_EDGE, self._image.mode)

    def write(self, place: tuple[int, int], text: str) -> None:
        """Text with its left upper corner at `place`."""
        self._pen.text(
            place, text, font=self._font, fill=self._ink, stroke_width=1, stroke_fill=self._edge
        )

    def bar(self, place: tuple[int, int], length: int) -> None:
        """A bar of `length` pixels, three high."""
        left, top = place
        self._pen.rectangle((left - 1, top - 1, left + length, top + 3), fill=self._edge)
        self._pen.rectangle((left, top, left + length - 1, top + 2), fill=self._ink)

    def cut(self, text: str, width: int, *, keep_end: bool) -> str:
        """`text` in the letters that Pillow's own font has, at most `width` pixels long."""
        plain = "".join(each if each.isascii() and each.isprintable() else "?" for each in text)
        shown = plain
        while plain and self._font.getlength(shown) > width:
            plain = plain[1:] if keep_end else plain[:-1]
            shown = f"…{plain}" if keep_end else f"{plain}…"
        return shown

    def pixels(self) -> np.ndarray:
        """What was drawn: uint8, (h, w) or (h, w, 3)."""
        return np.asarray(self._image)


def _level(grey: int, mode: str) -> int | tuple[int, int, int]:
    """A grey level as Pillow draws it in a picture of this mode."""
    return grey if mode == "L" else (grey, grey, grey)
