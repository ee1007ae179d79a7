"""Networks that see a stack of slices as one volume.

References
----------
Tran et al.: A Closer Look at Spatiotemporal Convolutions for Action Recognition, CVPR 2018
(the network R3D; time is the way through the slices here).
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn
from torchvision.models.video.resnet import BasicBlock, BasicStem, Conv3DSimple, VideoResNet


class VolumeBackbone(nn.Module):
    """(N, C, S, H, W), (N, S) mask of real slices → (N, F, s, h, w) and its (N, s) mask.

    Slices that only pad the batch are zero before every convolution, like what lies outside
    of a volume: a scan has the same features alone and beside a longer one. While training,
    the batch statistics alone count them.
    """

    def __init__(self, stem: nn.Module, stages: list[nn.Sequential], num_features: int) -> None:
        super().__init__()
        self.stem = stem
        self.stages = nn.ModuleList(stages)
        self.num_features = num_features

    def forward(self, volumes: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The last feature map, zero on padding, and which of its slices are real."""
        features = self.stem(volumes * _broadcast(mask)) * _broadcast(mask)
        for stage in self.stages:
            for block in cast(nn.Sequential, stage):
                features, mask = _residual(cast(BasicBlock, block), features, mask)
        return features, mask


def _residual(block: BasicBlock, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Torchvision's residual block, with padding slices kept at zero."""
    first = cast(nn.Sequential, block.conv1)[0]
    mask = mask[:, :: cast(nn.Conv3d, first).stride[0]]
    inner = block.conv1(features) * _broadcast(mask)
    passed = features if block.downsample is None else block.downsample(features)
    joined = block.relu(block.conv2(inner) + passed) * _broadcast(mask)
    return cast(Tensor, joined), mask


def _broadcast(mask: Tensor) -> Tensor:
    """(N, S) → (N, 1, S, 1, 1)."""
    return mask[:, None, :, None, None]


def _r3d(width: int, channels: int) -> VolumeBackbone:
    """A 3-D ResNet-18 whose stages are `width`, 2, 4 and 8 × `width` wide."""
    makers = [Conv3DSimple] * 4
    net = VideoResNet(BasicBlock, makers, layers=[2, 2, 2, 2], stem=BasicStem, num_classes=1)
    stem = nn.Sequential(
        nn.Conv3d(channels, width, (3, 7, 7), (1, 2, 2), (1, 3, 3), bias=False),
        nn.BatchNorm3d(width),
        nn.ReLU(inplace=True),
    )
    net.inplanes = width
    stages = [
        net._make_layer(BasicBlock, Conv3DSimple, width * 2**stage, 2, stride=1 + (stage > 0))
        for stage in range(4)
    ]
    backbone = VolumeBackbone(stem, stages, width * 8)
    for module in backbone.modules():
        if isinstance(module, nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return backbone


def r3d_18(channels: int, size: int) -> VolumeBackbone:
    """R3D-18, a 3-D ResNet-18, 33.1 M parameters."""
    del size  # its first layer halves the side once, which suits small pictures too
    return _r3d(64, channels)


def r3d_18_half(channels: int, size: int) -> VolumeBackbone:
    """R3D-18 at half the width: a quarter of the arithmetic, 8.3 M parameters."""
    del size
    return _r3d(32, channels)
