"""A small transformer over the slices of a scan."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from medcli.layers.pooling import Aggregator

WIDTH, HEADS, DEPTH = 128, 4, 2
POSITIONS = 32.0  # a whole stack spans so many steps of the position code


class SelfAttention(nn.Module):
    """(N, T, W) tokens, (N, T) mask → (N, T, W), and the (N, heads, T, T) attention.

    References
    ----------
    Vaswani et al.: Attention Is All You Need, NeurIPS 2017, section 3.2.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.inward = nn.Linear(width, 3 * width)
        self.outward = nn.Linear(width, width)

    def forward(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Every token asks all real tokens."""
        split = self.inward(tokens).unflatten(2, (3, self.heads, -1))  # (N, T, 3, heads, d)
        queries, keys, values = split.permute(2, 0, 3, 1, 4)  # each (N, heads, T, d)
        scores = queries @ keys.transpose(2, 3) / math.sqrt(queries.shape[-1])
        attention = torch.softmax(scores.masked_fill(~mask[:, None, None], float("-inf")), dim=3)
        answers = (attention @ values).transpose(1, 2).flatten(2)  # (N, T, W)
        return self.outward(answers), attention


class Block(nn.Module):
    """Self-attention and a perceptron of two layers, each normalised before and added.

    References
    ----------
    Xiong et al.: On Layer Normalization in the Transformer Architecture, ICML 2020.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = SelfAttention(width, heads)
        self.perceptron = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """(N, T, W) tokens → (N, T, W), and the attention."""
        answers, attention = self.attention(self.attention_norm(tokens), mask)
        tokens = tokens + answers
        return tokens + self.perceptron(tokens), attention


class Transformer(Aggregator):
    """A transformer encoder over the slices with a token of its own that reads the scan.

    Positions are fractions of the stack, so that a series sampled to 16 slices and to 32 is
    one and the same. The weights are the attention that the token pays to the slices in
    the last block, averaged over the heads; the slice features enter with them, and what
    the token has read is added through a linear map.

    References
    ----------
    Vaswani et al.: Attention Is All You Need, NeurIPS 2017.
    Dosovitskiy et al.: An Image is Worth 16x16 Words, ICLR 2021, section 3.1 (the token).
    """

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.inward = nn.Sequential(nn.LayerNorm(num_features), nn.Linear(num_features, WIDTH))
        self.token = nn.Parameter(0.02 * torch.randn(WIDTH))
        self.blocks = nn.ModuleList(Block(WIDTH, HEADS) for _ in range(DEPTH))
        self.output = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, num_features))

    def forward(self, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Weigh the slices by the token's attention, add what it has read."""
        features = features.float()
        slices = self.inward(features) + position_code(mask)
        token = self.token.expand(features.shape[0], 1, WIDTH)
        tokens = torch.cat([token, slices], dim=1)  # (N, 1 + S, W)
        real = torch.cat([torch.ones_like(mask[:, :1]), mask], dim=1)
        for block in self.blocks:
            tokens, attention = block(tokens, real)
        paid = attention[:, :, 0, 1:].mean(dim=1)  # (N, S)
        weights = paid / paid.sum(dim=1, keepdim=True)
        pooled = torch.einsum("ns,nsf->nf", weights, features)
        return pooled + self.output(tokens[:, 0]), weights


def position_code(mask: Tensor) -> Tensor:
    """(N, S) mask → (N, S, W) sines and cosines of each slice's place in its stack.

    The place is the middle of the slice's share, between 0 and `POSITIONS`.

    References
    ----------
    Vaswani et al. 2017, section 3.5.
    """
    lengths = mask.sum(dim=1, keepdim=True)
    steps = torch.arange(mask.shape[1], device=mask.device) + 0.5
    places = POSITIONS * steps / lengths  # (N, S)
    exponents = torch.arange(0, WIDTH, 2, device=mask.device) / WIDTH
    angles = places[..., None] * 10_000.0**-exponents  # (N, S, W/2)
    return torch.cat([angles.sin(), angles.cos()], dim=2)
