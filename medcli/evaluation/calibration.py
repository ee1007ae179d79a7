"""How far probabilities can be taken at their word."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

ECE_BINS = 15
TEMPERATURES = (0.05, 20.0)  # the range that is searched
OFFSET_SCANS = 4.0  # as many scans say what the offset of a class is beforehand


def softmax(
    logits: np.ndarray, temperature: float = 1.0, offsets: Sequence[float] | None = None
) -> np.ndarray:
    """(…, K) logits → (…, K) float64 probabilities of logits / temperature + offsets."""
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    if offsets is not None:
        scaled = scaled + np.asarray(offsets, dtype=np.float64)
    shifted = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True))


def fit_temperature(labels: np.ndarray, logits: np.ndarray) -> float:
    """The temperature that makes softmax(logits / T) fit the labels best.

    Labels are softened: of the n scans of a class, (n + 1) / (n + K) stand for it and
    1 / (n + K) for each other class. A validation part that the model tells apart without
    an error would otherwise ask for certainty, which so many scans cannot show.

    Parameters
    ----------
    labels : (N,) class indices
    logits : (N, K)

    Returns
    -------
    T within `TEMPERATURES`; 1 where T would raise the negative log-likelihood of the
    labels as they are

    References
    ----------
    Guo et al. 2017, arXiv:1706.04599, section 4.2; the soft labels: Platt 1999,
    "Probabilistic outputs for support vector machines", section 2.2
    """
    from scipy.optimize import minimize_scalar

    targets = soft_labels(labels, logits.shape[1])

    def loss(log_temperature: float) -> float:
        return cross_entropy(targets, logits, float(np.exp(log_temperature)))

    bounds = np.log(TEMPERATURES)
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6})
    temperature = float(np.exp(found.x))
    truth = np.eye(logits.shape[1])[labels]
    better = cross_entropy(truth, logits, temperature) < cross_entropy(truth, logits)
    return temperature if better else 1.0


def fit_scaling(
    labels: np.ndarray, logits: np.ndarray, *, evened: bool = False
) -> tuple[float, tuple[float, ...]]:
    """Temperature T and offsets b for which softmax(logits / T + b) fits the labels best.

    A loss that weighs the classes leaves the logits as if all were equally frequent, and so
    does a sampler or an adjustment of the logits: that is a bias towards rare classes, which no
    temperature undoes and an offset for each class does. With two classes this is Platt's
    scale and offset. Labels are softened as for `fit_temperature`.

    What the offsets ought to be is known beforehand: nothing, or where the classes were evened
    out the logarithms of their shares. The squared distance from there counts as
    `OFFSET_SCANS` / 2 of a scan's loss, so that few scans move the offsets little, and a class
    that none of them has is not ruled out.

    Parameters
    ----------
    labels : (N,) class indices
    logits : (N, K)
    evened : the network was taught to take the classes for equally frequent

    Returns
    -------
    T within `TEMPERATURES`, and K offsets whose mean is 0

    References
    ----------
    Platt 1999, "Probabilistic outputs for support vector machines", section 2.2; Guo et al.
    2017, arXiv:1706.04599, section 4.2 (of their vector scaling the offsets alone)
    """
    from scipy.optimize import minimize

    n, n_classes = logits.shape
    values = np.asarray(logits, dtype=np.float64)
    targets = soft_labels(labels, n_classes)
    shares = (np.bincount(labels, minlength=n_classes) + 1) / (n + n_classes)
    expected = np.log(shares) if evened else np.zeros(n_classes)
    expected -= expected.mean()

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        scale, offsets = np.exp(parameters[0]), parameters[1:]
        scaled = scale * values + offsets
        logs = scaled - np.logaddexp.reduce(scaled, axis=1)[:, None]
        error = np.exp(logs) - targets
        slope = np.array([scale * (error * values).sum(), *error.sum(axis=0)])
        slope[1:] += OFFSET_SCANS * (offsets - expected)
        penalty = OFFSET_SCANS / 2 * ((offsets - expected) ** 2).sum()
        return float(-(targets * logs).sum() + penalty) / n, slope / n

    scales = (-np.log(TEMPERATURES[1]), -np.log(TEMPERATURES[0]))
    bounds = [scales, *[(-20.0, 20.0)] * n_classes]
    start = np.append(0.0, expected)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds)
    offsets = found.x[1:] - found.x[1:].mean()
    return float(np.exp(-found.x[0])), tuple(map(float, offsets))


def fit_pool(labels: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Weights of several answers to the same scans, whose weighted sum fits the labels best.

    Labels are softened as for `fit_temperature`, and each class has an offset, which is not
    returned. Beforehand every answer has the same weight: the squared distance from there counts
    as `OFFSET_SCANS` / 2 of a scan's loss, so that few scans move the weights little.

    Parameters
    ----------
    labels : (N,) class indices
    logits : (M, N, K) of M models

    Returns
    -------
    (M,) weights, none below 0

    References
    ----------
    A logarithmic opinion pool: Genest, Zidek: Combining Probability Distributions: A Critique
    and an Annotated Bibliography, Statistical Science 1986.
    """
    from scipy.optimize import minimize

    count, n, n_classes = logits.shape
    values = np.asarray(logits, dtype=np.float64)
    targets = soft_labels(labels, n_classes)
    before = np.append(np.full(count, 1 / count), np.zeros(n_classes))

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        scaled = np.tensordot(parameters[:count], values, axes=1) + parameters[count:]
        logs = scaled - np.logaddexp.reduce(scaled, axis=1)[:, None]
        error = np.exp(logs) - targets
        slope = np.append((values * error).sum(axis=(1, 2)), error.sum(axis=0))
        away = parameters - before
        penalty = OFFSET_SCANS / 2 * (away**2).sum()
        return float(-(targets * logs).sum() + penalty) / n, (slope + OFFSET_SCANS * away) / n

    bounds = [(0.0, 20.0)] * count + [(-20.0, 20.0)] * n_classes
    found = minimize(loss, before, jac=True, method="L-BFGS-B", bounds=bounds)
    return np.asarray(found.x[:count])


