"""Recurrence over the slices of a scan: convolution in the slice, memory between slices."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medcli.layers.pooling import Aggregator, equal_weights

HIDDEN = 128  # units of the memory, in each direction


class Recurrence(Aggregator):
    """An RNN or LSTM that runs over the slices, trained through time over the whole stack.

    The memory reads normalised slice features, as the scale of a backbone's features is
    that of no gate. The states of all time steps are averaged and added, through a linear
    map, to the mean of the slice features: what the order of the slices says comes on top
    of what they say one by one. Every time step enters with the same share, so the weights
    are equal over the real slices: what the memory kept cannot be read off them.

    Padding is exact: the forward pass ends at the last real slice, and the backward one
    begins there.

    References
    ----------
    Elman: Finding structure in time, Cognitive Science 1990.
    Hochreiter, Schmidhuber: Long short-term memory, Neural Computation 1997.
    Schuster, Paliwal: Bidirectional recurrent neural networks, IEEE TSP 1997.
    """

    def __init__(
        self, num_features: int, cell: type[nn.RNN | nn.LSTM], bidirectional: bool
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(num_features)
        self.memory = cell(num_features, HIDDEN, batch_first=True, bidirectional=bidirectional)
        self.output = nn.Linear(HIDDEN * (2 if bidirectional else 1), num_features)

    def forward(self, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Run over the slices, average the states, add what they say to the mean."""
        features = features.float()
        run = _states_in_onnx if torch.onnx.is_in_onnx_export() else _states
        states = run(self.memory, self.norm(features), mask)  # (N, S, directions · HIDDEN)
        weights = equal_weights(mask)
        pooled = torch.einsum("ns,nsf->nf", weights, features)
        return pooled + self.output(torch.einsum("ns,nsh->nh", weights, states)), weights


def _states(memory: nn.RNNBase, features: Tensor, mask: Tensor) -> Tensor:
    """(N, S, F) → (N, S, H) states of all time steps, 0 on padding."""
    packed = nn.utils.rnn.pack_padded_sequence(
        features, mask.sum(dim=1).cpu(), batch_first=True, enforce_sorted=False
    )
    states, _ = memory(packed)
    padded, _ = nn.utils.rnn.pad_packed_sequence(
        states, batch_first=True, total_length=features.shape[1]
    )
    return padded


def _states_in_onnx(memory: nn.RNNBase, features: Tensor, mask: Tensor) -> Tensor:
    """The same as ONNX's own operator, which takes the lengths of the sequences.

    torch's exporter would unroll the loop, and the number of slices be fixed.

    References
    ----------
    ONNX operators LSTM-14 and RNN-14: layout S × N × F, gates in the order i, o, f, c.
    """
    scans, slices = features.shape[:2]
    ends = ["_l0", "_l0_reverse"] if memory.bidirectional else ["_l0"]
    order = [0, 3, 1, 2] if memory.mode == "LSTM" else [0]  # torch has i, f, c, o

    def gates(name: str) -> Tensor:
        """(directions, gates · H, …) one kind of weights of both directions."""
        stacked = torch.stack([getattr(memory, name + end) for end in ends])
        split = torch.unflatten(stacked, 1, (len(order), memory.hidden_size))
        return split[:, order].flatten(1, 2)

    states = torch.onnx.ops.symbolic(
        "LSTM" if memory.mode == "LSTM" else "RNN",
        (
            features.transpose(0, 1),
            gates("weight_ih"),
            gates("weight_hh"),
            torch.cat([gates("bias_ih"), gates("bias_hh")], dim=1),
            mask.sum(dim=1).to(torch.int32),
        ),
        {
            "hidden_size": memory.hidden_size,
            "direction": "bidirectional" if memory.bidirectional else "forward",
        },
        dtype=torch.float32,
        shape=(slices, len(ends), scans, memory.hidden_size),
        version=14,
    )
    return states.permute(2, 0, 1, 3).flatten(2)


def rnn(num_features: int) -> Recurrence:
    """Elman's RNN from the first slice to the last."""
    return Recurrence(num_features, nn.RNN, bidirectional=False)


def rnn_bidirectional(num_features: int) -> Recurrence:
    """Elman's RNN in both directions."""
    return Recurrence(num_features, nn.RNN, bidirectional=True)


def lstm(num_features: int) -> Recurrence:
    """LSTM from the first slice to the last."""
    return Recurrence(num_features, nn.LSTM, bidirectional=False)


def lstm_bidirectional(num_features: int) -> Recurrence:
    """LSTM in both directions."""
    return Recurrence(num_features, nn.LSTM, bidirectional=True)
