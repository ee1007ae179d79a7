"""Logits of the validation part → how the model's answers are read."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from medcli.config import Calibration
from medcli.evaluation.calibration import fit_temperature, softmax
from medcli.evaluation.thresholds import youden_threshold
from medcli.records import Task


def calibrate(task: Task, labels: np.ndarray, logits: np.ndarray) -> tuple[Task, Calibration]:
    """The temperature, and the task with its threshold on the calibrated probabilities.

    Parameters
    ----------
    labels : (N,) class indices of the validation part
    logits : (N, K)
    """
    calibration = Calibration(temperature=fit_temperature(labels, logits))
    if task.positive is None:
        return task, calibration
    column = task.classes.index(task.positive)
    probabilities = softmax(logits, calibration.temperature)
    threshold = youden_threshold(labels == column, probabilities[:, column])
    return replace(task, threshold=threshold), calibration
