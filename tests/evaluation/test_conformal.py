"""Label sets by hand, and their coverage on scans that were drawn anew."""

from __future__ import annotations

import numpy as np
import pytest

from medcli.evaluation.calibration import softmax
from medcli.evaluation.conformal import label_set_levels, label_set_metrics, label_sets


def draw(rng: np.random.Generator, n: int, share: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Labels with `share` ones, and the probabilities of an over-confident, skewed model."""
    labels = (rng.random(n) < share).astype(int)
    margin = rng.normal(1.2 * (2 * labels - 1), 1.0 + labels)
    return labels, softmax(4 * np.column_stack([-margin, margin]))


def test_the_level_is_the_second_smallest_of_nineteen() -> None:
    own = np.linspace(0.05, 0.95, 19)  # (19 + 1) · 0.1 = 2
    probabilities = np.column_stack([own, 1 - own])
    assert label_set_levels(np.zeros(19, int), probabilities, 0.9).tolist() == [
        pytest.approx(0.1),
        0,
    ]


def test_a_class_with_too_few_scans_stands_in_every_set() -> None:
    probabilities = np.array([[0.99, 0.01]] * 8 + [[0.98, 0.02]])
    levels = label_set_levels(np.array([0] * 8 + [1]), probabilities, 0.9)
    assert levels.tolist() == [0, 0]
    assert label_sets(np.array([1.0, 0.0]), levels).all()
    nine = label_set_levels(np.zeros(9, int), probabilities, 0.9)
    assert nine.tolist() == [0.98, 0]


@pytest.mark.parametrize("n", [19, 60])
def test_each_class_is_covered_at_another_prevalence(n: int) -> None:
    rng = np.random.default_rng(n)
    held: dict[int, list[float]] = {0: [], 1: []}
    for _ in range(400):
        levels = label_set_levels(*draw(rng, 2 * n), 0.9)
        labels, probabilities = draw(rng, 200, share=0.1)
        inside = label_sets(probabilities, levels)[np.arange(200), labels]
        for k, shares in held.items():
            shares.append(inside[labels == k].mean())
    for shares in held.values():
        assert 0.888 < np.mean(shares) < 0.912 + 1 / n


def test_metrics_of_the_sets_by_hand() -> None:
    labels = np.array([0, 0, 0, 1])
    sets = np.array([[1, 0], [1, 1], [0, 0], [1, 0]], dtype=bool)
    metrics = label_set_metrics(labels, sets, np.arange(4), classes=["a", "b", "c"], target=0.9)
    assert metrics["per_class"] == {"a": pytest.approx(2 / 3), "b": 0, "c": None}
    assert metrics["coverage"] == pytest.approx(1 / 3)
    assert (metrics["one"], metrics["several"], metrics["none"]) == (0.5, 0.25, 0.25)
    low, high = metrics["coverage_ci"]
    assert low <= metrics["coverage"] <= high


def test_one_patient_gives_no_interval() -> None:
    sets = np.ones((2, 2), dtype=bool)
    one, classes = np.zeros(2, int), ["a", "b"]
    metrics = label_set_metrics(np.array([0, 1]), sets, one, classes=classes, target=0.9)
    assert (metrics["coverage"], metrics["coverage_ci"]) == (1, None)
