"""Scans in memory → batches of tensors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from medcli.config import PreprocessConfig
from medcli.data.arrays import ScanArrays


def batches(
    scans: ScanArrays,
    budget: int,
    generator: torch.Generator | None,
    chances: Tensor | None = None,
    step_slices: int | None = None,
) -> Iterator[np.ndarray]:
    """Indices of whole scans, each batch with about `budget` slices and at least two scans.

    Shuffled with `generator`; in order without one. With `chances`, one a scan, as many
    scans as there are, drawn by them with replacement. The number of batches depends on the
    slices only, not on the order, so that the schedule knows its length. Of a longer stack
    `step_slices` count, where `draw_slices` leaves no more of it.
    """
    count = len(scans.lengths)
    seen = scans.lengths if step_slices is None else scans.lengths.clip(max=step_slices)
    number = max(1, min(round(int(seen.sum()) / budget), count // 2))
    yield from np.array_split(_order(count, generator, chances), number)


def _order(count: int, generator: torch.Generator | None, chances: Tensor | None) -> np.ndarray:
    if generator is None:
        return np.arange(count)
    if chances is None:
        return torch.randperm(count, generator=generator).numpy()
    # By hand and not by torch.multinomial, which takes at most 2^24 classes.
    steps = chances.double().cumsum(0)
    drawn = torch.rand(count, generator=generator, dtype=torch.float64) * steps[-1]
    return torch.searchsorted(steps, drawn, right=True).clamp(max=count - 1).numpy()


def draw_slices(
    scans: ScanArrays, batch: np.ndarray, most: int | None, generator: torch.Generator
) -> ScanArrays:
    """The scans numbered in `batch`, of each stack at most `most` slices, in their order."""
    if most is None:
        return scans.select(batch)
    rows = []
    for scan in batch:
        start, length = int(scans.offsets[scan]), int(scans.lengths[scan])
        own = np.arange(length)
        if length > most:
            own = np.sort(torch.randperm(length, generator=generator)[:most].numpy())
        rows.append(start + own)
    return replace(
        scans,
        images=scans.images[np.concatenate(rows)],
        lengths=np.array([len(own) for own in rows], dtype=np.int64),
        labels=scans.labels[batch],
        domains=None if scans.domains is None else scans.domains[batch],
    )


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
