"""What every backbone is, and how its first layer fits the pictures.

The stems of the published networks are made for 224 px: most divide the side by four
before the first block, all of them by 32 in the end. Inputs up to `SMALL_INPUT` px get a
first layer with half the stride, or go without the pooling after it, so that the whole
network divides by 16 and a nodule of ten pixels is still five wide in its first block.
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

SMALL_INPUT = 80


class Backbone(nn.Module):
    """(N, C, H, W) → (N, F, h, w), with F in `num_features`."""

    def __init__(self, layers: nn.Module, num_features: int) -> None:
        super().__init__()
        self.layers = layers
        self.num_features = num_features

    def forward(self, images: Tensor) -> Tensor:
        """The last feature map."""
        return cast(Tensor, self.layers(images))


def first_convolution(
    published: nn.Conv2d, channels: int, *, side: int | None = None, stride: int | None = None
) -> nn.Conv2d:
    """A first convolution as `published`, for `channels`, with another kernel side or stride."""
    side, stride = side or published.kernel_size[0], stride or published.stride[0]
    patches = published.padding[0] == 0  # kernels that tile the picture need no border
    convolution = nn.Conv2d(
        channels,
        published.out_channels,
        side,
        stride,
        padding=0 if patches else side // 2,
        bias=published.bias is not None,
    )
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)
    return convolution
