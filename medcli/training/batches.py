"""Scans in memory → batches of tensors."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from medcli.config import PreprocessConfig
from medcli.data.arrays import ScanArrays

SHARE_HELD = 0.4  # of a GPU's free memory for pixels; the rest is for the network


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
    scans: ScanArrays,
    batch: np.ndarray,
    most: int | None = None,
    generator: torch.Generator | None = None,
) -> tuple[np.ndarray, list[int]]:
    """Of each scan numbered in `batch` at most `most` slices, in their order.

    Returns
    -------
    (T,) their rows in `scans.images`, and how many each scan has
    """
    rows = []
    for start, length in zip(scans.offsets[batch], scans.lengths[batch], strict=True):
        own = np.arange(length)
        if most is not None and length > most:
            own = np.sort(torch.randperm(int(length), generator=generator)[:most].numpy())
        rows.append(start + own)
    return np.concatenate(rows), [len(own) for own in rows]


class Pixels:
    """The slices of a part, held where training takes them from.

    On a GPU all of them, one byte a value, where they fit into `SHARE_HELD` of the memory that
    is free; else every batch is copied while the one before is worked on.

    Parameters
    ----------
    images : (T, C, H, W) uint8
    """

    def __init__(self, images: np.ndarray, device: torch.device) -> None:
        self._images, self._device = torch.from_numpy(images), device
        if device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(device)
            if images.nbytes <= SHARE_HELD * free:
                self._images = self._images.to(device)

    def take(self, rows: np.ndarray) -> Tensor:
        """(T,) rows → (T, C, H, W) slices in 0–1 on the device."""
        index = torch.from_numpy(rows).to(self._images.device, non_blocking=True)
        chosen = self._images.index_select(0, index)
        if self._device.type == "cuda" and not chosen.is_cuda:
            chosen = chosen.pin_memory()  # or the copy would be waited for
        return chosen.to(self._device, non_blocking=True).float().div_(255)


def standardise(images: Tensor, preprocess: PreprocessConfig) -> Tensor:
    """(T, C, H, W) values in 0–1 → the same with the mean and deviation of the training part."""
    mean, std = (
        torch.tensor(values).view(-1, 1, 1).to(images.device, non_blocking=True)
        for values in (preprocess.mean, preprocess.std)
    )
    return ((images - mean) / std).contiguous(memory_format=torch.channels_last)
