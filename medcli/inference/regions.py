"""What a region proposal network says → the boxes of an answer; NumPy only.

Boxes are (x0, y0, x1, y1) in pixels of the model's input, x1 and y1 exclusive.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from medcli.config import DetectionConfig
from medcli.evaluation.calibration import softmax
from medcli.evaluation.overlap import suppress

BEFORE = 300  # proposals of a slice that overlap is looked at among
SMALLEST = 1.0  # pixels; a narrower proposal is none


class SliceBoxes(NamedTuple):
    """The boxes of one slice, best first: (B, 4) float32, (B,) scores, (B,) classes from 0."""

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray


def choose_proposals(
    objectness: np.ndarray, boxes: np.ndarray, config: DetectionConfig
) -> np.ndarray:
    """The regions of each slice that the second stage judges.

    Parameters
    ----------
    objectness : (N, A) logits
    boxes : (N, A, 4)

    Returns
    -------
    (R, 5) float32, the number of the slice first
    """
    regions = []
    for number, (scores, own) in enumerate(zip(objectness, boxes, strict=True)):
        count = min(BEFORE, len(scores))
        best = np.argpartition(-scores, count - 1)[:count]
        best = best[((own[best, 2:] - own[best, :2]) >= SMALLEST).all(axis=1)]
        kept = best[suppress(own[best], scores[best], config.proposal_overlap)]
        chosen = own[kept[: config.proposals]]
        regions.append(np.insert(chosen, 0, number, axis=1))
    return np.concatenate(regions).astype(np.float32)


def answer(
    regions: np.ndarray, logits: np.ndarray, boxes: np.ndarray, count: int, config: DetectionConfig
) -> list[SliceBoxes]:
    """What the second stage says of all regions → the boxes of each of `count` slices.

    Parameters
    ----------
    regions : (R, 5), as from `choose_proposals`
    logits : (R, 1 + K), the first for none of the classes
    boxes : (R, 4)
    """
    probabilities = softmax(logits, 1.0)[:, 1:]
    slices = regions[:, 0].astype(int)
    return [
        _of_slice(boxes[slices == number], probabilities[slices == number], config)
        for number in range(count)
    ]


def _of_slice(boxes: np.ndarray, probabilities: np.ndarray, config: DetectionConfig) -> SliceBoxes:
    """(R, 4) boxes, (R, K) probabilities → those that are likely enough, each place once."""
    classes = probabilities.argmax(axis=1)
    scores = probabilities.max(axis=1)
    wide = ((boxes[:, 2:] - boxes[:, :2]) >= SMALLEST).all(axis=1)
    likely = np.flatnonzero((scores >= config.score) & wide)
    kept = likely[suppress(boxes[likely], scores[likely], config.overlap)][: config.most]
    return SliceBoxes(boxes[kept].astype(np.float32), scores[kept], classes[kept])
