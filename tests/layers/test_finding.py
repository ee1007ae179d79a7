"""The region of the finding in the middle of a crop, and scores by quantiles."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import kstest
from torch import Tensor

from medcli.layers.finding import crop_middle, find_region, region_mean
from medcli.layers.quantiles import QuantileScores

pytestmark = pytest.mark.usefixtures("one_thread")
LUNG, TISSUE = 0.3, 0.85


def discs(*places: tuple[float, float, float], side: int = 64) -> Tensor:
    """(1, 1, side, side) of 0 and 1; each place is x and y from the middle and a radius."""
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    inside = [(x - at_x) ** 2 + (y - at_y) ** 2 <= radius**2 for at_x, at_y, radius in places]
    return torch.from_numpy(np.any(inside, axis=0).astype(np.float32))[None, None]


def test_a_masked_crop_is_its_own_region() -> None:
    nodule = discs((2, 1, 8))
    assert torch.equal(find_region(nodule * 0.4), nodule)


def test_a_nodule_in_lung_is_found_and_its_neighbour_is_not() -> None:
    nodule, vessel = discs((1, 0, 7)), discs((20, 10, 5))
    image = LUNG + (TISSUE - LUNG) * torch.maximum(nodule, vessel)
    found = find_region(image)
    overlap = 2 * (found * nodule).sum() / (found.sum() + nodule.sum())
    assert overlap > 0.95
    assert not (found * vessel).any()


def test_a_nodule_at_the_wall_does_not_run_into_it() -> None:
    nodule = discs((0, 0, 6))
    wall = torch.zeros(1, 1, 64, 64)
    wall[..., 45:] = 1
    bridge = torch.zeros(1, 1, 64, 64)
    bridge[..., 31:33, 32:46] = 1  # two pixels high
    image = LUNG + (TISSUE - LUNG) * torch.maximum(torch.maximum(nodule, wall), bridge)
    assert not (find_region(image) * wall).any()


def test_lung_alone_has_no_region_and_a_tiny_nodule_has_one() -> None:
    assert not find_region(torch.full((1, 1, 64, 64), LUNG)).any()
    tiny = LUNG + (TISSUE - LUNG) * discs((0, 0, 1))
    assert find_region(tiny).sum() == discs((0, 0, 1)).sum()


def test_means_are_taken_inside_and_the_middle_is_cropped() -> None:
    maps = torch.rand(2, 3, 8, 8)
    region = torch.zeros(2, 1, 8, 8)
    region[0, :, 2:4, 2:5] = 1
    expected = maps[0, :, 2:4, 2:5].mean(dim=(1, 2))
    torch.testing.assert_close(region_mean(maps, region)[0], expected)
    assert not region_mean(maps, region)[1].any()
    assert torch.equal(crop_middle(maps, 4), maps[:, :, 2:6, 2:6])
    assert torch.equal(crop_middle(maps, 16), maps)


def test_scores_of_the_fitted_numbers_are_normal_and_keep_their_order() -> None:
    numbers = torch.from_numpy(np.random.default_rng(0).exponential(size=(4000, 1)))
    scores = QuantileScores(1)
    scores.fit(numbers)
    found = scores(numbers.float())[:, 0].numpy()
    assert kstest(found, "norm").statistic < 0.02
    order = numbers[:, 0].argsort().numpy()
    assert (np.diff(found[order]) >= -1e-5).all()


def test_a_number_that_never_varied_has_finite_scores() -> None:
    scores = QuantileScores(1)
    scores.fit(torch.ones(10, 1))
    assert scores(torch.tensor([[0.0], [1.0], [2.0]])).isfinite().all()
