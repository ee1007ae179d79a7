"""Statistics of pictures against arithmetic by hand and NumPy's quantiles."""

from __future__ import annotations

import numpy as np
import pytest

from medcli.imaging.statistics import coarse_layout, image_statistics, picture_views, slice_views

TONES = 11


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    """Values a byte can hold, as a model's input has them."""
    return (np.random.default_rng(seed).integers(0, 256, shape) / 255).astype(np.float32)


def test_tones_are_quantiles_mean_spread_and_both_ends() -> None:
    image = noise(1, 1, 100, 100) ** 2
    found = image_statistics(image)[0, :TONES]
    wanted = (0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98)
    np.testing.assert_allclose(found[:7], np.quantile(image, wanted), atol=1 / 255)
    assert found[7:9] == pytest.approx([image.mean(), image.std()], rel=1e-4)
    levels = np.rint(image * 255)
    assert found[9:] == pytest.approx([(levels <= 1).mean(), (levels >= 254).mean()], abs=1e-6)


def test_texture_is_found_in_its_octave_and_direction() -> None:
    stripes = np.zeros((1, 1, 16, 16), np.float32)
    stripes[..., 1::2] = 1  # one pixel wide, from top to bottom
    bands = image_statistics(stripes)[0, TONES:].reshape(-1, 3, 2)
    across, along, diagonal = bands[0, :, 0]
    assert across == pytest.approx(np.log(0.5 + 1 / 1024), abs=1e-5)
    assert along == diagonal == pytest.approx(np.log(1 / 1024), abs=1e-5)
    assert np.allclose(bands[1:], bands[0, 1])  # coarser octaves are even


def test_edges_and_noise_of_one_strength_differ() -> None:
    noisy, edge = noise(1, 1, 64, 64), np.zeros((1, 1, 64, 64), np.float32)
    edge[..., 31:] = 1
    spread_over_size = [image_statistics(image)[0, TONES + 1] for image in (noisy, edge)]
    assert spread_over_size[0] < 0.3 < 1 < spread_over_size[1]


def test_colour_adds_its_differences() -> None:
    image = noise(1, 3, 32, 32)
    found = image_statistics(image)[0]
    assert len(found) == len(image_statistics(image[:, :1])[0]) + 8
    differences = image[0, 0] - image[0, 1]
    assert found[-8:-6] == pytest.approx([differences.mean(), differences.std()], abs=1e-5)
    np.testing.assert_allclose(found[-6:-4], np.quantile(differences, [0.05, 0.95]), atol=2 / 255)


def test_grey_in_three_channels_has_no_colour() -> None:
    grey = np.repeat(noise(1, 1, 32, 32), 3, axis=1)
    np.testing.assert_allclose(image_statistics(grey)[0, -8:], 0, atol=2 / 255)


def test_a_stack_has_the_mean_of_its_slices() -> None:
    stack = noise(5, 3, 30, 40)
    whole, each = picture_views(stack), slice_views(stack)
    for name, view in whole.items():
        alone = [picture_views(stack[i : i + 1])[name] for i in range(5)]
        np.testing.assert_allclose(each[name], alone, atol=1e-5)
        np.testing.assert_allclose(view, np.mean(alone, axis=0), atol=1e-5)


def test_the_layout_is_where_the_light_is_whatever_its_strength() -> None:
    image = np.full((1, 1, 64, 64), 0.2, np.float32)
    image[..., :8, 8:16] = 0.9
    (layout,) = coarse_layout(image)
    assert layout.argmax() == 1
    assert np.linalg.norm(layout) == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(coarse_layout(image * 0.5)[0], layout, atol=1e-5)


def test_an_even_picture_has_no_layout_and_finite_statistics() -> None:
    for level in (0.0, 0.5, 1.0):
        views = picture_views(np.full((2, 3, 28, 28), level, np.float32))
        np.testing.assert_allclose(views["layout"], 0, atol=1e-3)
        assert np.isfinite(views["statistics"]).all()
        assert {view.dtype for view in views.values()} == {np.dtype(np.float32)}
