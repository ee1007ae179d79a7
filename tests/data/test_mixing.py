from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from medcli.data.mixing import mix, partner_slices

pytestmark = pytest.mark.usefixtures("one_thread")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_an_alpha_of_zero_changes_nothing_and_draws_nothing() -> None:
    images, generator = torch.rand(3, 1, 4, 4), seeded()
    before = generator.get_state()
    assert mix(images, [1, 2], 0, generator) == (images, None)
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize(
    ("own", "partner", "expected"),
    [
        (1, 5, [2]),  # a single picture meets the middle
        (5, 1, [0] * 5),
        (3, 3, [0, 1, 2]),
        (2, 4, [1, 3]),
        (4, 2, [0, 0, 1, 1]),
    ],
)
def test_a_slice_meets_the_one_at_its_share_of_the_stack(
    own: int, partner: int, expected: list[int]
) -> None:
    rows = partner_slices(np.array([own, partner]), np.array([1, 0]))
    assert rows[:own].tolist() == [own + row for row in expected]
    assert rows[own:].max() < own


def test_slices_are_the_stated_blend() -> None:
    lengths = [2, 1, 4]
    images = torch.rand(7, 3, 4, 4)
    mixed, mixing = mix(images, lengths, 0.4, seeded(1))
    assert mixing is not None
    rows = partner_slices(np.array(lengths), mixing.partners.numpy())
    owner = np.repeat(np.arange(3), lengths)
    for row in range(7):
        share = mixing.shares[owner[row]]
        expected = share * images[row] + (1 - share) * images[rows[row]]
        torch.testing.assert_close(mixed[row], expected)
    assert sorted(mixing.partners.tolist()) == [0, 1, 2]


def test_shares_are_a_beta_folded_at_one_half() -> None:
    _, mixing = mix(torch.zeros(4000, 1, 1, 1), [1] * 4000, 0.4, seeded())
    assert mixing is not None
    drawn = mixing.shares.double().numpy()
    assert drawn.min() >= 0.5
    reference = np.random.default_rng(9).beta(0.4, 0.4, 100_000)
    assert kstest(drawn, np.maximum(reference, 1 - reference)).pvalue > 0.01


def test_a_seed_repeats_the_mixing() -> None:
    images = torch.rand(4, 1, 4, 4)
    first, again, other = (mix(images, [1, 1, 2], 0.4, seeded(s))[0] for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
