"""The training of a detector: one pass over the slices after another, the best kept."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from medcli.config import DetectionConfig, PreprocessConfig, TrainConfig
from medcli.detection.arrays import BoxArrays
from medcli.detection.augment import augment
from medcli.detection.network import DetectionModel
from medcli.detection.objective import detection_loss
from medcli.errors import MedcliError
from medcli.evaluation.detection import ImageBoxes, detection_metrics
from medcli.inference.regions import SliceBoxes, answer, choose_proposals
from medcli.training.optimizers import make_optimizer, set_rate, warmup_cosine

LOOKS = 12  # so often the validation part is looked at, at most


@dataclass(frozen=True, slots=True)
class DetectionEpoch:
    """One pass; `val_ap50` is None where the validation part was not looked at."""

    epoch: int
    epochs: int
    train_loss: float
    val_ap50: float | None
    best: bool
    seconds: float


@dataclass(frozen=True, slots=True)
class DetectionFit:
    """The weights of the best validation AP50; `stopped` by "epochs" or "minutes"."""

    model: DetectionModel
    history: tuple[DetectionEpoch, ...]
    stopped: str


def fit(
    model: DetectionModel,
    train: BoxArrays,
    val: BoxArrays,
    preprocess: PreprocessConfig,
    detection: DetectionConfig,
    config: TrainConfig,
    *,
    device: torch.device,
    num_classes: int,
    on_batch: Callable[[int, float, float], None] = lambda epoch, done, loss: None,
    on_epoch: Callable[[DetectionEpoch], None] = lambda epoch: None,
) -> DetectionFit:
    """Train `model` by the clock: the rate falls with epochs or with the minutes spent.

    What is validated and kept is an exponential moving average of the weights.

    Raises
    ------
    MedcliError : the loss is not a number
    """
    began = time.monotonic()
    model.to(device).to(memory_format=torch.channels_last)
    average = AveragedModel(model, avg_fn=partial(_averaged, config.ema))
    optimizer = make_optimizer(model, config)
    generator = torch.Generator().manual_seed(config.seed)
    history: list[DetectionEpoch] = []
    best, best_ap = copy.deepcopy(model), -1.0
    stopped, last_look = "epochs", 0.0
    for epoch in range(1, config.epochs + 1):
        losses = []
        order = torch.randperm(len(train.images), generator=generator)
        every = list(torch.split(order, config.batch_slices))
        batches = [batch for batch in every if len(batch) > 1] or every  # norms need two
        model.train()
        for number, batch in enumerate(batches):
            done = number / len(batches)
            progress = _progress(epoch - 1 + done, config, time.monotonic() - began)
            if progress >= 1:
                stopped = "minutes"
                break
            set_rate(optimizer, config.learning_rate * warmup_cosine(progress, config.warmup))
            loss = _step(model, optimizer, train, batch, preprocess, detection, config, generator)
            average.update_parameters(model)
            losses.append(loss)
            on_batch(epoch, done, loss)
        progress = _progress(epoch, config, time.monotonic() - began)
        ends = stopped == "minutes" or epoch == config.epochs or progress >= 1
        look = ends or progress - last_look >= 1 / LOOKS
        ap50 = None
        if look:
            last_look = progress
            looked_at = _with_statistics(average, model)
            ap50 = _ap50(looked_at, val, preprocess, detection, device, num_classes)
            if ap50 >= best_ap:
                best, best_ap = looked_at, ap50
        line = DetectionEpoch(
            epoch,
            config.epochs,
            float(np.mean(losses)) if losses else 0.0,
            ap50,
            look and ap50 == best_ap,
            time.monotonic() - began,
        )
        history.append(line)
        on_epoch(line)
        if ends:
            stopped = "epochs" if epoch == config.epochs and stopped != "minutes" else "minutes"
            break
    return DetectionFit(best.eval(), tuple(history), stopped)


def _averaged(decay: float, average: Tensor, current: Tensor, steps: Tensor | int) -> Tensor:
    """The average moved towards the current weights, faster at the start of a training."""
    count = float(steps)
    return average.lerp(current, 1 - min(decay, (1 + count) / (10 + count)))


def _progress(epochs: float, config: TrainConfig, seconds: float) -> float:
    """Which share of the training is over, by epochs or by the clock."""
    by_clock = seconds / 60 / config.minutes if config.minutes else 0.0
    return max(epochs / config.epochs, by_clock)


def _step(
    model: DetectionModel,
    optimizer: torch.optim.Optimizer,
    train: BoxArrays,
    batch: Tensor,
    preprocess: PreprocessConfig,
    detection: DetectionConfig,
    config: TrainConfig,
    generator: torch.Generator,
) -> float:
    """One batch; its loss."""
    device = next(model.parameters()).device
    places = batch.tolist()
    unit = torch.from_numpy(train.images[places]).float() / 255
    boxes = [torch.from_numpy(train.boxes[place]) for place in places]
    labels = [torch.from_numpy(train.labels[place]) for place in places]
    unit, boxes, labels = augment(unit, boxes, labels, config.augmentation, generator)
    images = standardised(unit, preprocess).to(device, memory_format=torch.channels_last)
    loss = detection_loss(
        model, images, [b.to(device) for b in boxes], [k.to(device) for k in labels], detection
    )
    if not torch.isfinite(loss):
        raise MedcliError(
            "the loss is not a number",
            "Look for broken pictures in the data, or give a smaller --learning-rate",
        )
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
    optimizer.step()
    return loss.item()


def standardised(unit: Tensor, preprocess: PreprocessConfig) -> Tensor:
    """(N, C, H, W) in 0–1 → by mean and spread of the training part."""
    mean = torch.tensor(preprocess.mean).view(1, -1, 1, 1)
    std = torch.tensor(preprocess.std).view(1, -1, 1, 1)
    return (unit - mean) / std


def _with_statistics(average: AveragedModel, model: DetectionModel) -> DetectionModel:
    """The averaged weights, with the batch statistics of the model as it stands."""
    looked_at = cast(DetectionModel, copy.deepcopy(average.module))
    for buffer, current in zip(looked_at.buffers(), model.buffers(), strict=True):
        buffer.copy_(current)
    return looked_at.eval()


def _ap50(
    model: DetectionModel,
    val: BoxArrays,
    preprocess: PreprocessConfig,
    detection: DetectionConfig,
    device: torch.device,
    num_classes: int,
) -> float:
    """AP50 of the validation part; 0 where it holds no box."""
    found = predict(model, val, preprocess, detection, device)
    rows = [
        ImageBoxes(truths, labels - 1, each.boxes, each.scores, each.classes)
        for truths, labels, each in zip(val.boxes, val.labels, found, strict=True)
    ]
    alone = np.zeros(len(rows), dtype=np.intp)  # no intervals
    return float(detection_metrics(rows, alone, num_classes)["ap50"] or 0.0)


@torch.inference_mode()
def predict(
    model: DetectionModel,
    slices: BoxArrays,
    preprocess: PreprocessConfig,
    detection: DetectionConfig,
    device: torch.device,
    batch: int = 16,
) -> list[SliceBoxes]:
    """The boxes of each slice, in pixels of the input."""
    model.eval()
    found: list[SliceBoxes] = []
    for start in range(0, len(slices.images), batch):
        unit = torch.from_numpy(slices.images[start : start + batch]).float() / 255
        images = standardised(unit, preprocess).to(device, memory_format=torch.channels_last)
        proposed = model.propose(images)
        regions = choose_proposals(
            proposed.objectness.cpu().numpy(), proposed.boxes.cpu().numpy(), detection
        )
        judged = model.judge(proposed.features, torch.from_numpy(regions).to(device))
        found += answer(
            regions,
            judged.logits.cpu().numpy(),
            judged.boxes.cpu().numpy(),
            len(images),
            detection,
        )
    return found
