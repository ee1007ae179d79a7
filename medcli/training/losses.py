"""What a scan costs, for each class it might be of; and what its embedding costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from medcli.config import TrainConfig
from medcli.models.scan_model import ScanModel, ScanOutput

FOCUS = 2.0  # gamma of the focal loss, as published
ROBUSTNESS = 0.7  # q of the generalised cross-entropy, as published: 0 is cross-entropy, 1 error
FORWARD, REVERSE = 0.1, 1.0  # shares of the symmetric loss, those published for ten classes
LOG_OF_ZERO = -4.0  # what the symmetric loss takes for the logarithm of an impossible label
TEMPERATURE = 0.1  # of the supervised contrastive loss
PROXY_SCALE, PROXY_MARGIN = 32.0, 0.1  # of the proxy anchor loss, as published


class Target(NamedTuple):
    """What N scans are asked for.

    labels (N,): the class of each, of mixed scans the one with the larger share; shares
    (N, K): how much each class counts in each scan: its part in the scan times its weight.
    """

    labels: Tensor
    shares: Tensor


def class_losses(logits: Tensor, config: TrainConfig) -> Tensor:
    """(N, K) logits → (N, K) loss of each scan if it were of that class.

    Cross-entropy −log p; focal −(1 − p)^γ log p (Lin et al.: Focal Loss for Dense Object
    Detection, ICCV 2017, eq. 4); generalised cross-entropy (1 − p^q) / q (Zhang, Sabuncu,
    NeurIPS 2018, eq. 6); symmetric cross-entropy −α log p − β A (1 − p) (Wang et al., ICCV
    2019, eq. 7). Label smoothing blends a class's loss with the mean of all classes'.
    """
    logs = F.log_softmax(logits, dim=1)
    if config.robust_loss == "gce":
        losses = -torch.expm1(ROBUSTNESS * logs) / ROBUSTNESS
    elif config.robust_loss == "symmetric":
        losses = -FORWARD * logs - REVERSE * LOG_OF_ZERO * -torch.expm1(logs)
    elif config.imbalance == "focal":
        losses = -((-torch.expm1(logs)) ** FOCUS) * logs
    else:
        losses = -logs
    smoothing = config.label_smoothing
    return (1 - smoothing) * losses + smoothing * losses.mean(dim=1, keepdim=True)


def block_losses(logits: Tensor, config: TrainConfig, blocks: Sequence[slice]) -> Tensor:
    """`class_losses` of each block of columns by itself: no column of another has a part in it."""
    return torch.cat([class_losses(logits[:, block], config) for block in blocks], dim=1)


def scan_and_slice_loss(
    model: ScanModel,
    output: ScanOutput,
    features: Tensor,
    target: Target,
    lengths: list[int],
    config: TrainConfig,
    offsets: Tensor | float = 0.0,
    blocks: Sequence[slice] = (slice(None),),
) -> Tensor:
    """Weighted mean loss of the scans, plus that of their single slices.

    A slice of a stack inherits the label of its scan, and all slices of a scan count
    as one. Without this part the attention has to find the telling slices before the
    backbone has learnt what to look for.

    Parameters
    ----------
    features : (T, F) of the slices, T = sum(lengths)
    offsets : (K,) added to the logits while training
    blocks : the columns of each question that the head answers; the classes of one exclude
        each other
    """
    shares = target.shares
    loss = (shares * block_losses(output.logits + offsets, config, blocks)).sum() / shares.sum()
    if not config.slice_loss or max(lengths) == 1 or model.aggregator is None:
        return loss
    repeats = torch.tensor(lengths).to(shares.device, non_blocking=True)
    logits = model.classify(model.project(model.aggregator.single(features)))  # (T, K)
    of_slices = (shares / repeats[:, None]).repeat_interleave(
        repeats, dim=0, output_size=len(features)
    )
    each = of_slices * block_losses(logits + offsets, config, blocks)
    return loss + config.slice_loss * each.sum() / len(lengths)


def contrastive_loss(embeddings: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """(N, D) unit length, (N,) labels and weights: the scans of a class together, others apart.

    A scan without another of its class in the batch asks for nothing.

    References
    ----------
    Khosla et al.: Supervised Contrastive Learning, NeurIPS 2020, eq. 2 (L_out).
    """
    similarity = embeddings @ embeddings.T / TEMPERATURE
    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    similarity = similarity.masked_fill(itself, -torch.inf)
    logs = similarity - similarity.logsumexp(dim=1, keepdim=True)
    alike = (labels[:, None] == labels[None]) & ~itself
    counts = alike.sum(dim=1)
    losses = -logs.masked_fill(~alike, 0).sum(dim=1) / counts.clamp(min=1)
    weights = weights * (counts > 0)
    return (weights * losses).sum() / weights.sum().clamp(min=torch.finfo(losses.dtype).tiny)


def proxy_loss(embeddings: Tensor, labels: Tensor, proxies: Tensor) -> Tensor:
    """(N, D) unit length, (N,) labels, (K, D) proxies, one a class: each scan near its own.

    References
    ----------
    Kim et al.: Proxy Anchor Loss for Deep Metric Learning, CVPR 2020, eq. 4.
    """
    cosines = embeddings @ F.normalize(proxies, dim=1).T  # (N, K)
    own = F.one_hot(labels, len(proxies)).bool()
    pull = torch.where(own, -PROXY_SCALE * (cosines - PROXY_MARGIN), -torch.inf)
    push = torch.where(own, -torch.inf, PROXY_SCALE * (cosines + PROXY_MARGIN))
    present = own.any(dim=0)
    attraction = _log_one_plus_sum(pull)[present].mean()
    return attraction + _log_one_plus_sum(push).mean()


def _log_one_plus_sum(exponents: Tensor) -> Tensor:
    """(N, K) → (K,) log(1 + Σ exp); the 1 keeps a column of nothing finite."""
    return F.pad(exponents, (0, 0, 1, 0)).logsumexp(dim=0)
