"""Scans in memory → batches of tensors."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from medcli.config import PreprocessConfig
from medcli.data.arrays import ScanArrays


def batches(
    scans: ScanArrays, budget: int, generator: torch.Generator | None
) -> Iterator[np.ndarray]:
    """Indices of whole scans, each batch with about `budget` slices and at least two scans.

    Shuffled with `generator`; in order without one. The number of batches depends on the
    slices only, not on the order, so that the schedule knows its length.
    """
    count = len(scans.lengths)
    order = np.arange(count) if generator is None else torch.randperm(count, generator=generator)
    number = max(1, min(round(int(scans.lengths.sum()) / budget), count // 2))
    yield from np.array_split(np.asarray(order), number)


def to_tensors(scans: ScanArrays, batch: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor]:
    """(T, C, H, W) slices in 0–1 and (N,) labels of the scans in `batch`."""
    chosen = scans.select(batch)
    images = torch.from_numpy(chosen.images).to(device).float().div_(255)
    return images, torch.from_numpy(chosen.labels).to(device)


def standardise(images: Tensor, preprocess: PreprocessConfig) -> Tensor:
    """(T, C, H, W) values in 0–1 → the same with the mean and deviation of the training part."""
    mean = torch.tensor(preprocess.mean, device=images.device).view(-1, 1, 1)
    std = torch.tensor(preprocess.std, device=images.device).view(-1, 1, 1)
    return ((images - mean) / std).contiguous(memory_format=torch.channels_last)
