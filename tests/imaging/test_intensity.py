"""Intensities, against pydicom's windowing and NumPy's percentiles."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_windowing

from medcli.config import PreprocessConfig
from medcli.imaging.intensity import apply_window, percentile_range, scale, value_range
from medcli.records import Scan

CONFIG = PreprocessConfig()
HU = np.random.default_rng(0).integers(-1100, 2000, (3, 20, 30, 1)).astype(np.int16)


def to_unit_range(scan: Scan, config: PreprocessConfig) -> np.ndarray:
    return scale(scan.pixels, value_range(scan, config))


@pytest.mark.parametrize("window", [(-600, 1500), (40, 400), (40, 1), (0.5, 2), (50, 350.5)])
def test_windows_agree_with_pydicom(window: tuple[float, float]) -> None:
    dataset = Dataset()
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsStored, dataset.PixelRepresentation = 16, 1
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, 0
    dataset.WindowCenter, dataset.WindowWidth = window
    shown = apply_windowing(HU, dataset)  # onto the whole range of signed 16-bit values
    expected = (shown + 2.0**15) / (2**16 - 1)
    np.testing.assert_allclose(apply_window(HU, *window), expected, atol=1e-5)


def test_a_window_below_one_is_a_mistake() -> None:
    with pytest.raises(ValueError, match=r"0\.5"):
        apply_window(HU, 40, 0.5)


@given(st.floats(-2000, 2000), st.floats(1, 4000))
def test_a_window_is_monotonous_and_within_zero_and_one(center: float, width: float) -> None:
    shown = apply_window(np.arange(-3000, 3000, 7), center, width)
    assert shown.dtype == np.float32
    assert shown.min() >= 0
    assert shown.max() <= 1
    assert np.all(np.diff(shown) >= 0)


def test_hu_is_seen_through_the_models_window(scan_of: Any) -> None:
    scan = scan_of(HU, unit="HU", window=(300.0, 2000.0))
    np.testing.assert_array_equal(to_unit_range(scan, CONFIG), apply_window(HU, -600, 1500))


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_keep_their_full_range(scan_of: Any, channels: int) -> None:
    pixels = np.random.default_rng(0).integers(50, 200, (1, 8, 9, channels)).astype(np.uint8)
    unit = to_unit_range(scan_of(pixels, unit="display"), CONFIG)
    np.testing.assert_allclose(unit, pixels / 255, atol=1e-6)


def test_grey_pictures_follow_percentiles_where_the_model_says_so(scan_of: Any) -> None:
    config = PreprocessConfig(pictures="percentiles", percentiles=(0.0, 100.0))
    grey = np.random.default_rng(0).integers(50, 200, (1, 8, 9, 1)).astype(np.uint8)
    unit = to_unit_range(scan_of(grey, unit="display"), config)
    assert (unit.min(), unit.max()) == (0, 1)
    colour = np.repeat(grey, 3, axis=3)
    unit = to_unit_range(scan_of(colour, unit="display"), config)
    np.testing.assert_allclose(unit, colour / 255, atol=1e-6)


def test_stored_values_follow_percentiles_over_the_whole_scan(scan_of: Any) -> None:
    pixels = np.random.default_rng(0).normal(1000, 300, (4, 16, 16, 1)).astype(np.float32)
    low, high = np.percentile(pixels, CONFIG.percentiles)
    expected = np.clip((pixels - low) / (high - low), 0, 1)
    np.testing.assert_allclose(to_unit_range(scan_of(pixels), CONFIG), expected, atol=1e-5)


def test_percentiles_of_large_scans_are_close_to_the_exact_ones() -> None:
    pixels = np.random.default_rng(0).normal(0, 1, (10, 512, 512)).astype(np.float32)
    np.testing.assert_allclose(
        percentile_range(pixels, (0.5, 99.5)), np.percentile(pixels, (0.5, 99.5)), atol=0.02
    )


@given(
    st.lists(st.integers(-2000, 2000), min_size=2, max_size=60),
    st.integers(0, 200),
    st.tuples(st.floats(0, 40), st.floats(60, 100)),
)
def test_percentiles_leave_padding_out(
    real: list[int], padded: int, percentiles: tuple[float, float]
) -> None:
    """Padding holds the smallest value, wherever it stands."""
    pixels = np.random.default_rng(0).permutation([*real, *[min(real)] * padded])
    expected = np.percentile(real, percentiles)
    if expected[0] == expected[1]:
        expected = np.array([min(real), max(real)])
    found = percentile_range(pixels, percentiles, padded)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-6)


def test_a_small_bright_spot_on_a_constant_ground_is_seen(scan_of: Any) -> None:
    pixels = np.zeros((1, 50, 50, 1), np.uint16)
    pixels[0, 3, 4] = 700
    unit = to_unit_range(scan_of(pixels), CONFIG)
    assert unit[0, 3, 4, 0] == 1
    assert unit.sum() == 1


def test_a_constant_image_is_black(scan_of: Any) -> None:
    assert to_unit_range(scan_of(np.full((1, 5, 5, 1), 7, np.int16)), CONFIG).max() == 0


def test_scaling_leaves_its_input_alone() -> None:
    pixels = np.arange(6, dtype=np.float32)
    scale(pixels, (1.0, 4.0))
    np.testing.assert_array_equal(pixels, np.arange(6))
