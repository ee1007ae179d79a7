from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from medcli.layers.recurrent import (
    HIDDEN,
    Recurrence,
    lstm,
    lstm_bidirectional,
    rnn,
    rnn_bidirectional,
)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("build", "cell", "bidirectional"),
    [
        (rnn, nn.RNN, False),
        (rnn_bidirectional, nn.RNN, True),
        (lstm, nn.LSTM, False),
        (lstm_bidirectional, nn.LSTM, True),
    ],
)
def test_the_states_are_those_of_torch_without_padding(
    build: Callable[[int], Recurrence],
    cell: type[nn.RNN | nn.LSTM],
    bidirectional: bool,
    bag: tuple[Tensor, Tensor],
) -> None:
    features, mask = bag
    layer = build(features.shape[2])
    reference = cell(features.shape[2], HIDDEN, bidirectional=bidirectional)
    reference.load_state_dict(layer.memory.state_dict())
    pooled, weights = layer(features, mask)
    for scan, count in enumerate(mask.sum(dim=1)):
        real = features[scan, :count]
        states, _ = reference(layer.norm(real))
        expected = real.mean(dim=0) + layer.output(states.mean(dim=0))
        torch.testing.assert_close(pooled[scan], expected)
        torch.testing.assert_close(weights[scan, :count], torch.full((int(count),), 1 / count))


def test_gradients_run_through_time_to_the_first_slice(bag: tuple[Tensor, Tensor]) -> None:
    features, mask = bag[0].requires_grad_(), torch.ones_like(bag[1])
    layer = lstm(features.shape[2])
    states, _ = layer.memory(features)
    (gradient,) = torch.autograd.grad(states[:, -1].sum(), features)
    assert (gradient[:, 0].abs().sum(dim=1) > 0).all()
    (gradient,) = torch.autograd.grad(layer(features, mask)[0].sum(), features)
    assert gradient.isfinite().all()
