"""Resizing, against Pillow's BILINEAR filter for float images."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from medcli.imaging.resize import fitted_shape, resample, resize, triangle_weights, unfit


@settings(max_examples=40, deadline=None)
@given(*[st.integers(1, 90)] * 4)
def test_resampling_agrees_with_pillow(height: int, width: int, rows: int, columns: int) -> None:
    image = np.random.default_rng(height).random((height, width), dtype=np.float32)
    expected = np.asarray(Image.fromarray(image).resize((columns, rows), Image.Resampling.BILINEAR))
    found = resample(image[np.newaxis, ..., np.newaxis], rows, columns)
    assert found.shape == (1, rows, columns, 1)
    np.testing.assert_allclose(found[0, ..., 0], expected, atol=1e-3)


def test_channels_and_slices_are_resized_alike() -> None:
    images = np.random.default_rng(0).random((3, 20, 30, 3), dtype=np.float32)
    together = resample(images, 8, 12)
    alone = resample(images[1:2, ..., 2:], 8, 12)
    np.testing.assert_allclose(together[1, ..., 2], alone[0, ..., 0], atol=1e-6)


@given(st.integers(1, 600), st.integers(1, 600))
def test_weights_of_every_pixel_sum_to_one(source: int, target: int) -> None:
    np.testing.assert_allclose(triangle_weights(source, target).sum(axis=1), 1, atol=1e-5)


def test_what_fits_already_is_unchanged() -> None:
    images = np.random.default_rng(0).random((2, 64, 64, 1), dtype=np.float32)
    np.testing.assert_array_equal(resize(images, 64), images)


def test_a_wide_picture_is_padded_above_and_below_and_not_cropped() -> None:
    square = resize(np.ones((1, 20, 40, 1), np.float32), 64)
    assert square.shape == (1, 64, 64, 1)
    expected = np.zeros((64, 64))
    expected[16:48] = 1
    np.testing.assert_allclose(square[0, ..., 0], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("spacing", "expected"),
    [
        ((None, None), (32, 64)),
        ((0.5, 0.5), (32, 64)),
        ((1.0, 0.5), (64, 64)),
        ((2.0, 0.5), (64, 32)),
        ((None, 0.5), (32, 64)),
    ],
)
def test_proportions_are_kept_in_mm(
    spacing: tuple[float | None, float | None], expected: tuple[int, int]
) -> None:
    assert fitted_shape((20, 40), 64, spacing) == expected


def test_extreme_proportions_keep_a_line() -> None:
    assert fitted_shape((1, 5000), 64, (None, None)) == (1, 64)


@pytest.mark.parametrize("shape", [(40, 30), (30, 40), (7, 50)])
def test_what_was_fitted_into_a_square_goes_back_to_its_place(shape: tuple[int, int]) -> None:
    ramp = np.linspace(0, 1, shape[0])[:, None] + np.linspace(0, 1, shape[1])[None]
    images = (ramp / 2).astype(np.float32)[None, ..., None]
    back = unfit(resize(images, 64, (0.5, 1.0)), shape, (0.5, 1.0))
    assert back.shape == images.shape
    np.testing.assert_allclose(back[:, 2:-2, 2:-2], images[:, 2:-2, 2:-2], atol=0.03)
