from __future__ import annotations

import numpy as np
import pytest
from torch import Tensor

from medcli.layers.attention import GatedAttention

pytestmark = pytest.mark.usefixtures("one_thread")


def gated_attention(layer: GatedAttention, bag: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ilse et al. 2018, equation 9, for the (S, F) real slices of one scan, in float64."""
    named = {name: value.detach().double().numpy() for name, value in layer.named_parameters()}
    content = np.tanh(bag @ named["content.weight"].T + named["content.bias"])
    gate = 1 / (1 + np.exp(-(bag @ named["gate.weight"].T + named["gate.bias"])))
    scores = (content * gate) @ named["score.weight"][0]
    weights = np.exp(scores) / np.exp(scores).sum()
    return weights @ bag, weights


def test_gated_attention_is_equation_9_of_ilse_et_al(bag: tuple[Tensor, Tensor]) -> None:
    features, mask = bag
    layer = GatedAttention(features.shape[2], hidden=4)
    pooled, weights = layer(features, mask)
    for scan, count in enumerate(mask.sum(dim=1)):
        real = features[scan, :count].double().numpy()
        expected, expected_weights = gated_attention(layer, real)
        np.testing.assert_allclose(pooled[scan].detach(), expected, atol=1e-6)
        np.testing.assert_allclose(weights[scan, :count].detach(), expected_weights, atol=1e-6)
