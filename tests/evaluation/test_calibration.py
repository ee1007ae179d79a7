"""Calibration errors against arithmetic by hand and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss

from medcli.evaluation.calibration import brier_loss, expected_calibration_error


def test_ece_by_hand() -> None:
    # Two at confidence .9 (one right), two at .7 (both right), in different bins.
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.3, 0.7], [0.3, 0.7]])
    labels = np.array([0, 1, 1, 1])
    expected = 2 / 4 * abs(0.5 - 0.9) + 2 / 4 * abs(1.0 - 0.7)
    assert expected_calibration_error(labels, probabilities) == pytest.approx(expected)


def test_ece_bin_by_bin() -> None:
    rng = np.random.default_rng(5)
    probabilities = rng.dirichlet(np.ones(4), size=500)
    labels = rng.integers(4, size=500)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    expected = 0.0
    for low in range(15):
        inside = (confidence > low / 15) & (confidence <= (low + 1) / 15)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert expected_calibration_error(labels, probabilities) == pytest.approx(expected)


def test_certain_and_right_has_no_error() -> None:
    labels = np.array([0, 2, 1])
    assert expected_calibration_error(labels, np.eye(3)[labels]) == 0
    assert brier_loss(labels, np.eye(3)[labels]) == 0


def test_brier_of_two_classes_is_that_of_the_positive_one() -> None:
    rng = np.random.default_rng(2)
    positive, labels = rng.random(50), rng.integers(2, size=50)
    probabilities = np.column_stack([1 - positive, positive])
    assert brier_loss(labels, probabilities) == pytest.approx(brier_score_loss(labels, positive))


def test_brier_of_three_classes_sums_over_them() -> None:
    probabilities = np.array([[0.2, 0.3, 0.5], [0.6, 0.4, 0.0]])
    expected = ((0.04 + 0.09 + 0.25) + (0.36 + 0.36 + 0.0)) / 2
    assert brier_loss(np.array([2, 1]), probabilities) == pytest.approx(expected)
