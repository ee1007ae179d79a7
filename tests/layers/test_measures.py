"""Measures against NumPy and SciPy on the same pixels, and of shapes known by construction."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from medcli.layers.measures import MEASURES, RAW, measure_scans, measure_slices

pytestmark = pytest.mark.usefixtures("one_thread")


def disc(radius: float, side: int = 32, stretch: float = 1.0) -> Tensor:
    """(1, 1, side, side) an ellipse of 0 and 1 in the middle."""
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    return torch.from_numpy(((x / stretch) ** 2 + y**2 <= radius**2).astype(np.float32))[None, None]


def measured(images: Tensor, region: Tensor) -> dict[str, float]:
    """The measures of one scan of (S, 1, H, W) slices."""
    raw = measure_slices(images, region)[None]
    values = measure_scans(raw, torch.ones(raw.shape[:2], dtype=torch.bool))[0]
    return dict(zip(MEASURES, values.tolist(), strict=True))


def test_layers_are_those_that_scipy_erodes() -> None:
    images = torch.rand(3, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    region = torch.cat([disc(4), disc(7), disc(5)])
    found = measured(images, region)
    left, pixels = region[:, 0].numpy() > 0, images[:, 0].numpy()
    assert found["slices"] == 3
    assert found["volume"] == pytest.approx(np.log1p(left.sum()), rel=1e-5)
    assert found["largest_area"] == pytest.approx(np.log1p(left[1].sum()), rel=1e-5)
    for depth in range(4):
        inner = ndimage.binary_erosion(left, np.ones((1, 3, 3)))
        layer = left & ~inner
        assert found[f"whole_layer{depth}"] == pytest.approx(pixels[layer].mean(), rel=1e-4)
        own = pixels[1][layer[1]]
        assert found[f"largest_layer{depth}"] == pytest.approx(own.mean(), rel=1e-4)
        left = inner
    assert found["whole_layer4"] == pytest.approx(pixels[left].mean(), rel=1e-4)


def test_filters_answer_as_those_of_scipy_do() -> None:
    images = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    region = disc(7)
    found = measured(images, region)
    inside, at = (images * region)[0, 0].numpy().astype(np.float64), region[0, 0].numpy() > 0
    for scale in (1.0, 2.5):  # the smallest is narrower than a pixel, where they sample otherwise
        blur = ndimage.gaussian_filter(inside, scale, mode="constant")[at]
        ridge = ndimage.gaussian_laplace(inside, scale, mode="constant")[at]
        assert found[f"whole_blur_{scale}"] == pytest.approx(blur.mean(), rel=1e-2)
        assert found[f"whole_blur_high_{scale}"] == pytest.approx(blur.max(), rel=1e-2)
        assert found[f"whole_ridge_size_{scale}"] == pytest.approx(np.abs(ridge).mean(), rel=3e-2)
        assert found[f"whole_ridge_low_{scale}"] == pytest.approx(-ridge.min(), rel=3e-2)


def test_an_ellipse_is_longer_than_a_disc() -> None:
    flat = torch.full((1, 1, 32, 32), 0.8)
    round_, long = measured(flat, disc(5)), measured(flat, disc(5, stretch=2.0))
    assert round_["elongation"] == pytest.approx(1, abs=0.02)
    assert long["elongation"] == pytest.approx(0.5, abs=0.05)
    assert long["fill"] == pytest.approx(1, abs=0.05)


def test_a_quarter_turn_changes_no_measure() -> None:
    images = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    region = torch.cat([disc(6, stretch=1.5), disc(4)])
    turned = measured(images.rot90(1, (2, 3)), region.rot90(1, (2, 3)))
    assert turned == pytest.approx(measured(images, region), rel=1e-3, abs=1e-3)


def test_what_is_padded_changes_no_measure() -> None:
    raw = measure_slices(torch.rand(2, 1, 32, 32), torch.cat([disc(4), disc(3)]))[None]
    padded = torch.cat([raw, torch.rand(1, 2, len(RAW))], dim=1)
    mask = torch.tensor([[True, True, False, False]])
    assert torch.allclose(measure_scans(padded, mask), measure_scans(raw, mask[:, :2]))


def test_an_empty_region_gives_zeros_and_finite_measures() -> None:
    raw = measure_slices(torch.rand(1, 1, 32, 32), torch.zeros(1, 1, 32, 32))
    assert raw.shape == (1, len(RAW))
    assert not raw.any()
    assert measure_scans(raw[None], torch.ones(1, 1, dtype=torch.bool)).isfinite().all()
