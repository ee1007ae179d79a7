"""How far boxes overlap. Boxes are (x0, y0, x1, y1), x1 and y1 exclusive."""

from __future__ import annotations

import numpy as np


def box_iou(ones: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(N, 4) and (M, 4) boxes → (N, M) intersection over union, 0 where both are empty."""
    low = np.maximum(ones[:, None, :2], others[None, :, :2])
    high = np.minimum(ones[:, None, 2:], others[None, :, 2:])
    common = np.clip(high - low, 0, None).prod(axis=2)
    union = box_area(ones)[:, None] + box_area(others)[None] - common
    return np.asarray(common / np.where(union > 0, union, 1))


def box_area(boxes: np.ndarray) -> np.ndarray:
    """(…, 4) boxes → (…) areas, 0 for inverted ones."""
    sides = np.clip(boxes[..., 2:] - boxes[..., :2], 0, None)
    return np.asarray(sides.prod(axis=-1))


def suppress(boxes: np.ndarray, scores: np.ndarray, overlap: float) -> np.ndarray:
    """Which of (N, 4) boxes stay where of two that overlap more only the better one does.

    Returns
    -------
    (M,) places, best score first; equal scores in their order
    """
    waiting = np.argsort(-scores, kind="stable")
    kept = []
    while len(waiting):
        best, rest = waiting[0], waiting[1:]
        kept.append(best)
        waiting = rest[box_iou(boxes[best][None], boxes[rest])[0] <= overlap]
    return np.array(kept, dtype=np.intp)
