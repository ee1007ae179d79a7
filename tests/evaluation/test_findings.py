from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    brier_score_loss,
    precision_score,
    recall_score,
    roc_auc_score,
)

from medcli.evaluation.calibration import fit_platt, sigmoid
from medcli.evaluation.findings import finding_baselines, finding_metrics

FINDINGS = ("effusion", "edema", "mass")
THRESHOLDS = np.array([0.4, 0.6, 0.5])


@pytest.fixture
def answers() -> tuple[np.ndarray, np.ndarray]:
    """80 scans: which findings they have, and probabilities that know something of it."""
    rng = np.random.default_rng(0)
    truth = rng.random((80, 3)) < [0.5, 0.3, 0.15]
    return truth, np.clip(0.3 * truth + rng.random((80, 3)) * 0.7, 0, 1)


def test_each_finding_has_scikit_learns_numbers(answers: tuple[np.ndarray, np.ndarray]) -> None:
    truth, probabilities = answers
    found = finding_metrics(truth, probabilities, findings=FINDINGS, thresholds=THRESHOLDS)
    for f, name in enumerate(FINDINGS):
        own = found["per_class"][name]
        there = probabilities[:, f] >= THRESHOLDS[f]
        expected = {
            "n": truth[:, f].sum(),
            "auroc": roc_auc_score(truth[:, f], probabilities[:, f]),
            "average_precision": average_precision_score(truth[:, f], probabilities[:, f]),
            "accuracy": accuracy_score(truth[:, f], there),
            "sensitivity": recall_score(truth[:, f], there),
            "specificity": recall_score(~truth[:, f], ~there),
            "ppv": precision_score(truth[:, f], there),
            "npv": precision_score(~truth[:, f], ~there),
            "brier": brier_score_loss(truth[:, f], probabilities[:, f]),
            "threshold": THRESHOLDS[f],
        }
        for key, value in expected.items():
            assert own[key] == pytest.approx(value), (name, key)
        low, high = own["auroc_ci"]
        assert low < own["auroc"] < high
    assert found["auroc"] == pytest.approx(roc_auc_score(truth, probabilities, average="macro"))
    assert found["average_precision"] == pytest.approx(
        average_precision_score(truth, probabilities, average="macro")
    )
    there = probabilities >= THRESHOLDS
    assert found["sensitivity"] == pytest.approx(recall_score(truth, there, average="macro"))
    assert found["exact"] == pytest.approx(accuracy_score(truth, there))
    assert found["confusion"] is found["threshold"] is found["positive"] is None


def test_intervals_widen_where_scans_share_patients(
    answers: tuple[np.ndarray, np.ndarray],
) -> None:
    truth, probabilities = (np.repeat(values, 5, axis=0) for values in answers)
    alone = finding_metrics(truth, probabilities, findings=FINDINGS)
    patients = [str(row // 5) for row in range(len(truth))]
    together = finding_metrics(truth, probabilities, findings=FINDINGS, patients=patients)
    assert together["n_patients"] == 80
    for narrow, wide in (
        (alone["auroc_ci"], together["auroc_ci"]),
        (alone["per_class"]["mass"]["auroc_ci"], together["per_class"]["mass"]["auroc_ci"]),
    ):
        assert wide[1] - wide[0] > 1.5 * (narrow[1] - narrow[0])


def test_a_finding_that_no_scan_has_is_left_out_of_the_means(
    answers: tuple[np.ndarray, np.ndarray],
) -> None:
    truth, probabilities = answers[0].copy(), answers[1]
    truth[:, 2] = False
    found = finding_metrics(truth, probabilities, findings=FINDINGS)
    assert found["per_class"]["mass"]["auroc"] is None
    assert found["auroc"] == pytest.approx(
        roc_auc_score(truth[:, :2], probabilities[:, :2], average="macro")
    )
    assert [warning["code"] for warning in found["warnings"]] == ["missing_class"]
    nothing = finding_metrics(truth & False, probabilities, findings=FINDINGS)
    assert nothing["auroc"] is nothing["auroc_ci"] is None


def test_sites_have_the_numbers_of_their_scans(answers: tuple[np.ndarray, np.ndarray]) -> None:
    truth, probabilities = answers
    sites = ["north"] * 50 + [""] * 30
    found = finding_metrics(truth, probabilities, findings=FINDINGS, sites=sites)["per_site"]
    assert list(found) == ["north", "unknown"]
    assert found["north"]["n"] == 50
    assert found["north"]["auroc"] == pytest.approx(
        roc_auc_score(truth[:50], probabilities[:50], average="macro")
    )


@pytest.mark.parametrize("shape", [(0, 3), (80, 2)])
def test_shapes_that_do_not_fit_are_a_mistake(shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="for 3 findings"):
        finding_metrics(np.zeros(shape), np.zeros((80, 3)), findings=FINDINGS)


def test_platt_scaling_is_a_logistic_regression_on_many_scans() -> None:
    """With many scans the softened targets are the plain ones."""
    rng = np.random.default_rng(1)
    logits = rng.normal(2, 3, 40_000)
    truth = rng.random(40_000) < 1 / (1 + np.exp(-(0.5 * logits - 2)))
    scale, offset = fit_platt(truth, logits)
    model = LogisticRegression(C=1e9).fit(logits[:, None], truth)
    assert scale == pytest.approx(model.coef_[0, 0], rel=2e-3)
    assert offset == pytest.approx(model.intercept_[0], rel=2e-3)
    probabilities = sigmoid(logits[:, None], [(scale, offset)])
    assert probabilities.mean() == pytest.approx(truth.mean(), abs=2e-3)


@pytest.mark.parametrize("positive", [0, 1, 30])
def test_platt_scaling_never_turns_the_order(positive: int) -> None:
    truth = np.arange(30) < positive
    scale, offset = fit_platt(truth, np.linspace(-3, 3, 30))  # the wrong way round
    assert scale > 0
    assert np.isfinite([scale, offset]).all()


def test_extreme_logits_give_probabilities() -> None:
    found = sigmoid(np.array([[-1e4, 0.0, 1e4]]))
    np.testing.assert_allclose(found, [[0, 0.5, 1]])


def test_a_mark_in_a_corner_is_found_by_the_thumbnail() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random((60, 2)) < 0.5
    stacks = [rng.random((1, 1, 32, 32)) * 0.5 for _ in truth]
    for stack, (first, _) in zip(stacks, truth, strict=True):
        stack[..., :4, :4] += 0.4 * first
    found = finding_baselines((stacks[:40], truth[:40]), (stacks[40:], truth[40:]))
    only = finding_baselines((stacks[:40], truth[:40, :1]), (stacks[40:], truth[40:, :1]))
    assert only["thumbnail"]["auroc"] > 0.95
    assert found["thumbnail"]["auroc"] < only["thumbnail"]["auroc"]
