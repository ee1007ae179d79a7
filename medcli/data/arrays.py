"""A data set in memory: every slice resized once, one byte a value."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class ScanArrays:
    """Slices of N scans, one scan after the other.

    Attributes
    ----------
    images : (T, C, H, W) uint8; 0–255 stands for 0–1 after windowing or scaling
    lengths : (N,) int64 slices of each scan, T in all
    labels : (N,) int64 class numbers; with several tasks columns of their joint head; where
        a scan may have several findings (N, F) uint8, 1 for those that it has
    domains : (N,) int64 numbers of the sites or the like; None: all of one
    """

    images: np.ndarray
    lengths: np.ndarray
    labels: np.ndarray
    domains: np.ndarray | None = None

    @cached_property
    def offsets(self) -> np.ndarray:
        """(N + 1,) int64; scan i has the slices offsets[i] to offsets[i + 1]."""
        return np.concatenate([[0], np.cumsum(self.lengths)])

    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation per channel of the values in 0–1."""
        count = self.images.size // self.images.shape[1]
        sums = self.images.sum(axis=(0, 2, 3), dtype=np.float64) / 255
        squares = sum(
            (part.astype(np.float64) ** 2).sum(axis=(0, 2, 3))
            for part in np.array_split(self.images, max(1, len(self.images) // 256))
        )
        mean = sums / count
        std = np.sqrt(np.maximum(squares / 255**2 / count - mean**2, 1e-6))
        return tuple(map(float, mean)), tuple(map(float, std))

    def select(self, indices: np.ndarray) -> ScanArrays:
        """The scans at `indices`, in that order."""
        offsets = self.offsets
        rows = [np.arange(offsets[i], offsets[i + 1]) for i in indices]
        images = self.images[np.concatenate(rows)] if len(rows) else self.images[:0]
        domains = None if self.domains is None else self.domains[indices]
        return ScanArrays(images, self.lengths[indices], self.labels[indices], domains)
