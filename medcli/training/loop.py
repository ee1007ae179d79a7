"""The training loop."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medcli.config import PreprocessConfig, TrainConfig
from medcli.data.arrays import ScanArrays
from medcli.data.augment import augment
from medcli.data.mixing import mix
from medcli.errors import DamagedError, MedcliError, UsageError
from medcli.models.scan_model import ScanModel
from medcli.records import Task
from medcli.training.allocation import freed_memory_kept
from medcli.training.batches import Pixels, batches, draw_slices, standardise
from medcli.training.by_task import augmentation_of, make_objective, mean_auroc
from medcli.training.optimizers import make_optimizer, set_rate, warmup_cosine
from medcli.training.prediction import predict_logits
from medcli.training.processes import ALONE, Processes
from medcli.training.state import (
    TrainState,
    below,
    optimizer_state,
    random_state,
    restore_module,
    restore_optimizer,
    restore_random,
)

NAMED = 5  # scans of a batch that an error names
AHEAD = 16  # steps that a GPU is given before their losses are asked for


@dataclass(frozen=True, slots=True)
class Epoch:
    """One line of `history.csv`; `seconds` since the start, `val_auroc` of the averaged weights."""

    epoch: int
    epochs: int
    train_loss: float
    val_loss: float
    val_auroc: float | None
    learning_rate: float
    seconds: float
    best: bool


@dataclass(frozen=True, slots=True)
class Fit:
    """What `fit` gives back: the best weights are in `model`."""

    model: ScanModel
    history: tuple[Epoch, ...]
    stopped: str  # "epochs", "patience", "minutes"


def fit(
    model: ScanModel,
    train: ScanArrays,
    val: ScanArrays,
    preprocess: PreprocessConfig,
    config: TrainConfig,
    *,
    device: torch.device,
    tasks: Sequence[Task] = (),
    processes: Processes = ALONE,
    names: Sequence[str] = (),
    resumed: TrainState | None = None,
    spent: float = 0.0,
    on_batch: Callable[[int, float, float], None] = lambda epoch, done, loss: None,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
    on_state: Callable[[TrainState], None] = lambda state: None,
) -> Fit:
    """Train `model` and keep the weights of the best validation AUROC.

    The learning rate warms up linearly and falls as a cosine; the weights that are
    validated and kept are an exponential moving average. Where AUROC ties, the
    lower validation loss wins. A training that is resumed from a state ends with the
    weights, bit by bit, that it would have ended with had it gone on, as long as the
    time spent decides nothing.

    Parameters
    ----------
    tasks : what the columns of the logits are; empty: the classes of one task
    processes : train together; `config.batch_slices` is the share of each, and all end
        with the same weights
    names : of the training scans, for errors
    resumed : where an earlier call stood; weights and counters are taken from it
    spent : seconds before this call that count towards `config.minutes` and the history,
        beside those in `resumed`
    on_batch : called with (epoch from 1, share of the epoch done, loss)
    on_state : called before the first epoch and after each, unless it was resumed there

    Raises
    ------
    MedcliError : the loss is not a number; names epoch, batch and scans, or validation
    UsageError : fewer scans in a batch than the processes need
    DamagedError : `resumed` is the state of something else
    """
    training = _Training(model, train, val, preprocess, config, device, tasks, processes, spent)
    if resumed is not None:
        training.restore(resumed)
    else:
        on_state(training.state())
    with freed_memory_kept():
        while training.stopped is None:
            training.run_epoch(names, on_batch)
            on_state(training.state())  # what is told has been handed over before
            on_epoch(training.history[-1])
    return training.result()


class _Training:
    """Everything that changes while a model trains, and what it is trained with."""

    def __init__(
        self,
        model: ScanModel,
        train: ScanArrays,
        val: ScanArrays,
        preprocess: PreprocessConfig,
        config: TrainConfig,
        device: torch.device,
        tasks: Sequence[Task],
        processes: Processes,
        spent: float,
    ) -> None:
        if config.minutes is not None:  # each process has read its data in a time of its own
            config = replace(config, minutes=processes.leaders(config.minutes))
        self._start, self._spent = time.monotonic(), spent
        self._train, self._val, self._preprocess = train, val, preprocess
        self._config, self._device, self._processes = config, device, processes
        self._tasks = tasks
        every, count = np.arange(len(val.labels)), processes.count
        self._asked = processes.share(every) if len(every) >= count else every
        self._own_val = val if len(self._asked) == len(every) else val.select(self._asked)
        self._pixels = Pixels(train.images, device)
        self._val_pixels = Pixels(self._own_val.images, device)
        self._batch_slices = config.batch_slices * processes.count
        step_slices = config.step_slices
        cut = batches(train, self._batch_slices, None, step_slices=step_slices)
        sizes = [len(batch) for batch in cut]
        if min(sizes) < 2 * processes.count and processes.count > 1:
            raise UsageError(
                f"batches of {min(sizes)} scans are too few for {processes.count} processes",
                "Start fewer processes",
            )
        self._steps_each = len(sizes)
        # One order of the scans for all processes; each changes its own scans by itself.
        self._order = torch.Generator().manual_seed(config.seed)
        self._own = self._order
        if processes.count > 1:
            self._own = torch.Generator().manual_seed(
                config.seed + 1_000_003 * (processes.rank + 1)
            )
        torch.manual_seed(config.seed + processes.rank)  # dropout
        self._model = model.to(device).to(memory_format=model.memory_format)
        self._average = copy.deepcopy(self._model)
        self._moving_average = MovingAverage(self._average, self._model)
        self._objective = make_objective(config, train, model, tasks, device)
        self._optimizer = make_optimizer(self._model, config)
        self._scaler = torch.amp.GradScaler(device.type, enabled=config.fp16)
        self._best = copy.deepcopy(self._average.state_dict())
        self._ahead = _steps_ahead(device)
        self._best_key: tuple[float, float] = (-1.0, -math.inf)
        self._since_best = self._step = 0
        self.history: list[Epoch] = []
        self.stopped: str | None = None

    # ---- one epoch ----

    def run_epoch(
        self, names: Sequence[str], on_batch: Callable[[int, float, float], None]
    ) -> None:
        """Train once over the scans, validate, and decide whether that was the last time."""
        epoch = len(self.history) + 1
        self._model.train()
        losses: list[float] = []
        drawn = batches(
            *(self._train, self._batch_slices, self._order),
            *(self._objective.chances, self._config.step_slices),
        )
        waiting: list[tuple[np.ndarray, Tensor]] = []
        for number, batch in enumerate(drawn, start=1):
            rate = self._set_rate()
            waiting.append((batch, self._learn(batch)))
            if len(waiting) < self._ahead and number < self._steps_each:
                continue
            told = torch.stack([loss for _, loss in waiting]).tolist()
            for (old, _), value in zip(waiting, told, strict=True):
                losses.append(self._processes.mean(value, len(self._processes.share(old))))
                if not math.isfinite(losses[-1]):
                    where = f"in epoch {epoch}, batch {len(losses)}"
                    raise _not_a_number(where, _name(old, names))
                on_batch(epoch, len(losses) / self._steps_each, losses[-1])
            waiting.clear()
        self._validate(epoch, float(np.mean(losses)), rate)
        self._decide(epoch)

    def _set_rate(self) -> float:
        """Set the learning rate that the schedule, or the clock, asks for now."""
        config = self._config
        progress = self._step / (config.epochs * self._steps_each)
        if config.minutes is not None and config.follow_clock:
            progress = max(progress, self._seconds() / (60 * config.minutes))
        rate = config.learning_rate * warmup_cosine(progress, config.warmup)
        set_rate(self._optimizer, rate)
        return rate

    def _learn(self, batch: np.ndarray) -> Tensor:
        """One step on the scans numbered in `batch`; its loss, which nobody has looked at yet."""
        config, model = self._config, self._model
        mine = self._processes.share(batch)
        rows, lengths = draw_slices(self._train, mine, config.step_slices, self._own)
        images = self._pixels.take(rows)
        kind = augmentation_of(config, self._train.labels[mine], self._tasks)
        images = augment(images, lengths, kind, self._own)
        images, mixing = mix(images, lengths, config.mixup, self._own)
        target = self._objective.target(mine, mixing)
        # Only the backbone runs in half precision: unit vectors and logits need the digits.
        with self._half_precision():
            features = model.encode(standardise(images, self._preprocess))
        output = model.aggregate_ragged(features, lengths)
        loss = self._objective(model, output, features.learnt, target, lengths)
        self._optimizer.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self._processes.average_gradients(model.parameters(), len(mine))
        self._scaler.unscale_(self._optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.gradient_clip)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._step += 1
        self._processes.average_statistics(model)
        self._moving_average.update(min(config.ema, (1 + self._step) / (10 + self._step)))
        return loss.detach()

    def _half_precision(self) -> torch.autocast:
        half = torch.float16 if self._config.fp16 else torch.bfloat16
        enabled = self._config.fp16 or self._config.bf16
        return torch.autocast(self._device.type, half, enabled=enabled)

    def _validate(self, epoch: int, train_loss: float, rate: float) -> None:
        """Measure the averaged weights, keep them if they are the best, write the history."""
        logits = self._val_logits()
        val_loss = self._objective.validation(logits, torch.from_numpy(self._val.labels))
        if not math.isfinite(val_loss):
            raise _not_a_number(f"on validation after epoch {epoch}")
        val_auroc = mean_auroc(self._val.labels, logits, self._tasks)
        key = (-1.0 if val_auroc is None else round(val_auroc, 4), -val_loss)
        improved = key > self._best_key
        if improved:
            self._best, self._best_key = copy.deepcopy(self._average.state_dict()), key
        self._since_best = 0 if improved else self._since_best + 1
        seconds = self._seconds()
        epochs = self._config.epochs
        self.history.append(
            Epoch(epoch, epochs, train_loss, val_loss, val_auroc, rate, seconds, improved)
        )

    def _val_logits(self) -> Tensor:
        """(N, K) logits of the validation part; several processes share the work."""
        logits = predict_logits(
            self._average,
            self._own_val,
            self._preprocess,
            self._config.batch_slices,
            self._device,
            self._config.bf16,
            self._val_pixels,
        )
        if self._own_val is self._val:
            return logits
        rows = torch.zeros(len(self._val.labels), logits.shape[1])
        rows[self._asked] = logits
        return self._processes.join_rows(rows)

    def _decide(self, epoch: int) -> None:
        """Whether to stop here, and why."""
        config, seconds = self._config, self.history[-1].seconds
        next_ends = seconds * (epoch + 1) / epoch
        if self._since_best >= config.patience:
            self.stopped = "patience"
        elif epoch >= config.epochs:
            self.stopped = "epochs"
        elif config.minutes is not None and next_ends > config.minutes * 60:
            self.stopped = "minutes"

    def _seconds(self) -> float:
        """Time since the start, parts before an interruption included."""
        return self._processes.leaders(self._spent + time.monotonic() - self._start)

    def result(self) -> Fit:
        """The best weights, in the memory layout of inference."""
        self._average.load_state_dict(self._best)
        kept = self._average.eval().to(memory_format=torch.contiguous_format)
        return Fit(kept, tuple(self.history), self.stopped or "epochs")

    # ---- going on after an interruption ----

    def state(self) -> TrainState:
        """Where the training stands, in copies; all processes call it together."""
        moved, rest = optimizer_state(self._optimizer)
        tensors = {
            **below("model", self._model.state_dict()),
            **below("average", self._average.state_dict()),
            **below("best", self._best),
            **below("optimizer", moved),
        }
        random = {"order": self._order.get_state(), "own": self._own.get_state()}
        for name, mine in (random | random_state(self._device)).items():
            for rank, theirs in enumerate(self._processes.gather(mine.clone())):
                tensors[f"random.{rank}.{name}"] = theirs
        facts = {
            "history": [asdict(line) for line in self.history],
            "step": self._step,
            "best_key": self._best_key if self.history else None,
            "since_best": self._since_best,
            "stopped": self.stopped,
            "seconds": self.history[-1].seconds if self.history else self._spent,
            "optimizer": rest,
            "scaler": self._scaler.state_dict(),
            "processes": self._processes.count,
        }
        return TrainState(tensors, facts)

    def restore(self, state: TrainState) -> None:
        """Stand where `state` was taken.

        Raises
        ------
        DamagedError : it was taken from something else
        """
        try:
            self._restore(state, state.facts)
        except (KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
            raise DamagedError(
                "the checkpoint is that of another training", "Train again"
            ) from error

    def _restore(self, state: TrainState, facts: Mapping[str, Any]) -> None:
        restore_module(self._model, state.part("model"))
        restore_module(self._average, state.part("average"))
        best = state.part("best")
        self._best = {name: best[name].to(kept.device) for name, kept in self._best.items()}
        restore_optimizer(self._optimizer, state.part("optimizer"), facts["optimizer"])
        random = state.part(f"random.{self._processes.rank}")
        self._order.set_state(random["order"])
        self._own.set_state(random["own"])
        restore_random(random, self._device)
        if facts["scaler"]:
            self._scaler.load_state_dict(facts["scaler"])
        self.history = [Epoch(**line) for line in facts["history"]]
        if facts["best_key"] is not None:
            auroc, loss = facts["best_key"]
            self._best_key = float(auroc), float(loss)
        self._step, self._since_best = int(facts["step"]), int(facts["since_best"])
        self.stopped = facts["stopped"]
        self._spent += float(facts["seconds"])


def _steps_ahead(device: torch.device) -> int:
    """How many steps are taken before their losses are looked at: a GPU works while others wait."""
    return AHEAD if device.type == "cuda" else 1


def _name(batch: np.ndarray, names: Sequence[str]) -> str:
    """Some of the scans of a batch in words; nothing where they have no names."""
    if not len(names):
        return ""
    few = ", ".join(names[index] for index in batch[:NAMED])
    return few if len(batch) <= NAMED else f"{few} and {len(batch) - NAMED} more"


def _not_a_number(where: str, scans: str = "") -> MedcliError:
    return MedcliError(
        f"the loss is not a number {where}" + (f" ({scans})" if scans else ""),
        "Look for broken scans in the data; if there are none, report it with the run's settings",
    )


class MovingAverage:
    """Weights and batch statistics that follow those of a model."""

    def __init__(self, average: ScanModel, model: ScanModel) -> None:
        current = model.state_dict()
        pairs = [(kept, current[name]) for name, kept in average.state_dict().items()]
        self._moved = [pair for pair in pairs if pair[0].is_floating_point()]
        self._copied = [pair for pair in pairs if not pair[0].is_floating_point()]

    @torch.no_grad()
    def update(self, decay: float) -> None:
        """Move the averages towards the current values; counters are copied."""
        torch._foreach_lerp_(*_columns(self._moved), 1 - decay)
        if self._copied:
            torch._foreach_copy_(*_columns(self._copied))


def _columns(pairs: list[tuple[Tensor, Tensor]]) -> tuple[list[Tensor], list[Tensor]]:
    return [kept for kept, _ in pairs], [current for _, current in pairs]
