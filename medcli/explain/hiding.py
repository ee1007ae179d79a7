"""Heat maps by hiding parts of a scan.

References
----------
Zeiler, Fergus: Visualizing and Understanding Convolutional Networks, ECCV 2014, section 4.2.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from medcli.explain.subject import Subject

PATCHES = 8
"""A patch has an eighth of the input's side."""
_TOGETHER = 32  # patches that go through the network at a time


@torch.no_grad()
def occlusion(subject: Subject) -> Tensor:
    """(S, H, W): how far the class's logit falls when a patch around the place is hidden.

    A grey square of the training part's mean is moved over one slice after the other, by half
    its side; a place has the mean over the patches that covered it, zero where hiding
    raised the logit.
    """
    height, width = subject.images.shape[-2:]
    patches = _patches(height, width)
    whole = float(subject.logit(subject.output()))
    falls = torch.zeros(len(subject.images), height, width)
    covered = torch.zeros(height, width)
    for rows, columns in patches:
        covered[rows, columns] += 1
    for number in range(len(subject.images)):
        for (rows, columns), logit in zip(patches, _hidden(subject, number, patches), strict=True):
            falls[number, rows, columns] += whole - logit
    return (falls / covered).relu()


def _patches(height: int, width: int) -> list[tuple[slice, slice]]:
    """Rows and columns of each patch; the last ones end at the border."""
    return [
        (slice(top, top + side), slice(left, left + side))
        for side in [max(1, -(-min(height, width) // PATCHES))]
        for top in _starts(height, side)
        for left in _starts(width, side)
    ]


def _starts(length: int, side: int) -> list[int]:
    step = max(1, side // 2)
    return sorted({*range(0, length - side, step), length - side})


def _hidden(subject: Subject, number: int, patches: list[tuple[slice, slice]]) -> list[float]:
    """The logit with each patch of one slice hidden; the other slices are encoded once."""
    model, logits = subject.model, []
    features = model.encode(subject.images)
    for start in range(0, len(patches), _TOGETHER):
        part = patches[start : start + _TOGETHER]
        slices = subject.images[number].repeat(len(part), 1, 1, 1)
        for image, (rows, columns) in zip(slices, part, strict=True):
            image[:, rows, columns] = 0  # standardised: the mean of the training part
        hidden = features.each(partial(_stacks, count=len(part)))
        for stacks, own in zip(hidden, model.encode(slices), strict=True):
            if stacks is not None and own is not None:
                stacks[:, number] = own
        mask = torch.ones(len(part), len(subject.images), dtype=torch.bool)
        output = model.aggregate(hidden, mask)
        logits += output.logits[:, subject.column].tolist()
    return logits


def _stacks(features: Tensor, count: int) -> Tensor:
    """(S, …) → (count, S, …), each a copy of its own."""
    return features.repeat(count, *[1] * features.ndim)
