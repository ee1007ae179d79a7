"""What the user asks of a training, and what is told on the way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medcli.config import ModelConfig
from medcli.data.splits import Split, SplitRow, split_by_patient
from medcli.training.gather import (
    ReadScan,
    read_cases,
)
from medcli.training.settings import (
    ObjectiveRequest,
)


@dataclass(frozen=True, slots=True)
class TrainEvents:
    """What happens on the way, for a display; every hook may be left out."""

    note: Callable[[str], None] = lambda message: None
    warn: Callable[[str], None] = lambda message: None
    reading: Callable[[int, int], None] = lambda done, total: None
    ready: Callable[[Sequence[SplitRow], str, int], None] = lambda rows, plan, epochs: None
    batch: Callable[[int, float, float], None] = lambda epoch, done, loss: None
    epoch: Callable[[Any], None] = lambda epoch: None  # an `Epoch`, or that of a detector
    stage: Callable[[str], None] = lambda name: None


@dataclass(frozen=True, slots=True)
class TrainRequest:
    """What the user asked for; None leaves the choice to data and device.

    `inputs` and `task` are what `medcli.training.tasks.gather_tasks` knows, several tasks
    included. `weights` is what `medcli.models.weights.find_start` knows; None: from scratch.
    `sensitivity` is wanted of the threshold on the validation part; None: Youden's.
    `cache` keeps what was read for the next time. `tensorboard` is a folder of logs.
    `measures` asks for a regression on measures of the finding beside the network; None: where
    the name of a task says that there is one.
    """

    inputs: tuple[str, ...] = ()
    task: str | None = None
    output: Path | None = None
    overwrite: bool = False
    classes: tuple[str, ...] | None = None
    positive: str | None = None
    size: int | None = None
    epochs: int | None = None
    minutes: float | None = None
    seed: int = 0
    device: str = "auto"
    weights: str | None = None
    allow_overlap: bool = False
    sensitivity: float | None = None
    model: ModelConfig = field(default_factory=ModelConfig)
    objective: ObjectiveRequest = field(default_factory=ObjectiveRequest)
    cache: bool = True
    tensorboard: Path | None = None
    measures: bool | None = None


@dataclass(frozen=True, slots=True)
class Steps:
    """How scans are read and put into parts; cross-validation brings its own."""

    read: Callable[..., list[ReadScan]] = read_cases
    split: Callable[..., Split] = split_by_patient
