"""The deconvolutional network against autograd with the rectification of the way down."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from medcli.layers.convolution import LocalResponseNorm
from medcli.layers.deconvolution import Deconvolution, is_reversible
from medcli.models.registry import BACKBONES, resolve

pytestmark = pytest.mark.usefixtures("one_thread")
REVERSIBLE = [name for name in BACKBONES if name.startswith(("resnet", "cnn_lrn"))]


class _Rectified(torch.autograd.Function):
    """ReLU whose gradient is the rectified signal, whatever came up."""

    @staticmethod
    def forward(ctx: object, maps: Tensor) -> Tensor:
        return maps.relu()

    @staticmethod
    def backward(ctx: object, signal: Tensor) -> Tensor:  # type: ignore[override]
        return signal.relu()


class _Scaled(LocalResponseNorm):
    """The layer with divisors that pass no gradient."""

    def factor(self, maps: Tensor) -> Tensor:
        return super().factor(maps).detach()


def by_autograd(backbone: nn.Module, images: Tensor, signal: Tensor) -> Tensor:
    """The same pass with torch's own reverse of every linear layer."""
    original = nn.ReLU.forward
    classes = {}
    for module in backbone.modules():
        if isinstance(module, LocalResponseNorm):
            classes[module], module.__class__ = module.__class__, _Scaled
    nn.ReLU.forward = lambda self, maps: _Rectified.apply(maps)  # type: ignore[method-assign]
    try:
        asked = images.clone().requires_grad_()
        backbone(asked).backward(signal)
    finally:
        nn.ReLU.forward = original  # type: ignore[method-assign]
        for module, own in classes.items():
            module.__class__ = own
    assert asked.grad is not None
    return asked.grad


def built(name: str, size: int) -> nn.Module:
    torch.manual_seed(0)
    backbone: nn.Module = resolve(BACKBONES, "architecture", name)(1, size)
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.running_var, 0.5, 1.5)  # type: ignore[arg-type]
    return backbone.eval()


@pytest.mark.parametrize("name", REVERSIBLE)
@pytest.mark.parametrize("size", [37, 96])
def test_the_way_down_is_the_one_of_autograd(name: str, size: int) -> None:
    backbone = built(name, size)
    images = torch.randn(2, 1, size, size)
    network = Deconvolution([backbone.layers])  # type: ignore[list-item]
    feature_map = network.up(images)
    torch.testing.assert_close(feature_map, backbone(images))
    signal = torch.randn_like(feature_map)
    expected = by_autograd(backbone, images, signal)
    assert expected.abs().max() > 0
    scale = float(expected.abs().max())
    torch.testing.assert_close(network.down(signal) / scale, expected / scale)


def test_a_switch_sends_the_value_back_to_where_it_came_from() -> None:
    network = Deconvolution([nn.MaxPool2d(2)])
    network.up(torch.tensor([[[[1.0, 5.0, 0.0, 0.0], [2.0, 3.0, 0.0, 7.0]]]]))
    found = network.down(torch.tensor([[[[10.0, 20.0]]]]))
    assert found.tolist() == [[[[0.0, 10.0, 0.0, 0.0], [0.0, 0.0, 0.0, 20.0]]]]


def test_the_winner_of_two_overlapping_windows_gets_both_values() -> None:
    network = Deconvolution([nn.MaxPool2d(3, 2)])
    network.up(torch.tensor([[[[0.0, 0.0, 9.0, 0.0, 0.0]] * 3]]))
    assert network.down(torch.tensor([[[[1.0, 2.0]]]])).sum() == 3.0
    assert network.down(torch.tensor([[[[1.0, 2.0]]]])).max() == 3.0


def test_which_networks_have_a_reverse() -> None:
    for name in BACKBONES:
        backbone = resolve(BACKBONES, "architecture", name)(1, 32)
        assert is_reversible([backbone.layers]) == (name in REVERSIBLE), name


def test_a_layer_without_reverse_is_named() -> None:
    with pytest.raises(TypeError, match="GELU"):
        Deconvolution([nn.GELU()])
