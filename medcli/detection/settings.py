"""Settings of a detector that fit the data and the device, where the user left them open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from medcli.config import DetectionConfig, PreprocessConfig, TrainConfig
from medcli.data.boxes import TrueBox
from medcli.data.presets import DETECTION
from medcli.detection.arrays import BoxArrays
from medcli.training.defaults import CPU_MINUTES, DataFacts, choose_augmentation

SIDES = 96, 256  # of the input, pixels
WANTED = 14.0  # side of the median lesion in the input, pixels
SMALL = 24.0  # a median lesion below it asks for a finer map
STRIDES = 8, 4  # of the map for others and for small lesions
STEPS = 3000  # batches after which a training ends, where no clock does
EPOCHS = (10, 200)
BATCH = 16
SHARES = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Quantiles of the sides of the training boxes that anchors have as sizes."""


def choose_input(facts: DataFacts, boxes: Sequence[TrueBox], size: int | None) -> PreprocessConfig:
    """Input side by how large the lesions are, channels by the pictures."""
    sides = [np.sqrt((b.corners[2] - b.corners[0]) * (b.corners[3] - b.corners[1])) for b in boxes]
    wanted = WANTED * facts.side / float(np.median(sides))
    fitting = 32 * int(np.ceil(min(wanted, facts.side) / 32))
    return PreprocessConfig(
        size=size or int(np.clip(fitting, *SIDES)), channels=3 if facts.colour else 1
    )


def choose_detection(train: BoxArrays) -> DetectionConfig:
    """Anchors as large as the training part's boxes, a map as fine as these ask for."""
    sides = train.sides()
    sizes = sorted({round(float(each), 1) for each in np.quantile(sides, SHARES)})
    stride = STRIDES[1] if float(np.median(sides)) < SMALL else STRIDES[0]
    return DetectionConfig(stride=stride, anchor_sizes=tuple(sizes))


def choose_training(
    facts: DataFacts,
    task: str,
    slices: int,
    config: TrainConfig,
    *,
    epochs: int | None,
    minutes: float | None,
    spent: float,
    on_cpu: bool,
) -> TrainConfig:
    """Epochs by a number of batches; on a CPU the clock ends the training before.

    Parameters
    ----------
    config : what the user settled
    slices : of the training part
    spent : minutes that reading took; they count towards `minutes`
    """
    batch = min(BATCH, max(2, slices // 8))
    fitting = int(np.clip(STEPS * batch / max(1, slices), *EPOCHS))
    limit = CPU_MINUTES if minutes is None and on_cpu else minutes
    return replace(
        config,
        epochs=epochs or fitting,
        minutes=None if limit is None else max(0.1, limit - spent),
        follow_clock=True,
        batch_slices=batch,
        augmentation=choose_augmentation(facts, task.removesuffix(DETECTION)),
    )
