"""Scan → model input."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medcli.config import PreprocessConfig, Window
from medcli.imaging.intensity import apply_window, scale, value_range
from medcli.imaging.preprocess import LUMA, Preprocessor, sample_slices
from medcli.imaging.reader import read_scan
from medcli.imaging.resize import resize
from medcli.imaging.series import read_series

RAW = PreprocessConfig(size=32, mean=(0.0,), std=(1.0,))


def smooth_hu(slices: int = 20, size: int = 60) -> np.ndarray:
    """(S, H, W) HU without noise, like tissue next to air."""
    z, y, x = np.meshgrid(np.arange(slices), np.arange(size), np.arange(size), indexing="ij")
    return (1200 * np.sin(z / 5 + y / 9) * np.cos(x / 11) - 300).astype(np.int16)


@pytest.mark.parametrize("pictures", ["full_range", "percentiles"])
@pytest.mark.parametrize("window", [(40.0, 400.0), (-600.0, 1500.0), (35.0, 80.0), (0.0, 6000.0)])
def test_a_picture_saved_with_a_window_looks_like_its_slice_under_that_window(
    tmp_path: Path,
    write_ct_series: Any,
    dicom_case: Any,
    file_case: Any,
    window: Window,
    pictures: Any,
) -> None:
    paths = write_ct_series(tmp_path / "ct", smooth_hu(), spacing=(2.0, 0.7, 0.7))
    scan = read_series(dicom_case(paths))
    shown = np.rint(255 * apply_window(scan.pixels[7, ..., 0], *window)).astype(np.uint8)
    Image.fromarray(shown).save(tmp_path / "saved.png")
    picture = read_scan(file_case(tmp_path / "saved.png", "picture"))
    preprocessor = Preprocessor(replace(RAW, pictures=pictures))
    of_slice = preprocessor.model_input(scan, slices=[7], window=window)
    of_picture = preprocessor.model_input(picture)
    assert np.abs(of_slice - of_picture).max() < 0.02


def test_the_input_is_scaled_resized_and_standardised(scan_of: Any) -> None:
    pixels = np.random.default_rng(0).integers(-1000, 500, (40, 50, 40, 1)).astype(np.int16)
    scan = scan_of(pixels, unit="HU", spacing_mm=(2.0, 0.5, 0.7))
    config = PreprocessConfig(size=32, mean=(0.3,), std=(0.2,))
    unit = (
        np.rint(resize(scale(scan.pixels, value_range(scan, config)), 32, (0.5, 0.7)) * 255) / 255
    )
    expected = (np.moveaxis(unit, 3, 1) - 0.3) / 0.2
    found = Preprocessor(config).model_input(scan)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_slices_are_taken_as_asked_and_scaled_as_parts_of_the_whole(scan_of: Any) -> None:
    pixels = np.random.default_rng(0).integers(0, 3000, (6, 10, 10, 1)).astype(np.uint16)
    pixels[5] *= 10
    scan = scan_of(pixels)
    preprocessor = Preprocessor(RAW)
    whole = preprocessor.model_input(scan)
    np.testing.assert_array_equal(preprocessor.model_input(scan, slices=[4, 1]), whole[[4, 1]])


def test_grey_is_repeated_for_a_colour_model(scan_of: Any) -> None:
    config = PreprocessConfig(size=8, channels=3, mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 4.0))
    scan = scan_of(np.full((2, 8, 8, 1), 255, np.uint8), unit="display")
    found = Preprocessor(config).model_input(scan)
    assert found.shape == (2, 3, 8, 8)
    np.testing.assert_allclose(found[0, :, 0, 0], [0.9, 0.4, 0.175], atol=1e-6)


def test_colour_becomes_luma_for_a_grey_model(scan_of: Any) -> None:
    colour = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3)).astype(np.uint8)
    found = Preprocessor(RAW).model_input(scan_of(colour, unit="display"))
    np.testing.assert_allclose(found[0, 0], colour[0] / 255 @ np.array(LUMA), atol=0.501 / 255)


def test_prediction_sees_the_bytes_that_training_keeps(scan_of: Any) -> None:
    pixels = np.random.default_rng(0).integers(-1000, 500, (3, 50, 40, 1)).astype(np.int16)
    found = Preprocessor(PreprocessConfig(size=32)).unit_input(scan_of(pixels, unit="HU"))
    kept = np.rint(found * 255).astype(np.uint8)
    assert len(np.unique(kept)) > 100
    np.testing.assert_array_equal(kept / np.float32(255), found)


def test_a_model_that_stretches_pictures_stores_slices_as_saved_through_its_own_window_too(
    scan_of: Any,
) -> None:
    config = PreprocessConfig(pictures="percentiles", ct_window=(-600, 1500))
    views = Preprocessor(config).views(scan_of(np.zeros((1, 4, 4, 1), np.int16), unit="HU"))
    assert ("model", None) in views
    assert ("-600/1500", (-600, 1500)) in views


def test_the_views_of_ct_are_the_models_its_own_and_the_configured_windows(scan_of: Any) -> None:
    config = PreprocessConfig(ct_window=(-600, 1500), index_windows=((-600, 1500), (40, 400)))
    hu = np.zeros((1, 4, 4, 1), np.int16)
    views = Preprocessor(config).views
    own = scan_of(hu, unit="HU", window=(50.0, 350.0))
    assert views(own) == [("model", None), ("own", (50.0, 350.0)), ("40/400", (40, 400))]
    same = scan_of(hu, unit="HU", window=(40.0, 400.0))
    assert views(same) == [("model", None), ("own", (40.0, 400.0))]
    assert views(scan_of(hu, unit="HU")) == [("model", None), ("40/400", (40, 400))]
    assert views(scan_of(hu, window=(50.0, 350.0))) == [("model", None)]


@pytest.mark.parametrize(
    ("count", "budget", "expected"),
    [
        (3, 5, [0, 1, 2]),
        (5, 5, [0, 1, 2, 3, 4]),
        (9, 3, [0, 4, 8]),
        (9, 1, [4]),
        (100, 4, [0, 33, 66, 99]),
    ],
)
def test_slices_are_sampled_evenly_with_both_ends(
    count: int, budget: int, expected: list[int]
) -> None:
    assert sample_slices(count, budget).tolist() == expected


@pytest.mark.parametrize("count", range(1, 80, 7))
def test_sampled_slices_are_distinct_and_in_order(count: int) -> None:
    chosen = sample_slices(count, 32)
    assert len(chosen) == min(count, 32)
    assert np.all(np.diff(chosen) > 0)
