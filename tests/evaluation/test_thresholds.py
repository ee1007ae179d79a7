"""Youden's threshold against a search through scikit-learn's ROC curve."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_curve

from medcli.evaluation.thresholds import (
    choose_threshold,
    sensitivity_threshold,
    youden_threshold,
)


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


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("wanted", [0.5, 0.8, 0.95, 1.0])
def test_no_higher_threshold_reaches_the_wanted_sensitivity(seed: int, wanted: float) -> None:
    rng = np.random.default_rng(seed)
    positive = rng.random(80) < 0.4
    probabilities = np.round(np.clip(rng.normal(0.3 + 0.3 * positive, 0.2), 0, 1), 2)
    false_positive, true_positive, _ = roc_curve(positive, probabilities, drop_intermediate=False)
    threshold = sensitivity_threshold(positive, probabilities, wanted)
    possible = false_positive[true_positive >= wanted].min()
    if possible == 1:
        assert threshold is None
    else:
        assert threshold is not None
        decided = probabilities >= threshold
        assert decided[positive].mean() >= wanted
        assert decided[~positive].mean() == pytest.approx(possible)


def test_nineteen_of_twenty_are_ninety_five_per_cent() -> None:
    positive = np.repeat([True, False], [20, 20])
    probabilities = np.concatenate([[0.1], np.full(19, 0.9), np.full(20, 0.5)])
    assert sensitivity_threshold(positive, probabilities, 0.95) == pytest.approx(0.7)
    assert sensitivity_threshold(positive, probabilities, 0.96) is None


def test_a_sensitivity_out_of_reach_leaves_youdens_threshold_and_says_so() -> None:
    positive = np.array([True, True, True, False, False])
    probabilities = np.array([0.1, 0.8, 0.9, 0.5, 0.4])
    choice = choose_threshold(positive, probabilities, 0.99)
    assert choice.missed
    assert choice.rule == "youden"
    assert choice.threshold == youden_threshold(positive, probabilities)
    assert (choice.sensitivity, choice.specificity) == (pytest.approx(2 / 3), 1.0)
    assert (choice.n_positive, choice.n_negative) == (3, 2)
    reached = choose_threshold(positive, probabilities, 0.6)
    assert not reached.missed
    assert reached.rule == "sensitivity"


@pytest.mark.parametrize("wanted", [0.0, 1.01, -1])
def test_what_is_no_sensitivity_is_refused(wanted: float) -> None:
    with pytest.raises(ValueError, match="no sensitivity"):
        sensitivity_threshold(np.array([True, False]), np.array([0.9, 0.1]), wanted)
