"""A convolutional network run backwards, from a feature map to image space.

References
----------
Zeiler, Fergus: Visualizing and Understanding Convolutional Networks, ECCV 2014, section 2.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.grad import conv2d_input
from torchvision.models.resnet import BasicBlock, Bottleneck

from medcli.layers.convolution import LocalResponseNorm, SumPool2d


class Deconvolution:
    """A CNN and its deconvolutional network over the same weights.

    On the way up every layer records what its reverse needs: the size of its input, the
    switches of maximum pooling (which field won), the divisor of response normalisation.
    On the way down a signal of the feature map's shape is unpooled through the switches,
    rectified as the activations were, and convolved with the transposed kernels. The two
    branches of a residual block are reversed side by side and added.

    Parameters
    ----------
    layers : in their order, in evaluation mode

    Raises
    ------
    TypeError : a layer that has no reverse here
    """

    def __init__(self, layers: Iterable[nn.Module]) -> None:
        self._steps = [step for layer in layers for step in _steps(layer)]

    @torch.no_grad()
    def up(self, images: Tensor) -> Tensor:
        """(N, C, H, W) images → (N, F, h, w) feature map; the layers remember."""
        return _up(self._steps, images)

    @torch.no_grad()
    def down(self, signal: Tensor) -> Tensor:
        """(N, F, h, w) signal → (N, C, H, W) in image space, for the images last sent up."""
        return _down(self._steps, signal)


def is_reversible(layers: Iterable[nn.Module]) -> bool:
    """Whether `Deconvolution` knows the reverse of every layer."""
    try:
        Deconvolution(layers)
    except TypeError:
        return False
    return True


def _up(steps: Sequence[_Step], maps: Tensor) -> Tensor:
    for step in steps:
        maps = step.up(maps)
    return maps


def _down(steps: Sequence[_Step], signal: Tensor) -> Tensor:
    for step in reversed(steps):
        signal = step.down(signal)
    return signal


class _Step:
    """One layer up, and its reverse down."""

    def __init__(self, layer: Any) -> None:
        self.layer = layer

    def up(self, maps: Tensor) -> Tensor:
        """What the layer does, remembered."""
        raise NotImplementedError

    def down(self, signal: Tensor) -> Tensor:
        """The reverse for the maps last sent up."""
        raise NotImplementedError


class _Rectification(_Step):
    """Rectified up; the signal rectified down, whatever the activations were."""

    def up(self, maps: Tensor) -> Tensor:
        return maps.relu()

    def down(self, signal: Tensor) -> Tensor:
        return signal.relu()


class _Convolution(_Step):
    """Down: the transposed kernels; the bias has no place in image space."""

    def up(self, maps: Tensor) -> Tensor:
        self._shape = maps.shape
        out: Tensor = self.layer(maps)
        return out

    def down(self, signal: Tensor) -> Tensor:
        layer = self.layer
        return _transposed(
            self._shape,
            layer.weight,
            signal,
            stride=layer.stride,
            padding=layer.padding,
            dilation=layer.dilation,
            groups=layer.groups,
        )


class _BatchNormalisation(_Step):
    """Down: each channel times the factor it was given on the way up."""

    def up(self, maps: Tensor) -> Tensor:
        out: Tensor = self.layer(maps)
        return out

    def down(self, signal: Tensor) -> Tensor:
        layer = self.layer
        factor = layer.weight / (layer.running_var + layer.eps).sqrt()
        return cast(Tensor, signal * factor[:, None, None])


class _ResponseNormalisation(_Step):
    """Down: each value times the factor that its neighbours gave it on the way up."""

    def up(self, maps: Tensor) -> Tensor:
        self._factor = self.layer.factor(maps)
        return cast(Tensor, maps * self._factor)

    def down(self, signal: Tensor) -> Tensor:
        return cast(Tensor, signal * self._factor)


class _MaximumPooling(_Step):
    """Down: each value to the field that won on the way up; where windows overlap they add."""

    def up(self, maps: Tensor) -> Tensor:
        self._shape, layer = maps.shape, self.layer
        out, self._switches = F.max_pool2d(
            maps,
            layer.kernel_size,
            layer.stride,
            layer.padding,
            layer.dilation,
            layer.ceil_mode,
            return_indices=True,
        )
        return out

    def down(self, signal: Tensor) -> Tensor:
        fields = signal.new_zeros((*self._shape[:2], self._shape[2] * self._shape[3]))
        fields.scatter_add_(2, self._switches.flatten(2), signal.flatten(2))
        return fields.reshape(self._shape)


class _AveragePooling(_Step):
    """Down: each value spread over its window."""

    def up(self, maps: Tensor) -> Tensor:
        self._shape = maps.shape
        out: Tensor = self.layer(maps)
        return out

    def down(self, signal: Tensor) -> Tensor:
        side = self.layer.kernel_size
        channels = self._shape[1]
        kernel = signal.new_full((channels, 1, side, side), 1 / side**2)
        return _transposed(
            self._shape,
            kernel,
            signal,
            stride=self.layer.stride,
            padding=self.layer.padding,
            groups=channels,
        )


class _SumPooling(_Step):
    """Down: each value as it is to every field of its window."""

    def __init__(self, layer: SumPool2d) -> None:
        super().__init__(layer)
        self._average = _AveragePooling(layer.average)

    def up(self, maps: Tensor) -> Tensor:
        return cast(Tensor, self._average.up(maps) * self.layer.area)

    def down(self, signal: Tensor) -> Tensor:
        return cast(Tensor, self._average.down(signal) * self.layer.area)


class _Residual(_Step):
    """Down: through the block's branch and its shortcut, added."""

    def __init__(self, layer: BasicBlock | Bottleneck) -> None:
        super().__init__(layer)
        inner: list[nn.Module] = [layer.conv1, layer.bn1, nn.ReLU(), layer.conv2, layer.bn2]
        if isinstance(layer, Bottleneck):
            inner += [nn.ReLU(), layer.conv3, layer.bn3]
        self._branch = [step for each in inner for step in _steps(each)]
        self._shortcut = _steps(layer.downsample) if layer.downsample is not None else []

    def up(self, maps: Tensor) -> Tensor:
        return (_up(self._branch, maps) + _up(self._shortcut, maps)).relu()

    def down(self, signal: Tensor) -> Tensor:
        kept = signal.relu()
        return _down(self._branch, kept) + _down(self._shortcut, kept)


def _transposed(shape: torch.Size, kernel: Tensor, signal: Tensor, **settings: Any) -> Tensor:
    """The signal through the transposed convolution, to maps of `shape`."""
    return cast(Tensor, conv2d_input(shape, kernel, signal, **settings))  # type: ignore[no-untyped-call]


_REVERSES: dict[type[nn.Module], type[_Step]] = {
    nn.ReLU: _Rectification,
    nn.Conv2d: _Convolution,
    nn.BatchNorm2d: _BatchNormalisation,
    LocalResponseNorm: _ResponseNormalisation,
    nn.MaxPool2d: _MaximumPooling,
    nn.AvgPool2d: _AveragePooling,
    SumPool2d: _SumPooling,
    BasicBlock: _Residual,
    Bottleneck: _Residual,
}


def _steps(layer: nn.Module) -> list[_Step]:
    """The steps of a layer; of a sequence, of all its layers."""
    if isinstance(layer, nn.Sequential):
        return [step for each in layer for step in _steps(each)]
    reverse = _REVERSES.get(type(layer))
    if reverse is None:
        raise TypeError(f"no reverse for {type(layer).__name__}")
    return [reverse(layer)]
