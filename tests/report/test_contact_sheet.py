"""Slices on one sheet: proportions, scale bars, text that stays inside."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from medcli.report.contact_sheet import BACKGROUND, Panel, bar_length_mm, contact_sheet

SIDE = 100


def drawn(*panels: Panel, columns: int = 4) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(contact_sheet(panels, columns=columns, side=SIDE))))


def panel(count: int = 1, mm_per_pixel: float | None = None, level: int = 128) -> Panel:
    picture = np.full((SIDE, SIDE), level, np.uint8)
    return Panel("title", "facts", [picture] * count, [""] * count, mm_per_pixel)


@pytest.mark.parametrize(
    ("available", "expected"),
    [(100.0, 100), (99.9, 50), (49, 20), (19.9, 10), (5, 5), (4.99, 2), (1, 1), (0.3, 0.2)],
)
def test_a_bar_has_the_longest_round_length_that_fits(available: float, expected: float) -> None:
    assert bar_length_mm(available) == pytest.approx(expected)


def test_the_bar_is_as_long_as_it_says() -> None:
    # 0.5 mm a pixel and at most 30 of 100 pixels: 10 mm, which are 20 pixels.
    difference = drawn(panel(mm_per_pixel=0.5)).astype(int) - drawn(panel())
    rows = [row for row in np.abs(difference) if row.any()]
    bright = np.flatnonzero(drawn(panel(mm_per_pixel=0.5))[-8 - 6] > 200)
    assert rows
    assert len(bright) == 20


def test_without_spacing_there_is_no_bar() -> None:
    assert (drawn(panel())[-8 - 40 : -8, 8 : 8 + SIDE] == 128).all()


def test_panels_stand_side_by_side_until_the_row_is_full() -> None:
    one, three = drawn(panel()), drawn(panel(), panel(), panel())
    assert three.shape[0] == one.shape[0]
    assert three.shape[1] == 3 * one.shape[1]
    assert drawn(panel(3), panel(3)).shape[0] == 2 * one.shape[0]
    assert drawn(panel(6), columns=3).shape[0] > one.shape[0]


def test_long_and_foreign_titles_stay_within_their_panel() -> None:
    picture = np.zeros((SIDE, SIDE), np.uint8)
    sheet = drawn(Panel("肺\n\x1b\udcff" * 80 + "end", "long " * 40, [picture], [""]))
    assert sheet.shape == drawn(panel()).shape
    assert (sheet[:, -4:] == BACKGROUND).all()


def test_grey_beside_colour_becomes_colour() -> None:
    red = np.zeros((SIDE, SIDE, 3), np.uint8)
    red[..., 0] = 200
    sheet = drawn(Panel("t", "f", [red], ["0"]), panel())
    assert sheet.shape[2] == 3
    assert (sheet[-20, 50] == [200, 0, 0]).all()


def test_a_sheet_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a panel"):
        contact_sheet([], columns=1, side=SIDE)
