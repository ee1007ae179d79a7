"""What the validation part settles, against the parts it is made of."""

from __future__ import annotations

import numpy as np
import pytest

from medcli.evaluation.calibration import fit_temperature, softmax
from medcli.evaluation.thresholds import youden_threshold
from medcli.records import Task
from medcli.training.calibrating import calibrate


def validation(n_classes: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(n_classes)
    labels = rng.integers(n_classes, size=200)
    return labels, rng.normal(0, 3, (200, n_classes)) + 3 * np.eye(n_classes)[labels]


def test_the_threshold_lies_on_the_calibrated_probabilities() -> None:
    labels, logits = validation(2)
    task, calibration = calibrate(Task("t", ("sick", "well"), "sick"), labels, logits)
    assert calibration.temperature == fit_temperature(labels, logits) != 1
    scores = softmax(logits, calibration.temperature)[:, 0]
    assert task.threshold == youden_threshold(labels == 0, scores)
    assert task.threshold != pytest.approx(youden_threshold(labels == 0, softmax(logits)[:, 0]))


def test_more_than_two_classes_have_no_threshold() -> None:
    labels, logits = validation(3)
    task, calibration = calibrate(Task("t", ("a", "b", "c")), labels, logits)
    assert task.threshold is None
    assert calibration.temperature == fit_temperature(labels, logits)
