"""The training loop."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from medcli.config import PreprocessConfig, TrainConfig
from medcli.data.arrays import ScanArrays
from medcli.data.augment import augment
from medcli.data.mixing import mix
from medcli.errors import MedcliError
from medcli.models.scan_model import ScanModel
from medcli.records import Task
from medcli.training.batches import batches, standardise, to_tensors
from medcli.training.by_task import augmentation_of, make_objective, mean_auroc
from medcli.training.optimizers import make_optimizer, set_rate, warmup_cosine
from medcli.training.prediction import predict_logits


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
    on_batch: Callable[[int, float, float], None] = lambda epoch, done, loss: None,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> Fit:
    """Train `model` and keep the weights of the best validation AUROC.

    The learning rate warms up linearly and falls as a cosine; the weights that are
    validated and kept are an exponential moving average. Where AUROC ties, the
    lower validation loss wins.

    Parameters
    ----------
    tasks : what the columns of the logits are; empty: the classes of one task
    on_batch : called with (epoch from 1, share of the epoch done, loss)

    Raises
    ------
    MedcliError : the loss is not a number; names epoch and batch, or validation
    """
    start = time.monotonic()
    generator = torch.Generator().manual_seed(config.seed)
    torch.manual_seed(config.seed)  # dropout
    model = model.to(device).to(memory_format=model.memory_format)
    average = copy.deepcopy(model)
    objective = make_objective(config, train, model, tasks, device)
    optimizer = make_optimizer(model, config)
    steps_each = len(list(batches(train, config.batch_slices, None)))
    total = config.epochs * steps_each

    history: list[Epoch] = []
    best = copy.deepcopy(average.state_dict())
    best_key, since_best, stopped, step = (-1.0, -math.inf), 0, "epochs", 0
    for epoch in range(1, config.epochs + 1):
        model.train()
        losses = []
        drawn = batches(train, config.batch_slices, generator, objective.chances)
        for index, batch in enumerate(drawn):
            progress = step / total
            if config.minutes is not None and config.follow_clock:
                progress = max(progress, (time.monotonic() - start) / (60 * config.minutes))
            rate = config.learning_rate * warmup_cosine(progress, config.warmup)
            set_rate(optimizer, rate)
            images, _ = to_tensors(train, batch, device)
            lengths = train.lengths[batch].tolist()
            kind = augmentation_of(config, train.labels[batch], tasks)
            images = augment(images, lengths, kind, generator)
            images, mixing = mix(images, lengths, config.mixup, generator)
            target = objective.target(batch, mixing)
            # Only the backbone runs in bfloat16: unit vectors and logits need the digits.
            with torch.autocast(device.type, torch.bfloat16, enabled=config.bf16):
                features = model.encode(standardise(images, preprocess))
            output = model.aggregate_ragged(features, lengths)
            loss = objective(model, output, features.learnt, target, lengths)
            if not torch.isfinite(loss):
                raise _not_a_number(f"in epoch {epoch}, batch {index + 1}")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.gradient_clip)
            optimizer.step()
            step += 1
            _update_average(average, model, min(config.ema, (1 + step) / (10 + step)))
            losses.append(loss.item())
            on_batch(epoch, (index + 1) / steps_each, losses[-1])

        logits = predict_logits(average, val, preprocess, config.batch_slices, device, config.bf16)
        val_loss = objective.validation(logits, torch.from_numpy(val.labels))
        if not math.isfinite(val_loss):
            raise _not_a_number(f"on validation after epoch {epoch}")
        val_auroc = mean_auroc(val.labels, logits, tasks)
        key = (-1.0 if val_auroc is None else round(val_auroc, 4), -val_loss)
        improved = key > best_key
        if improved:
            best, best_key, since_best = copy.deepcopy(average.state_dict()), key, 0
        else:
            since_best += 1
        seconds = time.monotonic() - start
        mean_loss = float(np.mean(losses))
        history.append(
            Epoch(epoch, config.epochs, mean_loss, val_loss, val_auroc, rate, seconds, improved)
        )
        on_epoch(history[-1])
        if since_best >= config.patience:
            stopped = "patience"
            break
        if config.minutes is not None and seconds * (epoch + 1) / epoch > config.minutes * 60:
            stopped = "minutes" if epoch < config.epochs else "epochs"
            break
    average.load_state_dict(best)
    kept = average.eval().to(memory_format=torch.contiguous_format)
    return Fit(kept, tuple(history), stopped)


def _not_a_number(where: str) -> MedcliError:
    return MedcliError(
        f"the loss is not a number {where}",
        "Look for broken scans in the data; if there are none, report it with the run's settings",
    )


@torch.no_grad()
def _update_average(average: ScanModel, model: ScanModel, decay: float) -> None:
    """Move the averaged weights and batch statistics towards the current ones."""
    current_state = model.state_dict()
    for name, kept in average.state_dict().items():
        current = current_state[name]
        if kept.is_floating_point():
            kept.lerp_(current, 1 - decay)
        else:
            kept.copy_(current)
