"""What a person sees of a slice."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from medcli.imaging.display import display_slice
from medcli.imaging.intensity import apply_window

HU = np.random.default_rng(0).integers(-1000, 1000, (3, 96, 96, 1)).astype(np.int16)


def test_the_files_own_window_is_used_unless_another_is_given(scan_of: Any) -> None:
    scan = scan_of(HU, unit="HU", window=(40.0, 400.0))
    shown = display_slice(scan, 1)
    assert shown.dtype == np.uint8
    np.testing.assert_array_equal(shown, np.rint(apply_window(HU[1, ..., 0], 40, 400) * 255))
    lung = display_slice(scan, 1, window=(-600.0, 1500.0))
    np.testing.assert_array_equal(lung, np.rint(apply_window(HU[1, ..., 0], -600, 1500) * 255))


def test_without_a_window_percentiles_are_used(scan_of: Any) -> None:
    shown = display_slice(scan_of(HU), 0)
    assert shown.min() == 0
    assert shown.max() == 255


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_are_shown_as_they_are(scan_of: Any, channels: int) -> None:
    pixels = np.random.default_rng(0).integers(20, 90, (1, 96, 96, channels)).astype(np.uint8)
    shown = display_slice(scan_of(pixels, unit="display"), 0)
    np.testing.assert_array_equal(shown, pixels[0, ..., 0] if channels == 1 else pixels[0])


def test_pixels_are_drawn_in_true_proportion(scan_of: Any) -> None:
    scan = scan_of(HU[:, :48, :40], spacing_mm=(5.0, 2.0, 1.2))  # 96 mm × 48 mm
    assert display_slice(scan, 2).shape == (96, 48)
    assert display_slice(scan, 2, edge=200).shape == (200, 100)


def test_padding_takes_no_contrast_from_what_was_imaged(scan_of: Any) -> None:
    """Nine pixels of ten are padding: shown is the range of the tenth alone."""
    imaged = np.linspace(100, 300, 96 * 96 // 10, dtype=np.int16)
    pixels = np.full(96 * 96, 100, np.int16)
    pixels[: imaged.size] = imaged
    scan = scan_of(pixels.reshape(1, 96, 96, 1), padded=pixels.size - imaged.size)
    shown = display_slice(scan, 0).ravel()[: imaged.size]
    low, high = np.percentile(imaged, (0.5, 99.5))
    expected = np.clip((imaged - low) / (high - low), 0, 1) * 255
    np.testing.assert_allclose(shown, expected, atol=1)


def test_a_files_window_that_shows_nothing_is_not_used_unless_asked_for(scan_of: Any) -> None:
    """A width of 1 over values from 0 to 1 is all white by the standard's formula."""
    pixels = np.random.default_rng(0).random((1, 96, 96, 1), np.float32)
    scan = scan_of(pixels, window=(0.5, 1.0))
    np.testing.assert_array_equal(display_slice(scan, 0), display_slice(scan_of(pixels), 0))
    assert np.all(display_slice(scan, 0, window=(0.5, 1.0)) == 255)
