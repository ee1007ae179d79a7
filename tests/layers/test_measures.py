"""Measures against NumPy on the same pixels, and what they say of shapes known by construction."""

from __future__ import annotations

import numpy as np
import pytest
import torch
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


def test_intensities_are_those_numpy_finds_in_the_region() -> None:
    images = torch.rand(3, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    region = torch.cat([disc(4), disc(7), disc(5)])
    found = measured(images, region)
    inside = images[region > 0].numpy()
    assert found["slices"] == 3
    assert found["volume"] == pytest.approx(np.log1p(len(inside)), rel=1e-5)
    assert found["whole_mean"] == pytest.approx(inside.mean(), rel=1e-4)
    assert found["whole_sd"] == pytest.approx(inside.std(), rel=2e-2)
    largest = images[1][region[1] > 0].numpy()
    assert found["largest_mean"] == pytest.approx(largest.mean(), rel=1e-4)
    assert found["largest_area"] == pytest.approx(np.log1p(len(largest)), rel=1e-5)
    assert sum(found[f"whole_share{k}"] for k in range(12)) == pytest.approx(1, rel=1e-4)


def test_an_ellipse_is_longer_than_a_disc_and_less_compact() -> None:
    flat = torch.full((1, 1, 32, 32), 0.8)
    round_, long = measured(flat, disc(5)), measured(flat, disc(5, stretch=2.0))
    assert round_["largest_elongation"] == pytest.approx(1, abs=0.02)
    assert long["largest_elongation"] == pytest.approx(0.5, abs=0.05)
    assert long["largest_diameter"] > 1.7 * round_["largest_diameter"]
    assert long["largest_compactness"] < round_["largest_compactness"]


def test_a_quarter_turn_changes_no_measure() -> None:
    images = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    region = torch.cat([disc(6, stretch=1.5), disc(4)])
    turned = measured(images.rot90(1, (2, 3)), region.rot90(1, (2, 3)))
    assert turned == pytest.approx(measured(images, region), rel=1e-3, abs=1e-3)


def test_an_empty_region_gives_zeros_and_finite_measures() -> None:
    raw = measure_slices(torch.rand(1, 1, 32, 32), torch.zeros(1, 1, 32, 32))
    assert raw.shape == (1, len(RAW))
    assert not raw.abs().gt(1e-2).any()
    assert measure_scans(raw[None], torch.ones(1, 1, dtype=torch.bool)).isfinite().all()
