from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from medcli.layers.transformer import POSITIONS, WIDTH, Block, Transformer, position_code

pytestmark = pytest.mark.usefixtures("one_thread")


def torchs(block: Block) -> nn.TransformerEncoderLayer:
    """torch's own layer with the weights of `block`."""
    layer = nn.TransformerEncoderLayer(
        8, 2, 16, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
    ours = block.state_dict()
    names = {
        "self_attn.in_proj_": "attention.inward.",
        "self_attn.out_proj.": "attention.outward.",
        "norm1.": "attention_norm.",
        "norm2.": "perceptron.0.",
        "linear1.": "perceptron.1.",
        "linear2.": "perceptron.3.",
    }
    kinds = ("weight", "bias")
    layer.load_state_dict({t + k: ours[o + k] for t, o in names.items() for k in kinds})
    return layer


def test_a_block_is_torchs_encoder_layer() -> None:
    block = Block(width=8, heads=2)
    tokens = torch.randn(3, 5, 8)
    mask = torch.arange(5)[None] < torch.tensor([1, 3, 5])[:, None]
    answered, attention = block(tokens, mask)
    layer = torchs(block)
    expected = layer(tokens, src_key_padding_mask=~mask)
    torch.testing.assert_close(answered[mask], expected[mask])
    normal = layer.norm1(tokens)
    _, weights = layer.self_attn(
        normal, normal, normal, key_padding_mask=~mask, average_attn_weights=False
    )
    torch.testing.assert_close(attention, weights)


def test_positions_are_sines_of_the_place_in_the_stack() -> None:
    mask = torch.tensor([[True, True, True, True], [True, False, False, False]])
    code = position_code(mask)
    place = POSITIONS * 2.5 / 4  # the middle of the third of four slices
    pair = 5
    angle = place / 10_000 ** (2 * pair / WIDTH)
    assert code[0, 2, pair].item() == pytest.approx(math.sin(angle), abs=1e-6)
    assert code[0, 2, pair + WIDTH // 2].item() == pytest.approx(math.cos(angle), abs=1e-6)
    torch.testing.assert_close(code[1, 0, 0], torch.tensor(POSITIONS / 2).sin())


def test_the_slice_features_enter_with_the_weights(bag: tuple[Tensor, Tensor]) -> None:
    features, mask = bag
    layer = Transformer(features.shape[2])
    nn.init.zeros_(layer.output[1].weight)
    nn.init.zeros_(layer.output[1].bias)
    pooled, weights = layer(features, mask)
    torch.testing.assert_close(pooled, (weights[..., None] * features).sum(dim=1))
    assert (weights[mask] > 0).all()
