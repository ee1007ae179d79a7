"""Changes by apparatus, one by one, against arithmetic by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from medcli.data.acquisition import add_noise, blank_edges, coarsen, hide_patch, soften
from medcli.data.draws import Draws

pytestmark = pytest.mark.usefixtures("one_thread")


def draws(count: int, seed: int = 0) -> Draws:
    generator = torch.Generator().manual_seed(seed)
    return Draws(torch.ones(count, dtype=torch.int64), generator, torch.device("cpu"))


def checks(side: int = 32) -> Tensor:
    """(20, 1, side, side) boards of single pixels: the finest structure there is."""
    line = torch.arange(side) % 2
    return ((line[:, None] + line) % 2).float().expand(20, 1, -1, -1)


def test_coarsening_takes_fine_structure_from_some_and_the_mean_from_none() -> None:
    changed = coarsen(checks(), 8, 0.5, draws(20))
    spread = changed.std(dim=(1, 2, 3))
    assert 0 < (spread < 0.3).sum() < 20
    assert (spread > 0.49).any()
    torch.testing.assert_close(
        changed.mean(dim=(1, 2, 3)), torch.full((20,), 0.5), atol=0.02, rtol=0
    )


def test_a_small_picture_is_not_made_coarser() -> None:
    images = checks(28)
    assert coarsen(images, 40, 1.0, draws(20)) is images


def test_some_are_softened_and_some_others_are_edged() -> None:
    edge = torch.zeros(60, 1, 8, 8)
    edge[..., 4:] = 0.5
    edge += 0.25
    changed = soften(edge, 0.4, 1.0, draws(60))
    step = changed[:, 0, 4, 4] - changed[:, 0, 4, 3]
    assert (step < 0.26).sum() > 5  # (1, 2, 1) / 4 leaves half of a step of 0.5
    assert (step > 0.55).sum() > 5
    assert step.max() <= 0.75 + 1e-6  # and as much again is the most that is added
    assert torch.isclose(step, torch.tensor(0.5)).sum() > 5


def test_noise_has_up_to_the_deviation_asked_for() -> None:
    noisy = add_noise(torch.full((40, 1, 64, 64), 0.5), 0.1, draws(40))
    deviations = noisy.std(dim=(1, 2, 3))
    assert deviations.min() < 0.02
    assert 0.08 < deviations.max() < 0.105


def test_strips_at_the_edges_are_black_and_no_wider_than_asked() -> None:
    kept = blank_edges(torch.ones(200, 1, 50, 50), 0.5, 0.2, draws(200))
    assert (kept[:, :, 10:40, 10:40] == 1).all()
    assert (kept[:, 0, 0, 25] == 0).float().mean() > 0.3
    rows = (kept[:, 0, :, 25] == 0).float().sum(dim=1)  # both edges of the middle column
    assert 10 < rows.max() <= 20
    assert (kept.flatten(1).min(dim=1).values == 1).float().mean() > 0.3


def test_a_patch_holds_the_mean_of_its_scan() -> None:
    images = torch.zeros(100, 3, 20, 20)
    images[:, :, 10:] = 1
    hidden = hide_patch(images, 0.5, 0.4, draws(100))
    changed = hidden != images
    assert 0.3 < changed.flatten(1).any(dim=1).float().mean() < 0.7
    assert (hidden[changed] == 0.5).all()
    assert changed.float().mean(dim=(1, 2, 3)).max() <= 0.45**2
