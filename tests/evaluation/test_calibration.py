"""Calibration errors against arithmetic by hand and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, log_loss

from medcli.evaluation.calibration import (
    OFFSET_SCANS,
    TEMPERATURES,
    brier_loss,
    calibration_errors_by_chance,
    cross_entropy,
    expected_calibration_error,
    fit_platt,
    fit_pool,
    fit_scaling,
    fit_temperature,
    soft_labels,
    softmax,
)


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


def test_softmax_holds_for_large_logits() -> None:
    assert softmax(np.array([1e4, 1e4], np.float32)).tolist() == [0.5, 0.5]
    by_hand = np.exp([1, 2, 3]) / np.exp([1, 2, 3]).sum()
    np.testing.assert_allclose(softmax(np.array([1, 2, 3], np.float32)), by_hand)
    np.testing.assert_allclose(softmax(np.array([[2.0, 4, 6]]), 2), [by_hand])


def test_the_cross_entropy_is_the_log_loss_of_scikit_learn() -> None:
    labels, logits = over_confident(100, 3)
    probabilities = softmax(logits, 1.7)
    expected = log_loss(labels, probabilities)
    assert cross_entropy(np.eye(3)[labels], logits, 1.7) == pytest.approx(expected)


# ---- temperature ----


def over_confident(n: int, n_classes: int, factor: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn from softmax(z), and the logits factor · z."""
    rng = np.random.default_rng(n + n_classes)
    honest = rng.normal(0, 1.5, size=(n, n_classes))
    chances = softmax(honest)
    labels = (chances.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1)
    return labels, factor * honest


@pytest.mark.parametrize(("n", "n_classes", "factor"), [(30, 2, 3.0), (400, 3, 5.0), (400, 2, 0.3)])
def test_no_temperature_of_a_grid_is_better(n: int, n_classes: int, factor: float) -> None:
    labels, logits = over_confident(n, n_classes, factor)
    counts = np.bincount(labels)

    def loss(temperature: float) -> float:
        exponentials = np.exp(logits / temperature)
        logs = np.log(exponentials / exponentials.sum(axis=1, keepdims=True))
        total = 0.0
        for row, label in enumerate(labels):
            for k in range(n_classes):
                share = counts[label] + 1 if k == label else 1
                total -= share / (counts[label] + n_classes) * logs[row, k]
        return total / n

    grid = np.geomspace(0.2, 10, 400)
    best = grid[np.argmin([loss(temperature) for temperature in grid])]
    assert fit_temperature(labels, logits) == pytest.approx(best, rel=0.01)


def test_the_temperature_of_many_scans_is_the_factor_of_the_confidence() -> None:
    labels, logits = over_confident(20_000, 2)
    temperature = fit_temperature(labels, logits)
    assert temperature == pytest.approx(3, abs=0.15)
    before = expected_calibration_error(labels, softmax(logits))
    after = expected_calibration_error(labels, softmax(logits, temperature))
    assert before > 0.1
    assert after < 0.015


@given(st.integers(0, 10_000), st.integers(2, 30), st.integers(2, 4), st.floats(0.01, 30))
def test_the_likelihood_is_never_worse_than_at_one(
    seed: int, n: int, n_classes: int, spread: float
) -> None:
    rng = np.random.default_rng(seed)
    labels, logits = rng.integers(n_classes, size=n), rng.normal(0, spread, (n, n_classes))
    temperature = fit_temperature(labels, logits)
    assert TEMPERATURES[0] <= temperature <= TEMPERATURES[1]
    truth = np.eye(n_classes)[labels]
    assert cross_entropy(truth, logits, temperature) <= cross_entropy(truth, logits)


def test_a_part_without_an_error_does_not_make_the_model_certain() -> None:
    labels = np.array([0, 1] * 50)
    logits = np.where(labels[:, None] == [0, 1], 0.2, -0.2)
    probabilities = softmax(logits, fit_temperature(labels, logits))
    assert probabilities.max() == pytest.approx(51 / 52, abs=1e-4)  # 50 of 50 right, a class


def test_soft_labels_sum_to_one_and_follow_the_size_of_the_class() -> None:
    targets = soft_labels(np.array([0, 0, 0, 1]), 2)
    np.testing.assert_allclose(targets, [[4 / 5, 1 / 5]] * 3 + [[1 / 3, 2 / 3]])


def test_what_chance_gives_in_one_bin_is_the_mean_of_a_half_normal() -> None:
    probabilities = np.tile([0.8, 0.2], (100, 1))
    errors = calibration_errors_by_chance(probabilities, draws=4000)
    assert errors.mean() == pytest.approx(np.sqrt(2 / np.pi * 0.8 * 0.2 / 100), rel=0.05)


def test_what_chance_gives_is_the_error_of_labels_drawn_from_the_probabilities() -> None:
    rng = np.random.default_rng(4)
    probabilities = rng.dirichlet(np.ones(3), size=300)
    drawn = [
        expected_calibration_error((p.cumsum(axis=1) < rng.random((300, 1))).sum(axis=1), p)
        for p in [probabilities] * 500
    ]
    errors = calibration_errors_by_chance(probabilities, draws=500)
    assert errors.mean() == pytest.approx(np.mean(drawn), rel=0.05)
    assert np.percentile(errors, 95) == pytest.approx(np.percentile(drawn, 95), rel=0.1)


# ---- temperature and offsets ----


