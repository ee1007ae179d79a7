"""What every aggregator keeps to, and the arithmetic of those without weights."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from medcli.layers.attention import GatedAttention
from medcli.layers.pooling import MaxOverSlices, MeanOverSlices, Pooling, SumOverSlices
from medcli.layers.recurrent import lstm, lstm_bidirectional, rnn, rnn_bidirectional
from medcli.layers.transformer import Transformer

pytestmark = pytest.mark.usefixtures("one_thread")
Bag = tuple[Tensor, Tensor]
Build = Callable[[int], nn.Module]
POOLING: list[Build] = [GatedAttention, MeanOverSlices, SumOverSlices, MaxOverSlices]
IN_ORDER: list[Build] = [rnn, rnn_bidirectional, lstm, lstm_bidirectional, Transformer]


@pytest.fixture(params=POOLING + IN_ORDER, ids=lambda build: build.__name__)
def layer(request: pytest.FixtureRequest, bag: Bag) -> nn.Module:
    torch.manual_seed(0)
    built: nn.Module = request.param(bag[0].shape[2])
    return built


def test_what_stands_on_padding_changes_nothing(layer: nn.Module, bag: Bag) -> None:
    features, mask = bag
    pooled, weights = layer(features, mask)
    disturbed = torch.where(mask[..., None], features, torch.full_like(features, 1e6))
    again, again_weights = layer(disturbed, mask)
    torch.testing.assert_close(again, pooled)
    torch.testing.assert_close(again_weights, weights)


def test_a_scan_alone_is_answered_as_in_a_batch(layer: nn.Module, bag: Bag) -> None:
    features, mask = bag
    pooled, weights = layer(features, mask)
    for scan, count in enumerate(mask.sum(dim=1)):
        alone = layer(features[scan : scan + 1, :count], mask[scan : scan + 1, :count])
        torch.testing.assert_close(alone[0][0], pooled[scan])
        torch.testing.assert_close(alone[1][0], weights[scan, :count])


def test_weights_sum_to_one_and_are_zero_on_padding(layer: nn.Module, bag: Bag) -> None:
    _, weights = layer(*bag)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(len(weights)))
    assert (weights >= 0).all()
    assert (weights[~bag[1]] == 0).all()


def test_a_slice_is_a_scan_of_its_own(layer: nn.Module, bag: Bag) -> None:
    features, mask = bag
    singles = layer.single(features)  # type: ignore[operator]
    assert singles.shape == features.shape
    torch.testing.assert_close(singles[:, 2], layer(features[:, 2:3], mask[:, :1])[0])


@pytest.mark.parametrize("build", POOLING)
def test_the_order_of_slices_does_not_matter_to_pooling(build: Build, bag: Bag) -> None:
    features, mask = bag[0], torch.ones_like(bag[1])
    layer = build(features.shape[2])
    assert isinstance(layer, Pooling)
    order = torch.tensor([3, 0, 4, 1, 2])
    pooled, weights = layer(features, mask)
    shuffled, shuffled_weights = layer(features[:, order], mask)
    torch.testing.assert_close(shuffled, pooled)
    torch.testing.assert_close(shuffled_weights, weights[:, order])


@pytest.mark.parametrize("build", IN_ORDER)
def test_it_does_to_the_others(build: Build, bag: Bag) -> None:
    features, mask = bag[0], torch.ones_like(bag[1])
    layer = build(features.shape[2])
    assert not torch.allclose(layer(features.flip(1), mask)[0], layer(features, mask)[0])


@pytest.mark.parametrize(
    ("build", "pool"),
    [(MeanOverSlices, np.mean), (SumOverSlices, np.sum), (MaxOverSlices, np.max)],
)
def test_pooling_is_numpys_over_the_real_slices(
    build: Build, pool: Callable[..., np.ndarray], bag: Bag
) -> None:
    features, mask = bag
    pooled, _ = build(features.shape[2])(features, mask)
    for scan, count in enumerate(mask.sum(dim=1)):
        expected = pool(features[scan, :count].numpy(), axis=0)
        np.testing.assert_allclose(pooled[scan], expected, atol=1e-6)


@pytest.mark.parametrize("build", [MeanOverSlices, SumOverSlices])
def test_mean_and_sum_weigh_all_real_slices_alike(build: Build, bag: Bag) -> None:
    _, weights = build(bag[0].shape[2])(*bag)
    assert weights[1].tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0, 0])


def test_the_weight_under_the_maximum_is_the_share_of_features_a_slice_holds() -> None:
    features = torch.tensor([[[4.0, 0.0, 7.0, 2.0], [1.0, 0.0, 9.0, 3.0], [8.0, 9.0, 9.9, 9.0]]])
    mask = torch.tensor([[True, True, False]])
    pooled, weights = MaxOverSlices(4)(features, mask)
    assert pooled.tolist() == [[4, 0, 9, 3]]
    assert weights.tolist() == [[(1 + 0.5) / 4, (0.5 + 1 + 1) / 4, 0]]  # the tie is shared


ALSO = [rnn_bidirectional, lstm, SumOverSlices]  # told from their like by little


@pytest.mark.parametrize(
    "build",
    [
        *(rnn, lstm_bidirectional, Transformer, MaxOverSlices),
        *(pytest.param(build, marks=pytest.mark.slow) for build in ALSO),
    ],
)
def test_the_graph_answers_as_torch_at_mixed_lengths(
    build: Build, bag: Bag, in_onnx: Callable[[nn.Module], Callable[..., Bag]]
) -> None:
    torch.manual_seed(0)
    layer = build(bag[0].shape[2])
    in_graph = in_onnx(layer)
    with torch.inference_mode():
        for features, mask in (bag, (bag[0][:1, :1], bag[1][:1, :1])):
            for got, wanted in zip(in_graph(features, mask), layer(features, mask), strict=True):
                np.testing.assert_allclose(got, wanted, atol=1e-6)
