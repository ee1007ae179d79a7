"""Colours against colorsys and the law of Beer and Lambert."""

from __future__ import annotations

import colorsys

import pytest
import torch
from torch import Tensor

from medcli.data.draws import Draws
from medcli.data.stain import DYES, recolour, restain

pytestmark = pytest.mark.usefixtures("one_thread")


def draws(count: int) -> Draws:
    generator = torch.Generator().manual_seed(0)
    return Draws(torch.ones(count, dtype=torch.int64), generator, torch.device("cpu"))


def dyed(amounts: tuple[float, float, float], count: int = 50) -> Tensor:
    """(count, 3, 1, 1) pixels that hold so much of each dye."""
    colour = (-(torch.tensor(amounts)[:, None] * torch.tensor(DYES)).sum(0)).exp()
    return colour.view(1, 3, 1, 1).expand(count, -1, -1, -1)


@pytest.mark.parametrize("dye", range(3))
def test_a_single_dye_keeps_its_colour_and_changes_its_amount(dye: int) -> None:
    amounts = [0.0, 0.0, 0.0]
    amounts[dye] = 0.8
    changed = restain(dyed(tuple(amounts)), 1.5, draws(50))  # type: ignore[arg-type]
    found = -changed.flatten(1).log() @ torch.linalg.inv(torch.tensor(DYES))
    others = [other for other in range(3) if other != dye]
    torch.testing.assert_close(found[:, others], torch.zeros(50, 2), atol=1e-4, rtol=0)
    ratio = found[:, dye] / 0.8
    assert 1 / 1.5 - 1e-3 < ratio.min() < 0.8
    assert 1.25 < ratio.max() < 1.5 + 1e-3


def test_dyes_change_apart_from_each_other() -> None:
    changed = restain(dyed((0.5, 0.5, 0.0)), 1.5, draws(50))
    found = -changed.flatten(1).log() @ torch.linalg.inv(torch.tensor(DYES))
    assert abs(float(torch.corrcoef(found[:, :2].T)[0, 1])) < 0.4


def test_hue_turns_both_ways_and_brightness_stays() -> None:
    colour = torch.tensor([0.6, 0.4, 0.5])
    images = colour.view(1, 3, 1, 1).expand(50, -1, -1, -1)
    changed = recolour(images, 0.05, 1.0, draws(50)).flatten(1)
    luma = torch.tensor([0.299, 0.587, 0.114])
    torch.testing.assert_close(changed @ luma, (colour @ luma).expand(50), atol=1e-3, rtol=0)
    before = colorsys.rgb_to_hsv(*colour.tolist())[0]
    turns = [(colorsys.rgb_to_hsv(*each)[0] - before + 0.5) % 1 - 0.5 for each in changed.tolist()]
    assert min(turns) < -0.01
    assert max(turns) > 0.01
    assert max(map(abs, turns)) < 0.15


def test_saturation_leaves_grey_grey() -> None:
    grey = torch.full((10, 3, 2, 2), 0.4)
    torch.testing.assert_close(recolour(grey, 0.05, 2.0, draws(10)), grey, atol=1e-3, rtol=0)
    colour = torch.tensor([0.6, 0.4, 0.5]).view(1, 3, 1, 1).expand(40, -1, -1, -1)
    spread = recolour(colour, 0.0, 1.5, draws(40)).flatten(1).std(dim=1) / colour[0].std()
    assert spread.min() < 0.8
    assert spread.max() > 1.25


def test_pictures_of_one_channel_have_no_stain() -> None:
    grey = torch.rand(3, 1, 4, 4)
    assert restain(grey, 1.5, draws(3)) is grey
    assert recolour(grey, 0.1, 1.5, draws(3)) is grey
