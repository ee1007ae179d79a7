"""The perceptron as a network: pixels, and nothing learnt before the projection and the head.

References
----------
Rosenblatt: The perceptron, Psychological Review 1958.
"""

from __future__ import annotations

from torch import Tensor, nn

from medcli.layers.layout import overlap
from medcli.models.backbones.base import Backbone

FIELDS = 32  # a side of the picture that it sees, as the perceptrons beside every run


class Fields(nn.Module):
    """(N, C, size, size) → (N, C * side², 1, 1): means over equal fields, one after the other."""

    def __init__(self, size: int, side: int) -> None:
        super().__init__()
        self.register_buffer("weights", overlap(size, side) * side / size, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Average and flatten."""
        weights = self.get_buffer("weights").to(images.dtype)
        fields = weights @ images @ weights.T
        return fields.flatten(1)[..., None, None]


def perceptron(channels: int, size: int) -> Backbone:
    """Linear on at most 32 × 32 fields of the picture, 0.0 M parameters: no hidden layer."""
    side = min(FIELDS, size)
    return Backbone(nn.Sequential(Fields(size, side)), channels * side**2)
