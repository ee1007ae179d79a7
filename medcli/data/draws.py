"""Random numbers for batches of slices: one for each scan, the same for all of its slices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Draws:
    """Where the random numbers of a batch come from.

    Attributes
    ----------
    repeats : (N,) slices of each scan, T in all
    generator : of every number, so that a seed repeats a run
    device : where what is spread over the slices lies
    """

    repeats: Tensor
    generator: torch.Generator
    device: torch.device

    def uniform(self, low: float, high: float, *, log: bool = False) -> Tensor:
        """(N,) numbers between `low` and `high`; with `log` evenly over the logarithm."""
        if log:
            low, high = math.log(low), math.log(high)
        drawn = torch.rand(len(self.repeats), generator=self.generator) * (high - low) + low
        return drawn.exp() if log else drawn

    def factor(self, most: float) -> Tensor:
        """(T, 1, 1, 1) factors between 1 / `most` and `most`."""
        return self.spread(self.uniform(1 / most, most, log=True))

    def within(self, low: float, high: float) -> Tensor:
        """(T, 1, 1, 1) numbers between `low` and `high`."""
        return self.spread(self.uniform(low, high))

    def chosen(self, share: float) -> Tensor:
        """(T, 1, 1, 1) of 1 for the scans that are chosen with probability `share`, else 0."""
        return self.spread((self.uniform(0, 1) < share).float())

    def spread(self, values: Tensor) -> Tensor:
        """(N,) values of scans → (T, 1, 1, 1) of their slices."""
        spread = values.repeat_interleave(self.repeats).view(-1, 1, 1, 1)
        return spread.to(self.device, non_blocking=True)

    def means(self, images: Tensor) -> Tensor:
        """(T, C, H, W) slices → (T, 1, 1, 1), on each slice the mean of its scan."""
        if len(images) == len(self.repeats):  # one slice each
            return images.mean(dim=(1, 2, 3), keepdim=True)
        scans = torch.stack([scan.mean() for scan in torch.split(images, self.repeats.tolist())])
        numbers = torch.arange(len(scans)).repeat_interleave(self.repeats)
        return scans[numbers.to(self.device, non_blocking=True)].view(-1, 1, 1, 1)

    def noise(self, shape: Sequence[int]) -> Tensor:
        """Numbers of a normal distribution, drawn where they are needed: there are many.

        A GPU has a generator of its own, which one number of `generator` sets.
        """
        if self.device.type == "cpu":
            return torch.randn(shape, generator=self.generator)
        own = torch.Generator(self.device)
        own.manual_seed(int(torch.randint(2**62, (1,), generator=self.generator)))
        return torch.randn(shape, generator=own, device=self.device)
