"""Several processes that train one model together, each with its share of every batch.

`torchrun` starts them and names them in the environment. Gradients are averaged by hand
after the backward pass: the model is called in two steps over ragged scans (`encode`, then
`aggregate_ragged`), which the hooks of `DistributedDataParallel` do not see.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

PATIENCE = timedelta(days=1)  # the first process may read a large archive while others wait


@dataclass(frozen=True, slots=True)
class Processes:
    """Who trains: this process is number `rank` of `count`, `local` is its number here.

    With one process every method is free of communication.
    """

    rank: int = 0
    count: int = 1
    local: int = 0

    @property
    def leads(self) -> bool:
        """Whether this is the process that speaks and writes."""
        return self.rank == 0

    def device(self, device: torch.device) -> torch.device:
        """The GPU of this process, where each has one."""
        if self.count > 1 and str(device) == "cuda":
            return torch.device("cuda", self.local)
        return device

    def share(self, batch: np.ndarray) -> np.ndarray:
        """The part of the scans of a batch that falls to this process."""
        return np.array_split(batch, self.count)[self.rank]

    def mean(self, value: float, weight: float) -> float:
        """The mean over the processes; the same number in each."""
        if self.count == 1:
            return value
        sums = torch.tensor([value * weight, weight], dtype=torch.float64)
        dist.all_reduce(sums)
        return float(sums[0] / sums[1])

    @torch.no_grad()
    def average_gradients(self, parameters: Iterable[nn.Parameter], weight: float) -> None:
        """Replace every gradient by the mean over the processes, `weight` being one's own.

        A parameter that has a gradient in no process keeps none.
        """
        if self.count == 1:
            return
        every = list(parameters)
        has = [parameter.grad is not None for parameter in every]
        flat = torch.cat(
            [
                torch.tensor([weight, *(weight * known for known in has)]).to(every[0]),
                *(
                    torch.zeros_like(p).flatten() if p.grad is None else weight * p.grad.flatten()
                    for p in every
                ),
            ]
        )
        dist.all_reduce(flat)
        flat /= flat[0].clone()
        known, rest = flat[1 : 1 + len(every)].tolist(), flat[1 + len(every) :]
        for parameter, anywhere, mean in zip(
            every, known, torch.split(rest, [p.numel() for p in every]), strict=True
        ):
            if anywhere:
                gradient = torch.empty_like(parameter)
                parameter.grad = gradient.copy_(mean.view(parameter.shape))

    @torch.no_grad()
    def average_statistics(self, module: nn.Module) -> None:
        """Replace running means and variances by their mean over the processes."""
        statistics = ("running_mean", "running_var")
        buffers = [b for name, b in module.named_buffers() if name.endswith(statistics)]
        if self.count == 1 or not buffers:
            return
        flat = torch.cat([buffer.flatten() for buffer in buffers])
        dist.all_reduce(flat)
        flat /= self.count
        for buffer, mean in zip(
            buffers, torch.split(flat, [b.numel() for b in buffers]), strict=True
        ):
            buffer.copy_(mean.view(buffer.shape))

    def join_rows(self, rows: Tensor) -> Tensor:
        """Sum of one CPU tensor over the processes: each fills its own rows, others are 0."""
        if self.count > 1:
            dist.all_reduce(rows)
        return rows

    def leaders(self, value: float) -> float:
        """The first process's number in every process: clocks differ."""
        if self.count == 1:
            return value
        told = torch.tensor([value], dtype=torch.float64)
        dist.broadcast(told, 0)
        return float(told)

    def leaders_path(self, path: Path) -> Path:
        """The first process's path in every process."""
        if self.count == 1:
            return path
        mine = os.fsencode(path)
        told = torch.zeros(int(self.leaders(len(mine))), dtype=torch.uint8)
        if self.leads:
            told.copy_(torch.frombuffer(bytearray(mine), dtype=torch.uint8))
        dist.broadcast(told, 0)
        return Path(os.fsdecode(told.numpy().tobytes()))

    def gather(self, mine: Tensor) -> list[Tensor]:
        """The CPU tensors of all processes, of one shape, in their order."""
        if self.count == 1:
            return [mine]
        every = [torch.empty_like(mine) for _ in range(self.count)]
        dist.all_gather(every, mine)
        return every

    def wait(self) -> None:
        """Go on when all processes are here."""
        if self.count > 1:
            dist.barrier()

    @contextmanager
    def first_leader(self) -> Iterator[None]:
        """Let the others begin the block when the first process has ended it."""
        if not self.leads:
            self.wait()
        yield
        if self.leads:
            self.wait()


ALONE = Processes()


@contextmanager
def joined() -> Iterator[Processes]:
    """The processes that `torchrun` started, in touch with each other during the block."""
    if dist.is_available() and dist.is_initialized():
        yield _here()
        return
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield ALONE
        return
    # Numbers that are agreed upon lie in main memory, gradients where the model is.
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, timeout=PATIENCE)
    try:
        yield _here()
    finally:
        dist.destroy_process_group()


def _here() -> Processes:
    return Processes(dist.get_rank(), dist.get_world_size(), int(os.environ.get("LOCAL_RANK", "0")))
