"""Slices with boxes, ready to be trained on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class BoxArrays:
    """The slices of a part.

    Attributes
    ----------
    images : (T, C, H, W) uint8, 0–255 for 0–1
    boxes : of each slice (n, 4) float32, pixels of the input
    labels : of each slice (n,) classes, from 1; 0 stands for none
    """

    images: np.ndarray
    boxes: tuple[np.ndarray, ...]
    labels: tuple[np.ndarray, ...]

    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of each channel, in 0–1."""
        channels = np.moveaxis(self.images, 1, 0).reshape(self.images.shape[1], -1)
        mean = channels.mean(axis=1, dtype=np.float64) / 255
        spread = np.array([each.std(dtype=np.float64) for each in channels]) / 255
        return tuple(mean.tolist()), tuple(np.maximum(spread, 1e-3).tolist())

    def sides(self) -> np.ndarray:
        """(B,) square roots of the areas of all boxes, pixels of the input."""
        every = np.concatenate([*self.boxes, np.empty((0, 4), np.float32)])
        sides = every[:, 2:] - every[:, :2]
        return np.asarray(np.sqrt(sides[:, 0] * sides[:, 1]))