def soft_labels(labels: np.ndarray, n_classes: int) -> np.ndarray:
    """(N,) class indices → (N, K) targets as `fit_temperature` describes them."""
    counts = np.bincount(labels, minlength=n_classes)[labels][:, None]
    return np.asarray((1 + counts * np.eye(n_classes)[labels]) / (counts + n_classes))


def cross_entropy(targets: np.ndarray, logits: np.ndarray, temperature: float = 1.0) -> float:
    """Mean over the rows of -Σ target · log softmax(logits / temperature); both (N, K)."""
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    highest = scaled.max(axis=1, keepdims=True)
    log_sum = highest + np.log(np.exp(scaled - highest).sum(axis=1, keepdims=True))
    return float((targets * (log_sum - scaled)).sum(axis=1).mean())


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
    return _gaps(confidence, probabilities.argmax(axis=1) == labels)


def calibration_errors_by_chance(
    probabilities: np.ndarray, *, draws: int = 200, seed: int = 0
) -> np.ndarray:
    """The calibration errors of as many scans if the probabilities were true.

    Bins of few scans scatter, so the error of a model that is calibrated perfectly is not 0.
    Each draw takes a class for each scan at its probabilities.

    Parameters
    ----------
    probabilities : (N, K)

    Returns
    -------
    (`draws`,) values of `expected_calibration_error`

    References
    ----------
    Bröcker, Smith 2007, doi:10.1175/WAF993.1 (consistency resampling)
    """
    rng, confidence = np.random.default_rng(seed), probabilities.max(axis=1)
    # The most probable class is drawn as often as its probability says.
    drawn = (rng.random(len(confidence)) < confidence for _ in range(draws))
    return np.array([_gaps(confidence, correct) for correct in drawn])


def _gaps(confidence: np.ndarray, correct: np.ndarray) -> float:
    """The error of (N,) confidences in answers that are `correct` or not."""
    bins = np.clip(np.ceil(confidence * ECE_BINS).astype(np.intp) - 1, 0, ECE_BINS - 1)
    gaps = np.bincount(bins, weights=correct - confidence, minlength=ECE_BINS)
    return float(np.abs(gaps).sum() / len(confidence))


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
    return float(brier_losses(labels, probabilities).mean())


def brier_losses(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """(N,) the term of each scan in `brier_loss`, whose mean it is."""
    n_classes = probabilities.shape[1]
    squared = (probabilities - np.eye(n_classes)[labels]) ** 2
    # Of two classes either has the same.
    return np.asarray(squared[:, 1] if n_classes == 2 else squared.sum(axis=1))


def sigmoid(logits: np.ndarray, platt: Sequence[Sequence[float]] | None = None) -> np.ndarray:
    """(…, F) logits → (…, F) float64 probabilities, each by its own scale and offset.

    `platt` holds (scale, offset) for each column; None takes the logits as they are.
    """
    scaled = np.asarray(logits, dtype=np.float64)
    if platt is not None:
        scale, offset = np.asarray(platt, dtype=np.float64).T
        scaled = scale * scaled + offset
    return np.asarray(np.exp(-np.logaddexp(0, -scaled)))


def fit_platt(positive: np.ndarray, logits: np.ndarray) -> tuple[float, float]:
    """Scale and offset that make sigmoid(scale · logits + offset) fit the truth best.

    A loss that weighs rare findings more leaves probabilities too high by a constant factor
    of the odds, which no temperature undoes; the offset does. Targets are softened as Platt
    describes. The scale is not negative: the order of the scans stays.

    Parameters
    ----------
    positive : (N,) bool
    logits : (N,)

    References
    ----------
    Platt 1999, "Probabilistic outputs for support vector machines", section 2.2
    """
    from scipy.optimize import minimize

    truth = np.asarray(positive, dtype=bool)
    values = np.asarray(logits, dtype=np.float64)
    n_positive, n_negative = int(truth.sum()), int((~truth).sum())
    targets = np.where(truth, (n_positive + 1) / (n_positive + 2), 1 / (n_negative + 2))

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        scaled = np.exp(parameters[0]) * values + parameters[1]
        error = sigmoid(scaled) - targets
        slope = np.array([(error * np.exp(parameters[0]) * values).mean(), error.mean()])
        return float((np.logaddexp(0, scaled) - targets * scaled).mean()), slope

    bounds = [(-np.log(TEMPERATURES[1]), -np.log(TEMPERATURES[0])), (-20.0, 20.0)]
    found = minimize(loss, np.zeros(2), jac=True, method="L-BFGS-B", bounds=bounds)
    return float(np.exp(found.x[0])), float(found.x[1])
