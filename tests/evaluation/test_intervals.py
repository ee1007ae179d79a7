"""The patient-clustered bootstrap: grouping, coverage, what it leaves out."""

from __future__ import annotations

from math import erf, sqrt

import numpy as np
import pytest

from medcli.evaluation.intervals import patient_bootstrap, patient_groups, weighted_mean
from medcli.evaluation.ranking import auroc_statistic


def simulated_patients(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, scores and patients of 60 patients with 4 scans; a patient's scans share an effect.

    A positive scores one unit higher; patient effect and noise have standard deviations
    1 and 0.5, so that the true AUROC is Phi(1 / sqrt(2 · 1.25)).
    """
    patients = np.repeat(np.arange(60), 4)
    positive = patients % 2 == 0
    effects = rng.normal(size=60)[patients]
    return positive, positive + effects + rng.normal(scale=0.5, size=240), patients


def coverage(by_patient: bool, draws: int = 200) -> float:
    """Share of the intervals over simulated draws that hold the true AUROC."""
    truth = (1 + erf(1 / sqrt(2.5) / sqrt(2))) / 2
    rng, covered = np.random.default_rng(1), 0
    for draw in range(draws):
        positive, scores, patients = simulated_patients(rng)
        groups = patients if by_patient else np.arange(len(patients))
        statistics = {"auroc": auroc_statistic(positive, scores)}
        bounds = patient_bootstrap(statistics, groups, seed=draw, resamples=400)["auroc"].bounds
        assert bounds is not None
        covered += bounds[0] <= truth <= bounds[1]
    return covered / draws


def test_intervals_by_patient_cover_the_truth_nineteen_times_in_twenty() -> None:
    assert 0.91 <= coverage(by_patient=True) <= 0.99


def test_intervals_by_scan_would_be_too_narrow() -> None:
    assert coverage(by_patient=False) < 0.80


def test_the_interval_of_a_mean_is_the_normal_one() -> None:
    values = np.random.default_rng(0).normal(5, 2, size=400)
    interval = patient_bootstrap({"mean": weighted_mean(values)}, np.arange(400), resamples=4000)
    half = 1.96 * values.std() / 20
    expected = [values.mean() - half, values.mean() + half]
    np.testing.assert_allclose(interval["mean"].bounds, expected, atol=0.02)


def test_the_same_seed_gives_the_same_interval() -> None:
    values, groups = np.arange(50.0), np.arange(50) // 2
    first, again, other = (
        patient_bootstrap({"mean": weighted_mean(values)}, groups, seed=seed)["mean"].bounds
        for seed in (7, 7, 8)
    )
    assert first == again != other


def test_chunks_do_not_change_the_number_of_resamples() -> None:
    seen: list[int] = []

    def count(weights: np.ndarray) -> np.ndarray:
        seen.append(len(weights))
        assert (weights.sum(axis=1) == 5000).all()
        return np.zeros(len(weights))

    patient_bootstrap({"count": count}, np.arange(5000), resamples=500)
    assert sum(seen) == 500
    assert len(seen) > 1


def test_resamples_of_one_class_are_counted_and_left_out() -> None:
    positive, scores = np.array([True, False, False, False]), np.array([0.9, 0.1, 0.2, 0.95])
    statistics = {"auroc": auroc_statistic(positive, scores)}
    interval = patient_bootstrap(statistics, np.arange(4))["auroc"]
    expected = 0.75**4 + 0.25**4  # the positive never drawn, or nothing else
    assert interval.skipped / 1000 == pytest.approx(expected, abs=0.04)
    assert interval.bounds is not None


def test_one_patient_has_no_interval() -> None:
    statistics = {"mean": weighted_mean(np.arange(3.0))}
    assert patient_bootstrap(statistics, np.zeros(3, dtype=int))["mean"].bounds is None


def test_mostly_undefined_resamples_give_no_interval() -> None:
    positive = np.arange(40) == 0
    both_present = auroc_statistic(positive, np.linspace(0, 1, 40))

    def undefined_more_often(weights: np.ndarray) -> np.ndarray:
        return np.where(weights[:, 1] > 0, both_present(weights), np.nan)

    interval = patient_bootstrap({"auroc": undefined_more_often}, np.arange(40))["auroc"]
    assert interval.bounds is None
    assert interval.skipped > 500


def test_unknown_patients_are_never_equal() -> None:
    groups = patient_groups(["a", None, "b", "", "a", " "], 6)
    assert groups.tolist() == [0, 1, 2, 3, 0, 4]
    assert patient_groups(None, 3).tolist() == [0, 1, 2]


def test_patients_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match="2 patients for 3 rows"):
        patient_groups(["a", "b"], 3)
