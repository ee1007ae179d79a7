"""How the weights move: optimizer and learning rate."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Protocol

import torch

from medcli.config import TrainConfig

MOMENTUM = 0.9


class OnBackbone(Protocol):
    """A model of which one part may move more slowly than the rest."""

    @property
    def backbone(self) -> torch.nn.Module:
        """That part."""

    def parameters(self, recurse: bool = True) -> Iterator[torch.nn.Parameter]:
        """Of the whole model."""


def make_optimizer(model: OnBackbone, config: TrainConfig) -> torch.optim.Optimizer:
    """The optimizer over the model's parameters, at the peak learning rate.

    References
    ----------
    Loshchilov, Hutter: Decoupled Weight Decay Regularization, ICLR 2019 (AdamW). Kingma, Ba:
    Adam, ICLR 2015. Sutskever et al.: On the importance of initialization and momentum in
    deep learning, ICML 2013 (SGD with Nesterov's momentum).
    """
    groups, rate = parameter_groups(model, config), config.learning_rate
    # One kernel for all parameters, where a step is as long as launching its kernels takes.
    fused = True if next(model.parameters()).is_cuda else None
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=rate, momentum=MOMENTUM, nesterov=True, fused=fused)
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=rate, fused=fused)


def parameter_groups(model: OnBackbone, config: TrainConfig) -> list[dict[str, Any]]:
    """Weight decay on matrices and kernels, none on biases, norms and the scale.

    `rate_share` of a group is its part of the learning rate: smaller for the backbone where
    that starts from weights that are to be kept nearly as they are.
    """
    backbone = {id(parameter) for parameter in model.backbone.parameters()}
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
    for parameter in model.parameters():
        share = config.backbone_rate if id(parameter) in backbone else 1.0
        decay = config.weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((share, decay), []).append(parameter)
    return [
        {"params": parameters, "weight_decay": decay, "rate_share": share}
        for (share, decay), parameters in sorted(
            groups.items(), key=lambda group: group[0], reverse=True
        )
    ]


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group its share of the learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["rate_share"]


def warmup_cosine(progress: float, warmup: float) -> float:
    """Factor of the learning rate at a `progress` of 0–1: linear up to `warmup`, then a cosine."""
    if progress < warmup:
        return max(progress / warmup, 0.01)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - warmup) / (1 - warmup))))
