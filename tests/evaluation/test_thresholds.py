"""Youden's threshold against a search through scikit-learn's ROC curve."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_curve

from medcli.evaluation.thresholds import youden_threshold


def youden(positive: np.ndarray, probabilities: np.ndarray, threshold: float) -> float:
    decided = probabilities >= threshold
    return float(decided[positive].mean() - decided[~positive].mean())


@pytest.mark.parametrize("seed", range(5))
def test_no_threshold_is_better(seed: int) -> None:
    rng = np.random.default_rng(seed)
    positive = rng.random(80) < 0.3
    probabilities = np.round(np.clip(rng.normal(0.4 + 0.2 * positive, 0.2), 0, 1), 2)
    false_positive, true_positive, _ = roc_curve(positive, probabilities)
    reached = youden(positive, probabilities, youden_threshold(positive, probabilities))
    assert reached == pytest.approx((true_positive - false_positive).max())


def test_separated_classes_are_cut_half_way() -> None:
    positive = np.array([False, False, True, True])
    assert youden_threshold(positive, np.array([0.1, 0.2, 0.6, 0.9])) == pytest.approx(0.4)


def test_equal_thresholds_leave_the_higher_sensitivity() -> None:
    positive = np.array([True, False, True, False])
    assert youden_threshold(positive, np.array([0.8, 0.6, 0.4, 0.2])) == pytest.approx(0.3)


@pytest.mark.parametrize("probabilities", [[0.9, 0.1], [0.3, 0.3]])
def test_without_a_better_than_chance_cut_it_is_one_half(probabilities: list[float]) -> None:
    assert youden_threshold(np.array([False, True]), np.array(probabilities)) == 0.5


def test_one_class_is_refused() -> None:
    with pytest.raises(ValueError, match="positive and negative"):
        youden_threshold(np.array([True, True]), np.array([0.4, 0.6]))
