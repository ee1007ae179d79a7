"""The perceptron: a linear classifier that learns from its mistakes alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Perceptron:
    """(N, D) inputs → (N, K) scores, the largest of which is the answer.

    Attributes
    ----------
    weights : (K, D) float64
    bias : (K,) float64
    """

    weights: np.ndarray
    bias: np.ndarray

    def scores(self, inputs: np.ndarray) -> np.ndarray:
        """(N, D) → (N, K)."""
        scores: np.ndarray = inputs @ self.weights.T + self.bias
        return scores


def fit_perceptron(
    inputs: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    *,
    epochs: int,
    margin: float = 0.0,
    average: bool = True,
    seed: int = 0,
) -> Perceptron:
    """Show one input after the other; where the answer is wrong, move towards the right one.

    A mistake adds the input to the weights of its class and takes it from those of the class
    that outdid it, and 1 to and from their bias. It ends early when an epoch has no mistake.

    Parameters
    ----------
    inputs : (N, D), each feature best of mean 0 and standard deviation 1
    labels : (N,) class numbers, 0 … K-1
    epochs : passes over the inputs, each in an order drawn anew
    margin : an answer counts as wrong until its class leads by more than this; 0 is the
        classical rule, 1 descends the multi-class hinge loss
    average : give the mean of the weights after every input, which is steadier than the last

    References
    ----------
    Rosenblatt: The perceptron, Psychological Review 1958.
    Freund, Schapire: Large Margin Classification Using the Perceptron Algorithm, Machine
    Learning 1999 (the average).
    Crammer, Singer: On the Algorithmic Implementation of Multiclass Kernel-based Vector
    Machines, JMLR 2001 (the class that outdid, the margin).
    """
    # The bias is the weight of an input that is always 1.
    extended = np.concatenate([inputs, np.ones((len(inputs), 1))], axis=1, dtype=np.float64)
    weights = np.zeros((num_classes, extended.shape[1]))
    # Sum over all steps t = 0 … T-1 of the weights after step t, without adding them up each
    # time: a change at step t stays for the T - t steps from there on.
    delayed = np.zeros_like(weights)
    rng = np.random.default_rng(seed)
    step = 0
    for _ in range(epochs):
        mistakes = 0
        for index in rng.permutation(len(extended)):
            shown, right = extended[index], labels[index]
            scores = weights @ shown
            rivals = scores.copy()
            rivals[right] = -np.inf
            rival = rivals.argmax()
            if scores[right] - scores[rival] <= margin:
                mistakes += 1
                for row, sign in ((right, 1), (rival, -1)):
                    weights[row] += sign * shown
                    delayed[row] += sign * step * shown
            step += 1
        if not mistakes:
            break
    if average:
        weights = weights - delayed / max(1, step)
    return Perceptron(weights[:, :-1], weights[:, -1])