def uneven(n: int, shares: list[float], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels at these shares, and twice the logits that take the classes for equally frequent."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(len(shares), size=n, p=shares)
    # Gaussians of deviation 1 around unit vectors: the log-likelihoods are linear.
    points = rng.normal(size=(n, len(shares))) + 1.5 * np.eye(len(shares))[labels]
    return labels, 2 * 1.5 * points


@pytest.mark.parametrize("shares", [[0.9, 0.1], [0.6, 0.3, 0.1]])
def test_the_offsets_are_the_logarithms_of_the_shares(shares: list[float]) -> None:
    labels, logits = uneven(20_000, shares)
    temperature, offsets = fit_scaling(labels, logits)
    expected = np.log(shares) - np.log(shares).mean()
    assert temperature == pytest.approx(2, abs=0.15)
    np.testing.assert_allclose(offsets, expected, atol=0.1)
    before = softmax(logits, fit_temperature(labels, logits))
    after = softmax(logits, temperature, offsets)
    assert expected_calibration_error(labels, after) < 0.015
    # One temperature finds the rare class too often.
    assert after[:, -1].mean() == pytest.approx(shares[-1], abs=0.005)
    assert before[:, -1].mean() > shares[-1] + 0.02
    assert brier_loss(labels, after) < brier_loss(labels, before)


def test_of_two_classes_it_is_platts_scale_and_offset() -> None:
    labels, logits = uneven(3000, [0.8, 0.2], seed=3)
    temperature, offsets = fit_scaling(labels, logits)
    scale, offset = fit_platt(labels == 1, logits[:, 1] - logits[:, 0])
    assert 1 / temperature == pytest.approx(scale, rel=0.01)
    assert offsets[1] - offsets[0] == pytest.approx(offset, abs=0.02)


def test_scaling_ends_where_the_loss_is_flat() -> None:
    labels, logits = uneven(150, [0.5, 0.3, 0.2], seed=1)
    temperature, offsets = fit_scaling(labels, logits)

    def loss(temperature: float, offsets: np.ndarray) -> float:
        logs = np.log(softmax(logits, temperature, offsets))
        own = -(soft_labels(labels, 3) * logs).sum()
        return float(own + OFFSET_SCANS / 2 * (offsets**2).sum())

    best = loss(temperature, np.array(offsets))
    for step in (*np.eye(3), -np.eye(3)[0]):
        assert loss(temperature, np.array(offsets) + 0.05 * step) > best
    assert (
        min(
            loss(temperature * 1.05, np.array(offsets)), loss(temperature / 1.05, np.array(offsets))
        )
        > best
    )


def test_few_scans_of_evened_classes_leave_the_offsets_at_the_logarithms_of_the_shares() -> None:
    labels = np.array([0] * 38 + [1] * 2)
    logits = np.random.default_rng(0).normal(size=(40, 2))
    expected = np.log(39 / 42) - np.log(3 / 42)
    distances = [
        abs(offsets[0] - offsets[1] - expected)
        for _, offsets in (fit_scaling(labels, logits, evened=each) for each in (True, False))
    ]
    assert distances[0] < 0.5 < distances[1]


def test_few_scans_and_an_absent_class_move_little() -> None:
    labels, logits = uneven(6, [0.5, 0.5, 0.0])
    temperature, offsets = fit_scaling(labels, logits)
    assert np.abs(offsets).max() < 2
    assert TEMPERATURES[0] <= temperature <= TEMPERATURES[1]
    assert (softmax(logits, temperature, offsets) > 0.001).all()


@given(st.integers(0, 10_000), st.integers(2, 30), st.integers(2, 4), st.floats(0.01, 100))
def test_any_validation_part_gives_finite_offsets(
    seed: int, n: int, n_classes: int, spread: float
) -> None:
    rng = np.random.default_rng(seed)
    labels, logits = rng.integers(n_classes, size=n), rng.normal(0, spread, (n, n_classes))
    temperature, offsets = fit_scaling(labels, logits)
    assert TEMPERATURES[0] <= temperature <= TEMPERATURES[1] * (1 + 1e-9)
    assert np.isfinite(offsets).all()
    assert sum(offsets) == pytest.approx(0, abs=1e-9)


def test_a_pool_listens_to_what_knows_and_not_to_what_guesses() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 400)
    knows = np.stack([np.zeros(400), 2.0 * (2 * labels - 1) + rng.normal(0, 2, 400)], axis=1)
    guesses = np.stack([np.zeros(400), rng.normal(0, 2, 400)], axis=1)
    weights = fit_pool(labels, np.stack([guesses, knows]))
    assert weights.shape == (2,)
    assert weights[0] < 0.1
    assert weights[1] == pytest.approx(1.0, abs=0.25)  # these are the true log odds


def test_a_pool_of_the_same_answer_twice_shares_it_evenly() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, 300)
    logits = np.eye(3)[labels] + rng.normal(0, 1, (300, 3))
    one, other = fit_pool(labels, np.stack([logits, logits]))
    assert one == pytest.approx(other, abs=1e-3)


def test_few_scans_move_a_pool_little() -> None:
    """Four scans, of which one answer is right each time and the other wrong each time."""
    labels = np.array([0, 1, 0, 1])
    right = np.eye(2)[labels] * 3
    weights = fit_pool(labels, np.stack([right, right[:, ::-1]]))
    assert 0 <= weights[1] < 0.5 < weights[0] < 1.5
