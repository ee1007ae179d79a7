from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from medcli.layers.attention import GatedAttention, MeanOverSlices

pytestmark = pytest.mark.usefixtures("one_thread")
FEATURES = 6


def bag(count: int = 3, slices: int = 5) -> tuple[Tensor, Tensor]:
    """Scans of 1, 3 and 5 slices, padded to five."""
    torch.manual_seed(0)
    mask = torch.arange(slices)[None] < torch.tensor([1, 3, 5])[:count, None]
    return torch.randn(count, slices, FEATURES), mask


def gated_attention(layer: GatedAttention, bag: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ilse et al. 2018, equation 9, for the (S, F) real slices of one scan, in float64."""
    named = {name: value.detach().double().numpy() for name, value in layer.named_parameters()}
    content = np.tanh(bag @ named["content.weight"].T + named["content.bias"])
    gate = 1 / (1 + np.exp(-(bag @ named["gate.weight"].T + named["gate.bias"])))
    scores = (content * gate) @ named["score.weight"][0]
    weights = np.exp(scores) / np.exp(scores).sum()
    return weights @ bag, weights


def test_gated_attention_is_equation_9_of_ilse_et_al() -> None:
    features, mask = bag()
    layer = GatedAttention(FEATURES, hidden=4)
    pooled, weights = layer(features, mask)
    for scan, count in enumerate(mask.sum(dim=1)):
        real = features[scan, :count].double().numpy()
        expected, expected_weights = gated_attention(layer, real)
        np.testing.assert_allclose(pooled[scan].detach(), expected, atol=1e-6)
        np.testing.assert_allclose(weights[scan, :count].detach(), expected_weights, atol=1e-6)


def test_the_mean_weighs_all_real_slices_alike() -> None:
    features, mask = bag()
    pooled, weights = MeanOverSlices(FEATURES)(features, mask)
    for scan, count in enumerate(mask.sum(dim=1)):
        real = features[scan, :count]
        np.testing.assert_allclose(pooled[scan], real.mean(dim=0), atol=1e-6)
        np.testing.assert_allclose(weights[scan, :count], 1 / int(count))


@pytest.mark.parametrize("build", [GatedAttention, MeanOverSlices])
def test_what_stands_on_padding_changes_nothing(build: type[nn.Module]) -> None:
    features, mask = bag()
    layer = build(FEATURES)
    pooled, weights = layer(features, mask)
    disturbed = torch.where(mask[..., None], features, torch.full_like(features, 1e6))
    again, again_weights = layer(disturbed, mask)
    torch.testing.assert_close(again, pooled)
    torch.testing.assert_close(again_weights, weights)
    assert (weights[~mask] == 0).all()


@pytest.mark.parametrize("build", [GatedAttention, MeanOverSlices])
def test_the_order_of_slices_does_not_matter(build: type[nn.Module]) -> None:
    features, _ = bag(1)
    mask = torch.ones(1, features.shape[1], dtype=torch.bool)
    layer = build(FEATURES)
    order = torch.tensor([3, 0, 4, 1, 2])
    pooled, weights = layer(features, mask)
    shuffled, shuffled_weights = layer(features[:, order], mask)
    torch.testing.assert_close(shuffled, pooled)
    torch.testing.assert_close(shuffled_weights, weights[:, order])
