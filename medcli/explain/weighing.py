"""How much each slice weighs."""

from __future__ import annotations

import torch
from torch import Tensor

from medcli.errors import UsageError
from medcli.explain.subject import Subject

_TELLS = "attention, max or transformer"


@torch.no_grad()
def attention(subject: Subject) -> Tensor:
    """(S, 1, 1): the share with which each slice enters the scan.

    Raises
    ------
    UsageError : a scan of one slice, or an aggregator that weighs all slices alike
    """
    if len(subject.images) == 1:
        raise UsageError(
            "attention weighs slices, and this scan has one", "Take --method gradcam or occlusion"
        )
    weights = subject.output().attention[0]
    if bool((weights == weights[0]).all()):
        raise UsageError(
            "this model weighs all slices alike",
            f"Train one with --aggregator {_TELLS}, or take --method gradcam or occlusion",
        )
    return weights[:, None, None]
