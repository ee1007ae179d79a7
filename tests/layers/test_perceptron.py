"""Rosenblatt's rule against arithmetic by hand."""

from __future__ import annotations

import numpy as np
import pytest

from medcli.layers.perceptron import fit_perceptron


def order_of(count: int, seed: int = 0) -> list[int]:
    """The order in which the first epoch shows its inputs."""
    return np.random.default_rng(seed).permutation(count).tolist()


@pytest.mark.parametrize(("average", "shares"), [(False, (1, 1, 0)), (True, (1, 2 / 3, 0))])
def test_each_mistake_moves_both_classes_by_the_input(
    average: bool, shares: tuple[float, float, float]
) -> None:
    shown = np.array([[1.0, 2.0], [2.0, -1.0], [3.0, -2.0]])
    # First: both scores 0, a mistake: right += x, wrong -= x. Second: of the other class,
    # and scored 1·2 - 2·1 + 1 = 1 for the first one's: a mistake. Third: of the class of
    # the second, weights now (1, -3), bias 0 towards it: scored right by 3 + 6.
    inputs, labels = np.empty((3, 2)), np.empty(3, int)
    inputs[order_of(3)], labels[order_of(3)] = shown, [0, 1, 1]
    fitted = fit_perceptron(inputs, labels, 2, epochs=1, average=average)
    # Averaged over the three steps, the first change counts three times, the second twice.
    first, second, _ = shares
    by_hand = first * np.array([1, 2, 1]) - second * np.array([2, -1, 1])
    np.testing.assert_allclose(fitted.weights, [by_hand[:2], -by_hand[:2]])
    np.testing.assert_allclose(fitted.bias, [by_hand[2], -by_hand[2]])


def test_of_several_classes_the_one_that_outdid_gives_way() -> None:
    inputs, labels = np.empty((2, 1)), np.empty(2, int)
    inputs[order_of(2)], labels[order_of(2)] = [[1.0], [1.0]], [2, 1]
    fitted = fit_perceptron(inputs, labels, 4, epochs=1, average=False)
    # First: all tie, the rival is class 0. Second: class 2 leads with 2, and gives way.
    assert fitted.weights[:, 0].tolist() == [-1, 1, 0, 0]
    assert fitted.bias.tolist() == [-1, 1, 0, 0]


def test_the_margin_asks_for_a_lead_and_the_classical_rule_for_none() -> None:
    inputs, labels = np.full((1, 1), 0.5), np.array([1])
    classical = fit_perceptron(inputs, labels, 2, epochs=5, average=False)
    assert classical.weights[1, 0] == 0.5  # one mistake, then a lead of 2·(0.25 + 1)
    hinge = fit_perceptron(inputs, labels, 2, epochs=5, margin=4.0, average=False)
    assert hinge.weights[1, 0] == 1.0  # after one the lead is 2.5, after two 5


def test_the_average_is_the_mean_of_the_weights_after_every_input() -> None:
    rng = np.random.default_rng(1)
    inputs, labels = rng.normal(size=(30, 4)), rng.integers(0, 3, 30)
    order = order_of(30)
    weights, states = np.zeros((3, 5)), []
    for index in order:
        x = np.append(inputs[index], 1)
        scores = weights @ x
        rival = max((k for k in range(3) if k != labels[index]), key=lambda k: scores[k])
        if scores[labels[index]] <= scores[rival]:
            weights[labels[index]] += x
            weights[rival] -= x
        states.append(weights.copy())
    fitted = fit_perceptron(inputs, labels, 3, epochs=1)
    expected = np.mean(states, axis=0)
    np.testing.assert_allclose(fitted.weights, expected[:, :4])
    np.testing.assert_allclose(fitted.bias, expected[:, 4])


def test_classes_that_a_line_parts_are_learnt_without_a_mistake() -> None:
    """Novikoff's theorem, 1962: so many mistakes at most, whatever the order."""
    rng = np.random.default_rng(2)
    inputs = rng.uniform(-1, 1, (200, 2))
    inputs = inputs[np.abs(inputs.sum(axis=1)) > 0.2]
    labels = (inputs.sum(axis=1) > 0).astype(int)
    fitted = fit_perceptron(inputs, labels, 2, epochs=1000, average=False)
    assert (fitted.scores(inputs).argmax(axis=1) == labels).all()


def test_a_seed_repeats_the_weights_and_another_does_not() -> None:
    rng = np.random.default_rng(3)
    inputs, labels = rng.normal(size=(40, 3)), rng.integers(0, 2, 40)
    first, again, other = (
        fit_perceptron(inputs, labels, 2, epochs=2, seed=seed).weights for seed in (1, 1, 2)
    )
    assert (first == again).all()
    assert (first != other).any()
