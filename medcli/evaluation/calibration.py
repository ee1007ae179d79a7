"""How far probabilities can be taken at their word."""

from __future__ import annotations

import numpy as np

ECE_BINS = 15


def expected_calibration_error(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean distance between confidence and accuracy over equal-width bins of confidence.

    Parameters
    ----------
    labels : (N,) class indices
    probabilities : (N, K); the confidence is the largest of a row

    Returns
    -------
    0–1, lower is better

    References
    ----------
    Guo et al. 2017, arXiv:1706.04599, equation 3; a bin holds its upper edge
    """
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    bins = np.clip(np.ceil(confidence * ECE_BINS).astype(np.intp) - 1, 0, ECE_BINS - 1)
    gaps = np.bincount(bins, weights=correct - confidence, minlength=ECE_BINS)
    return float(np.abs(gaps).sum() / len(labels))


def brier_loss(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Squared error of the probabilities: of one class for two, summed over classes for more.

    Parameters
    ----------
    labels : (N,) class indices
    probabilities : (N, K), rows summing to 1

    Returns
    -------
    0–1 for two classes, 0–2 for more; lower is better

    References
    ----------
    Brier 1950, doi:10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2
    """
    n_classes = probabilities.shape[1]
    squared = (probabilities - np.eye(n_classes)[labels]) ** 2
    if n_classes == 2:
        return float(squared[:, 1].mean())  # the same for either class
    return float(squared.sum(axis=1).mean())
