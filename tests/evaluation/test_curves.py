"""Curves against scikit-learn, SciPy and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest, norm
from sklearn.calibration import calibration_curve
from sklearn.metrics import auc, average_precision_score, roc_auc_score, roc_curve

from medcli.evaluation.calibration import expected_calibration_error
from medcli.evaluation.curves import GRID, precision_recall, reliability, roc, wilson_bounds


def draw(rng: np.random.Generator, n: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Positives score one standard deviation above negatives."""
    positive = rng.random(n) < 0.4
    return positive, rng.normal(loc=positive * 1.0)


def test_the_area_below_the_roc_curve_is_the_auroc() -> None:
    positive, scores = draw(np.random.default_rng(0))
    curve = roc(positive, np.round(scores, 1), np.arange(200))
    assert curve is not None
    area = auc(curve.false_positive, curve.true_positive)
    assert area == pytest.approx(roc_auc_score(positive, np.round(scores, 1)))


def test_the_band_holds_the_curve_and_meets_its_ends() -> None:
    positive, scores = draw(np.random.default_rng(0))
    curve = roc(positive, scores, np.arange(200))
    assert curve is not None
    assert curve.band is not None
    low, high = curve.band
    false_positive, true_positive, _ = roc_curve(positive, scores, drop_intermediate=False)
    own = np.interp(GRID, false_positive, true_positive)
    assert ((low <= own + 0.02) & (own <= high + 0.02)).all()
    assert (low[-1], high[-1]) == (1, 1)
    assert (np.diff(low) >= -1e-12).all()


def test_the_band_is_as_wide_as_the_curves_of_other_draws() -> None:
    rng = np.random.default_rng(1)
    bands = [roc(*draw(rng), np.arange(200)) for _ in range(40)]
    truth = norm.sf(norm.isf(GRID[1:-1]) - 1)
    held = [(each.band[0, 1:-1] <= truth) & (truth <= each.band[1, 1:-1]) for each in bands]  # type: ignore[union-attr, index]
    assert 0.90 <= np.mean(held) <= 0.99


def test_patients_widen_the_band() -> None:
    rng = np.random.default_rng(2)
    positive = np.repeat(rng.random(50) < 0.4, 4)
    scores = positive + np.repeat(rng.normal(size=50), 4)
    bands = [roc(positive, scores, groups) for groups in (np.arange(200), np.arange(200) // 4)]
    narrow, wide = (float(np.diff(each.band, axis=0).mean()) for each in bands)  # type: ignore[union-attr]
    assert wide > 1.3 * narrow


@pytest.mark.parametrize("positive", [np.zeros(4, bool), np.ones(4, bool)])
def test_one_class_has_no_roc(positive: np.ndarray) -> None:
    assert roc(positive, np.arange(4.0), np.arange(4)) is None


def test_one_patient_has_no_band() -> None:
    curve = roc(np.array([True, False]), np.array([0.9, 0.1]), np.zeros(2, dtype=int))
    assert curve is not None
    assert curve.band is None


def test_the_steps_below_precision_over_recall_are_the_average_precision() -> None:
    positive, scores = draw(np.random.default_rng(3))
    curve = precision_recall(positive, scores)
    assert curve is not None
    steps = (np.diff(curve.recall) * curve.precision[1:]).sum()
    assert steps == pytest.approx(average_precision_score(positive, scores))
    assert curve.prevalence == positive.mean()
    assert precision_recall(np.zeros(3, bool), np.arange(3.0)) is None


def test_reliability_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(4)
    probabilities = rng.random(500)
    events = rng.random(500) < probabilities**2
    curve = reliability(events, probabilities)
    observed, predicted = calibration_curve(events, probabilities, n_bins=15)
    np.testing.assert_allclose(curve.observed, observed)
    np.testing.assert_allclose(curve.predicted, predicted)
    assert curve.counts.sum() == 500


def test_the_gaps_of_the_reliability_are_the_ece() -> None:
    rng = np.random.default_rng(5)
    probabilities = rng.dirichlet([1, 1, 1], size=300)
    labels = rng.integers(3, size=300)
    confidence = probabilities.max(axis=1)
    curve = reliability(probabilities.argmax(axis=1) == labels, confidence)
    gaps = (np.abs(curve.observed - curve.predicted) * curve.counts).sum() / 300
    assert gaps == pytest.approx(expected_calibration_error(labels, probabilities))


@pytest.mark.parametrize(("hits", "n"), [(0, 5), (3, 10), (20, 20)])
def test_wilson_bounds_are_those_of_scipy(hits: int, n: int) -> None:
    expected = binomtest(hits, n).proportion_ci(0.95, method="wilson")
    found = wilson_bounds(np.array([hits / n]), np.array([n]))[:, 0]
    np.testing.assert_allclose(found, [expected.low, expected.high], atol=1e-6)
