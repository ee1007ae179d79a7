"""Values → grey levels of a PNG, and back by slope and intercept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medcli.imaging.intensity import apply_window
from medcli.imaging.png_writer import Levels, choose_levels, render, write_png
from medcli.records import Scan, Tones


def scan_of(pixels: np.ndarray, **fields: object) -> Scan:
    return Scan(
        pixels=pixels,
        path="x",
        files=("x",),
        slice_files=("x",) * len(pixels),
        scan_id="x",
        format="dicom",
        **fields,
    )


def way_back(levels: Levels, index: int) -> tuple[float, float]:
    """Slope and intercept of a slice, which it has."""
    found = levels.way_back(index)
    assert found is not None
    return found


def every(low: int, high: int, kind: str) -> np.ndarray:
    """(1, N, 1, 1): each whole number once."""
    return np.arange(low, high + 1).astype(kind).reshape(1, -1, 1, 1)


@pytest.mark.parametrize(
    ("low", "high", "kind"),
    [(-32768, 32767, "int16"), (-1024, 3071, "int16"), (0, 65535, "uint16"), (5, 900, "uint16")],
)
def test_sixteen_bits_keep_every_whole_number(low: int, high: int, kind: str) -> None:
    scan = scan_of(every(low, high, kind))
    levels = choose_levels(scan, bits=16)
    (drawn,) = render(scan, levels)
    assert drawn.dtype == np.uint16
    slope, intercept = way_back(levels, 0)
    assert slope == 1
    np.testing.assert_array_equal(drawn + intercept, scan.pixels[0, ..., 0])


def test_sixteen_bits_of_floats_come_back_to_a_level() -> None:
    scan = scan_of(np.random.default_rng(0).normal(size=(2, 8, 8, 1)).astype(np.float32))
    levels = choose_levels(scan, bits=16)
    for index, drawn in enumerate(render(scan, levels)):
        slope, intercept = way_back(levels, index)
        back = drawn * slope + intercept
        np.testing.assert_allclose(back, scan.pixels[index, ..., 0], atol=slope)


def test_eight_bits_show_the_window() -> None:
    scan = scan_of(every(-1024, 1500, "int16"), unit="HU", window=(40.0, 400.0))
    for window in (None, (-600.0, 1500.0)):
        (drawn,) = render(scan, choose_levels(scan, window=window))
        expected = apply_window(scan.pixels[0, ..., 0], *(window or (40.0, 400.0))) * 255
        assert np.abs(drawn - expected).max() <= 0.501


def test_a_picture_stays_as_it_is() -> None:
    grey = scan_of(np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1), unit="display")
    (drawn,) = render(grey, choose_levels(grey))
    np.testing.assert_array_equal(drawn, grey.pixels[0, ..., 0])
    colour = scan_of(np.random.default_rng(0).integers(0, 256, (1, 4, 4, 3), np.uint8))
    for bits in (8, 16):
        (drawn,) = render(colour, choose_levels(colour, bits=bits, window=(10, 20)))
        np.testing.assert_array_equal(drawn, colour.pixels[0])


@pytest.mark.parametrize("kind", ["uint8", "uint16"])
def test_a_file_holds_the_pixels(tmp_path: Path, kind: str) -> None:
    pixels = np.arange(200, 500).astype(kind).reshape(20, 15)
    write_png(tmp_path / "a.png", pixels)
    with Image.open(tmp_path / "a.png") as image:
        np.testing.assert_array_equal(np.asarray(image), pixels)


def test_each_slice_has_its_own_way_back_and_a_table_none() -> None:
    tones = (
        Tones(np.array([10.0, 265.0]), np.array([0.0, 1.0])),
        Tones(np.array([0.0, 100.0, 255.0]), np.array([0.0, 0.1, 1.0]), "LUT"),
    )
    scan = scan_of(np.stack([every(0, 255, "int16")[0]] * 2), tones=tones)
    levels = choose_levels(scan)
    assert way_back(levels, 0) == (1.0, 10.0)
    assert levels.way_back(1) is None
    line, table = render(scan, levels)
    np.testing.assert_array_equal(line[:, 0], np.clip(np.arange(256) - 10.0, 0, 255))
    expected = np.interp(np.arange(256), [0, 100, 255], [0, 25.5, 255])
    assert np.abs(table[:, 0] - expected).max() <= 0.501
