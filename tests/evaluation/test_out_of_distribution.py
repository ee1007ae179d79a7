"""Distances against their definition, and the budget on scans that were drawn anew."""

from __future__ import annotations

import numpy as np
import pytest

from medcli.evaluation.out_of_distribution import fit_reference, stack_views


def draw(rng: np.random.Generator, n: int) -> dict[str, np.ndarray]:
    """Two views of correlated, skewed features on different scales."""
    common = rng.normal(size=(n, 1))
    tone = common + rng.gamma(2.0, size=(n, 5)) * [1, 10, 0.1, 1, 3]
    return {"tone": tone, "layout": rng.normal(size=(n, 3)) + 0.5 * common}


def test_the_budget_holds_for_further_scans_of_the_same_kind() -> None:
    rng = np.random.default_rng(0)
    training = draw(rng, 300)
    flagged = []
    for _ in range(60):
        reference = fit_reference(training, draw(rng, 60), budget=0.05)
        flagged.append((reference.scores(draw(rng, 300)) > 1).mean())
    assert 0.03 < np.mean(flagged) < 0.06


def test_the_score_is_the_mahalanobis_distance_in_units_of_its_limit() -> None:
    rng = np.random.default_rng(1)
    training = {"view": rng.normal(size=(50_000, 3)) @ rng.normal(size=(3, 3))}
    validation = {"view": training["view"][:999]}
    scores = fit_reference(training, validation).scores(validation)
    centred = training["view"] - training["view"].mean(axis=0)
    inverse = np.linalg.inv(np.cov(centred.T))
    distances = np.sqrt(np.einsum("ij,jk,ik->i", centred[:999], inverse, centred[:999]))
    expected = distances / np.sort(distances)[949]  # the 950th of 999: (999 + 1) · 0.95
    np.testing.assert_allclose(scores, expected, rtol=0.02)


def test_one_strange_view_is_enough() -> None:
    rng = np.random.default_rng(2)
    reference = fit_reference(draw(rng, 200), draw(rng, 100))
    usual = {name: mean.copy() for name, mean in reference.means.items()}
    assert reference.scores(usual) == 0
    assert reference.scores({**usual, "layout": usual["layout"] + 20}) > 1
    assert reference.scores({**usual, "tone": usual["tone"] + 100}) > 1


def test_one_scan_scores_as_it_does_among_others() -> None:
    rng = np.random.default_rng(3)
    reference = fit_reference(draw(rng, 50), draw(rng, 30))
    scans = draw(rng, 4)
    alone = [{name: rows[i] for name, rows in scans.items()} for i in range(4)]
    np.testing.assert_allclose(
        [float(reference.scores(scan)) for scan in alone], reference.scores(stack_views(alone))
    )


@pytest.mark.parametrize("n", [1, 2, 18])
def test_too_few_validation_scans_are_all_within_the_limit(n: int) -> None:
    rng = np.random.default_rng(n)
    validation = draw(rng, n)
    scores = fit_reference(draw(rng, 40), validation).scores(validation)
    assert scores.max() == pytest.approx(1, rel=1e-5)


def test_a_feature_that_never_varied_does_not_decide_alone() -> None:
    rng = np.random.default_rng(5)
    training = {"view": np.column_stack([rng.normal(size=(100, 2)), np.zeros(100)])}
    reference = fit_reference(training, {"view": training["view"][:40]})
    assert reference.scores({"view": np.array([0.0, 0.0, 0.002])}) < 1
    assert reference.scores({"view": np.array([0.0, 0.0, 1.0])}) > 1


def test_training_scans_that_are_all_alike_give_finite_scores() -> None:
    same = {"view": np.ones((3, 4))}
    reference = fit_reference(same, {"view": np.ones((2, 4))})
    assert np.isfinite(reference.scores({"view": np.zeros((5, 4))})).all()
    assert (reference.scores({"view": np.zeros((5, 4))}) > 1).all()
