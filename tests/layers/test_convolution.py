from __future__ import annotations

import pytest
import torch
from torch import nn

from medcli.layers.convolution import LocalResponseNorm, SumPool2d

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("span", [1, 2, 5, 9])
def test_response_normalisation_is_torchs_whose_alpha_is_divided_by_the_span(span: int) -> None:
    maps = 3 * torch.randn(2, 7, 4, 5)
    ours = LocalResponseNorm(span, alpha=0.3, beta=0.6, k=1.5)
    torchs = nn.LocalResponseNorm(span, alpha=0.3 * span, beta=0.6, k=1.5)
    torch.testing.assert_close(ours(maps), torchs(maps))


def test_response_normalisation_by_hand() -> None:
    maps = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 4, 1, 1)
    found = LocalResponseNorm(span=3, alpha=0.5, beta=0.75, k=2.0)(maps).flatten()
    sums = [1 + 4, 1 + 4 + 9, 4 + 9 + 16, 9 + 16]
    by_hand = [value / (2 + 0.5 * total) ** 0.75 for value, total in enumerate(sums, start=1)]
    assert found.tolist() == pytest.approx(by_hand)


def test_sums_over_windows_by_hand() -> None:
    maps = torch.arange(1.0, 10.0).view(1, 1, 3, 3)
    found = SumPool2d(3, stride=2, padding=1)(maps)
    assert found.flatten().tolist() == pytest.approx([1 + 2 + 4 + 5, 16, 24, 28])
