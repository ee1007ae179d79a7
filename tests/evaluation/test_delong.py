"""DeLong's variance against its definition over all pairs, the bootstrap, and simulation."""

from __future__ import annotations

import numpy as np
import pytest

from medcli.evaluation.delong import delong_interval, delong_variance
from medcli.evaluation.intervals import patient_bootstrap
from medcli.evaluation.ranking import auroc, auroc_statistic

TRUE_AUROC = 0.8555778168  # of two normals of spread 1 at a distance of 1.5: Φ(1.5 / √2)


def draw(
    rng: np.random.Generator, patients: int, each: int = 1, decimals: int = 8
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positive flags, scores and patients; scans of a patient share half of their variance."""
    groups = np.repeat(np.arange(patients), each)
    positive = np.arange(len(groups)) % 2 == 0 if each > 1 else rng.random(patients) < 0.4
    share = 0.5 if each > 1 else 0.0
    common = rng.normal(0, share**0.5, patients)[groups]
    own = rng.normal(0, (1 - share) ** 0.5, len(groups))
    return positive, np.round(common + own + 1.5 * positive, decimals), groups


@pytest.mark.parametrize("decimals", [8, 0])
def test_the_variance_is_that_over_all_pairs(decimals: int) -> None:
    positive, scores, _ = draw(np.random.default_rng(1), 70, decimals=decimals)
    pairs = np.array(
        [
            [1.0 if p > n else 0.5 if p == n else 0.0 for n in scores[~positive]]
            for p in scores[positive]
        ]
    )
    by_definition = sum(
        pairs.mean(axis=axis).var(ddof=1) / pairs.shape[1 - axis] for axis in (0, 1)
    )
    assert delong_variance(positive, scores) == pytest.approx(by_definition)


def test_patients_of_one_scan_are_independent_rows() -> None:
    positive, scores, groups = draw(np.random.default_rng(2), 50)
    assert delong_variance(positive, scores, groups) == delong_variance(positive, scores)


@pytest.mark.parametrize("each", [1, 4])
def test_the_variance_is_that_of_the_bootstrap(each: int) -> None:
    positive, scores, groups = draw(np.random.default_rng(3), 300, each)
    statistic = auroc_statistic(positive, scores)
    rng = np.random.default_rng(0)
    draws = rng.integers(300, size=(2000, 300))
    counts = np.stack([np.bincount(row, minlength=300) for row in draws])
    by_bootstrap = statistic(counts[:, groups].astype(float)).var()
    assert delong_variance(positive, scores, groups) == pytest.approx(by_bootstrap, rel=0.12)


def test_scans_that_resemble_each_other_widen_the_interval() -> None:
    rng = np.random.default_rng(4)
    groups = np.repeat(np.arange(60), 5)
    positive = groups < 30
    scores = rng.normal(1.5 * (np.arange(60) < 30))[groups]  # all scans of a patient alike
    clustered = delong_variance(positive, scores, groups)
    assert clustered == pytest.approx(delong_variance(np.arange(60) < 30, scores[::5]), rel=1e-9)
    assert clustered > 3 * delong_variance(positive, scores)  # type: ignore[operator]


def test_the_interval_is_close_to_that_of_the_bootstrap() -> None:
    positive, scores, groups = draw(np.random.default_rng(5), 400)
    bounds = patient_bootstrap({"a": auroc_statistic(positive, scores)}, groups)["a"].bounds
    np.testing.assert_allclose(delong_interval(positive, scores), bounds, atol=0.01)


@pytest.mark.parametrize(
    ("positive", "scores"),
    [([1, 0, 0], [0.3, 0.2, 0.1]), ([1, 1, 0], [0.3, 0.2, 0.4]), ([1, 1], [0.3, 0.2])],
)
def test_one_scan_of_a_class_has_no_variance(positive: list[int], scores: list[float]) -> None:
    arguments = np.array(positive, dtype=bool), np.array(scores)
    assert delong_variance(*arguments) is None
    assert delong_interval(*arguments) is None


def test_a_perfect_ranking_has_no_interval() -> None:
    positive = np.array([False, False, True, True])
    assert auroc(positive, np.arange(4.0)) == 1
    assert delong_variance(positive, np.arange(4.0)) == 0
    assert delong_interval(positive, np.arange(4.0)) is None


def coverage(draws: int, patients: int, each: int, resamples: int) -> dict[str, float]:
    """Share of draws whose interval holds the true AUROC, of either kind."""
    rng = np.random.default_rng(draws)
    held = {"delong": 0, "bootstrap": 0}
    for seed in range(draws):
        positive, scores, groups = draw(rng, patients, each)
        statistic = {"a": auroc_statistic(positive, scores)}
        intervals = {
            "delong": delong_interval(positive, scores, groups),
            "bootstrap": patient_bootstrap(statistic, groups, seed=seed, resamples=resamples)[
                "a"
            ].bounds,
        }
        for name, bounds in intervals.items():
            assert bounds is not None
            held[name] += bounds[0] <= TRUE_AUROC <= bounds[1]
    return {name: count / draws for name, count in held.items()}


def test_the_intervals_hold_the_true_value_about_as_often_as_they_say() -> None:
    for share in coverage(120, 100, 1, 200).values():
        assert 0.88 <= share <= 0.99


@pytest.mark.slow
@pytest.mark.parametrize("each", [1, 3])
def test_the_intervals_hold_the_true_value_as_often_as_they_say(each: int) -> None:
    for share in coverage(500, 200, each, 1000).values():
        assert share == pytest.approx(0.95, abs=0.02)
