"""Attention over the slices of a scan."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medcli.layers.pooling import Pooling


class GatedAttention(Pooling):
    """(N, S, F) slice features, (N, S) mask → (N, F) scan features, (N, S) weights.

    ``a_s = softmax_s(w · (tanh(V h_s) ⊙ sigmoid(U h_s)))`` over the slices that
    the mask marks as real; the weights of the others are 0.

    References
    ----------
    Ilse, Tomczak, Welling: Attention-based Deep Multiple Instance Learning,
    ICML 2018, equation 9.
    """

    def __init__(self, num_features: int, hidden: int = 64) -> None:
        super().__init__()
        self.content = nn.Linear(num_features, hidden)
        self.gate = nn.Linear(num_features, hidden)
        self.score = nn.Linear(hidden, 1, bias=False)  # softmax does not see a shift

    def forward(self, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Weight the slices and add them up."""
        hidden = torch.tanh(self.content(features)) * torch.sigmoid(self.gate(features))
        scores = self.score(hidden).squeeze(-1).float()  # (N, S)
        weights = torch.softmax(scores.masked_fill(~mask, float("-inf")), dim=1)
        return torch.einsum("ns,nsf->nf", weights, features.float()), weights
