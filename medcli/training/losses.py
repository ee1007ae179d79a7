"""Losses and their weights."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from medcli.config import TrainConfig
from medcli.models.scan_model import ScanModel, ScanOutput


def class_weights(labels: Tensor, num_classes: int) -> Tensor:
    """(N,) labels → (K,) weights inverse to each class's share, with mean 1 over the scans."""
    counts = torch.bincount(labels, minlength=num_classes).float()
    return counts.sum() / (num_classes * counts.clamp(min=1))


def scan_and_slice_loss(
    model: ScanModel,
    output: ScanOutput,
    features: Tensor,
    labels: Tensor,
    lengths: list[int],
    weights: Tensor,
    config: TrainConfig,
) -> Tensor:
    """Weighted cross-entropy of the scans, plus that of their single slices.

    A slice of a stack inherits the label of its scan, and all slices of a scan count
    as one. Without this part the attention has to find the telling slices before the
    backbone has learnt what to look for.

    Parameters
    ----------
    features : (T, F) of the slices, T = sum(lengths)
    labels : (N,) of the scans
    weights : (K,) of the classes
    """
    loss = F.cross_entropy(output.logits, labels, weights, label_smoothing=config.label_smoothing)
    if not config.slice_loss or max(lengths) == 1 or model.aggregator is None:
        return loss
    repeats = torch.tensor(lengths, device=labels.device)
    logits = model.classify(model.project(model.aggregator.single(features)))  # (T, K)
    each = F.cross_entropy(logits, labels.repeat_interleave(repeats), weights, reduction="none")
    share = (1 / repeats).repeat_interleave(repeats)
    return loss + config.slice_loss * (each * share).sum() / len(lengths)
