"""How the weights move: optimizer and learning rate."""

from __future__ import annotations

import math

import torch

from medcli.config import TrainConfig
from medcli.models.scan_model import ScanModel


def make_optimizer(model: ScanModel, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW over the model's parameters at the peak learning rate."""
    return torch.optim.AdamW(parameter_groups(model, config), lr=config.learning_rate)


def parameter_groups(model: ScanModel, config: TrainConfig) -> list[dict[str, object]]:
    """Weight decay on matrices and kernels, none on biases, norms and the scale."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    return [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]


def warmup_cosine(progress: float, warmup: float) -> float:
    """Factor of the learning rate at a `progress` of 0–1: linear up to `warmup`, then a cosine."""
    if progress < warmup:
        return max(progress / warmup, 0.01)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - warmup) / (1 - warmup))))
