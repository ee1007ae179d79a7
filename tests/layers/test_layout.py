"""The layout of a picture against arithmetic by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medcli.layers.layout import Layout


@pytest.mark.parametrize(("size", "grid"), [(8, 4), (10, 4), (28, 8)])
def test_fields_are_means_of_the_pixels_they_cover(size: int, grid: int) -> None:
    picture = np.random.default_rng(0).random((size, size))
    fine = np.kron(picture, np.ones((grid, grid)))  # each field is size × size fine pixels
    fields = fine.reshape(grid, size, grid, size).mean(axis=(1, 3))
    centred = (fields - fields.mean()).ravel()
    expected = centred / np.linalg.norm(centred)
    found = Layout(size, grid)(torch.from_numpy(picture)[None, None])[0]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


def test_brightness_and_contrast_of_the_whole_picture_drop_out() -> None:
    picture = torch.rand(1, 1, 16, 16)
    layout = Layout(16, 8)
    torch.testing.assert_close(layout(picture), layout(0.5 * picture + 0.2), atol=1e-5, rtol=0)


def test_a_constant_picture_has_no_layout() -> None:
    assert Layout(16, 8)(torch.full((2, 1, 16, 16), 0.25)).abs().max() < 1e-3
