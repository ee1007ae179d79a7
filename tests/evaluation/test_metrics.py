"""The numbers of `evaluate` against scikit-learn and arithmetic by hand."""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    confusion_matrix,
    precision_score,
    recall_score,
    roc_auc_score,
)

from medcli.evaluation.delong import delong_interval, delong_variance
from medcli.evaluation.metrics import classification_metrics

FIELDS = {
    *("classes", "positive", "n", "n_patients", "auroc", "auroc_ci", "accuracy", "accuracy_ci"),
    *("sensitivity", "specificity", "threshold", "average_precision", "ece", "brier"),
    "ece_by_chance",
    *("auroc_variance", "auroc_ci_delong", "ppv", "npv"),
    *("sensitivity_ci", "specificity_ci", "ppv_ci", "npv_ci", "average_precision_ci", "brier_ci"),
    *("confusion", "per_class", "per_site", "warnings"),
}


def codes(metrics: dict[str, Any]) -> list[str]:
    return [warning["code"] for warning in metrics["warnings"]]


def sample(n: int, n_classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels and informative probabilities with ties."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(n_classes, size=n)
    votes = rng.integers(1, 9, size=(n, n_classes)).astype(float)
    votes[np.arange(n), labels] += 3
    return labels, votes / votes.sum(axis=1, keepdims=True)


@pytest.fixture(scope="module")
def binary() -> dict[str, Any]:
    """Two classes, of which the first is the positive one, at threshold 0.6."""
    labels, probabilities = sample(200, 2)
    return classification_metrics(
        labels,
        probabilities,
        classes=["sick", "well"],
        positive="sick",
        threshold=0.6,
        patients=[f"p{row // 2}" for row in range(200)],
    )


def test_the_fields_are_those_of_the_contract(binary: dict[str, Any]) -> None:
    assert set(binary) == FIELDS
    assert json.loads(json.dumps(binary, allow_nan=False)) == binary
    assert binary["n_patients"] == 100
    assert binary["warnings"] == []


def test_two_classes_agree_with_scikit_learn(binary: dict[str, Any]) -> None:
    labels, probabilities = sample(200, 2)
    sick, score = labels == 0, probabilities[:, 0]
    decided, predicted = score >= 0.6, probabilities.argmax(axis=1)
    assert binary["auroc"] == pytest.approx(roc_auc_score(sick, score))
    assert binary["average_precision"] == pytest.approx(average_precision_score(sick, score))
    assert binary["accuracy"] == pytest.approx(accuracy_score(labels, predicted))
    assert binary["sensitivity"] == pytest.approx(recall_score(sick, decided))
    assert binary["specificity"] == pytest.approx(recall_score(~sick, ~decided))
    assert binary["confusion"] == confusion_matrix(labels, predicted).tolist()
    row = binary["per_class"]["sick"]
    assert row["ppv"] == binary["ppv"] == pytest.approx(precision_score(sick, decided))
    assert row["npv"] == binary["npv"] == pytest.approx(precision_score(~sick, ~decided))
    assert (row["n"], row["sensitivity"]) == (int(sick.sum()), binary["sensitivity"])
    assert binary["per_class"]["well"]["sensitivity"] == binary["specificity"]


def test_the_intervals_hold_the_estimate(binary: dict[str, Any]) -> None:
    for name, interval in (
        ("auroc", "auroc_ci"),
        ("auroc", "auroc_ci_delong"),
        ("accuracy", "accuracy_ci"),
        *((name, f"{name}_ci") for name in ("sensitivity", "specificity", "ppv", "npv")),
        ("average_precision", "average_precision_ci"),
        ("brier", "brier_ci"),
    ):
        low, high = binary[interval]
        assert low < binary[name] < high


def test_the_interval_of_the_sensitivity_is_the_binomial_one_for_patients_of_one_scan() -> None:
    labels, probabilities = sample(2000, 2)
    metrics = classification_metrics(labels, probabilities, classes=["a", "b"], positive="b")
    for name, n in (("sensitivity", (labels == 1).sum()), ("specificity", (labels == 0).sum())):
        half = 1.96 * (metrics[name] * (1 - metrics[name]) / n) ** 0.5
        expected = [metrics[name] - half, metrics[name] + half]
        np.testing.assert_allclose(metrics[f"{name}_ci"], expected, atol=0.004)


def test_rows_of_several_models_may_have_a_threshold_each() -> None:
    labels, probabilities = sample(200, 2)
    thresholds = np.where(np.arange(200) < 100, 0.3, 0.7)
    arguments: dict[str, Any] = {"classes": ["a", "b"], "positive": "b"}
    sites = ["left"] * 100 + ["right"] * 100
    metrics = classification_metrics(
        labels, probabilities, threshold=thresholds, sites=sites, **arguments
    )
    assert metrics["threshold"] is None
    decided = probabilities[:, 1] >= thresholds
    assert metrics["sensitivity"] == pytest.approx(recall_score(labels == 1, decided))
    left = classification_metrics(labels[:100], probabilities[:100], threshold=0.3, **arguments)
    assert metrics["per_site"]["left"]["specificity"] == left["specificity"]


def test_the_delong_interval_is_that_of_the_positive_class_by_patient(
    binary: dict[str, Any],
) -> None:
    labels, probabilities = sample(200, 2)
    arguments = labels == 0, probabilities[:, 0], np.arange(200) // 2
    assert binary["auroc_variance"] == delong_variance(*arguments)
    assert binary["auroc_ci_delong"] == delong_interval(*arguments)
    assert binary["per_class"]["well"]["auroc_variance"] == pytest.approx(binary["auroc_variance"])


def test_a_site_has_the_numbers_of_its_rows_alone() -> None:
    labels, probabilities = sample(90, 2)
    sites = ["north", "south", "", None, " south "] * 18
    patients = [f"p{row // 5}" for row in range(90)]
    settings: dict[str, Any] = {"classes": ["no", "yes"], "positive": "yes", "threshold": 0.4}
    metrics = classification_metrics(
        labels, probabilities, patients=patients, sites=sites, **settings
    )
    south = [row for row in range(90) if row % 5 in (1, 4)]
    alone = classification_metrics(
        labels[south], probabilities[south], patients=[patients[r] for r in south], **settings
    )
    assert list(metrics["per_site"]) == ["north", "south", "unknown"]
    assert metrics["per_site"]["south"].items() <= alone.items()
    assert {"auroc_ci", "ppv", "npv", "per_class"} <= set(metrics["per_site"]["south"])
    assert sum(site["n"] for site in metrics["per_site"].values()) == 90


def test_a_site_with_one_class_has_no_auroc() -> None:
    labels, probabilities = sample(20, 2)
    sites = [("even", "odd")[label] for label in labels]
    metrics = classification_metrics(
        labels, probabilities, classes=["no", "yes"], positive="yes", sites=sites
    )
    for site in metrics["per_site"].values():
        assert site["auroc"] is site["auroc_ci"] is None
        assert site["accuracy"] is not None


def test_three_classes_are_macro_means_at_the_argmax() -> None:
    labels, probabilities = sample(150, 3, seed=4)
    metrics = classification_metrics(labels, probabilities, classes=["a", "b", "c"])
    predicted = probabilities.argmax(axis=1)
    one_hot = np.eye(3)[labels]
    assert metrics["auroc"] == pytest.approx(
        roc_auc_score(labels, probabilities, multi_class="ovr", average="macro")
    )
    assert metrics["average_precision"] == pytest.approx(
        average_precision_score(one_hot, probabilities, average="macro")
    )
    assert metrics["sensitivity"] == pytest.approx(recall_score(labels, predicted, average="macro"))
    specificities = [recall_score(labels != k, predicted != k) for k in range(3)]
    assert metrics["specificity"] == pytest.approx(np.mean(specificities))
    assert metrics["threshold"] is None
    assert metrics["positive"] is None
    assert metrics["auroc_ci_delong"] is None
    assert metrics["ppv"] == pytest.approx(precision_score(labels, predicted, average="macro"))
    assert metrics["per_class"]["b"]["auroc_ci_delong"] is not None


def test_confusion_rows_are_true_and_columns_predicted() -> None:
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]])
    metrics = classification_metrics(
        np.array([0, 0, 0]), probabilities, classes=["no", "yes"], positive="yes"
    )
    assert metrics["confusion"] == [[1, 2], [0, 0]]


def test_a_probability_at_the_threshold_is_positive() -> None:
    probabilities = np.array([[0.5, 0.5], [0.75, 0.25]])
    metrics = classification_metrics(
        np.array([1, 0]), probabilities, classes=["no", "yes"], positive="yes"
    )
    assert (metrics["threshold"], metrics["sensitivity"]) == (0.5, 1.0)
    assert metrics["accuracy"] == 0.5  # the argmax of a tie is the first class


def test_one_class_only_leaves_the_auroc_null_and_says_so() -> None:
    _, probabilities = sample(10, 2)
    metrics = classification_metrics(
        np.ones(10, dtype=int),
        probabilities,
        classes=["no", "yes"],
        positive="yes",
        patients=[str(row) for row in range(10)],
    )
    undefined = ("auroc", "auroc_ci", "average_precision", "specificity")
    assert [metrics[name] for name in undefined] == [None] * 4
    assert metrics["sensitivity"] is not None
    assert metrics["accuracy_ci"] is not None
    assert codes(metrics) == ["one_class"]


def test_a_missing_class_is_left_out_of_the_means_and_named() -> None:
    labels, probabilities = sample(60, 3)
    kept = labels != 2
    metrics = classification_metrics(labels[kept], probabilities[kept], classes=["a", "b", "c"])
    rows = metrics["per_class"]
    assert rows["c"]["auroc"] is None
    assert metrics["auroc"] == pytest.approx((rows["a"]["auroc"] + rows["b"]["auroc"]) / 2)
    assert "missing_class" in codes(metrics)
    assert metrics["confusion"][2] == [0, 0, 0]


def test_unknown_patients_are_counted_one_by_one_and_named() -> None:
    labels, probabilities = sample(6, 2)
    arguments = {"classes": ["a", "b"], "positive": "b"}
    some = classification_metrics(
        labels, probabilities, patients=["p", "p", "", None, "q", "q"], **arguments
    )
    assert some["n_patients"] == 4
    assert (
        "2 of 6" in next(w for w in some["warnings"] if w["code"] == "unknown_patient")["message"]
    )
    assert classification_metrics(labels, probabilities, **arguments)["n_patients"] == 6


def test_skipped_resamples_are_counted() -> None:
    labels = np.array([1, 0, 0, 0])
    probabilities = np.array([[0.2, 0.8], [0.9, 0.1], [0.1, 0.9], [0.6, 0.4]])
    metrics = classification_metrics(
        labels, probabilities, classes=["no", "yes"], positive="yes", patients=list("abcd")
    )
    assert codes(metrics) == ["resamples_skipped"]
    assert metrics["auroc_ci"] is not None


def test_a_thousand_resamples_of_five_thousand_rows_take_seconds() -> None:
    labels, probabilities = sample(5000, 2)
    start = time.perf_counter()
    classification_metrics(labels, probabilities, classes=["a", "b"], positive="b")
    assert time.perf_counter() - start < 3


@pytest.mark.parametrize(
    ("labels", "probabilities", "positive", "message"),
    [
        ([], np.zeros((0, 2)), "b", "0 labels"),
        ([0], np.zeros((1, 3)), "b", "shape"),
        ([2], np.ones((1, 2)) / 2, "b", "none of the classes"),
        ([0], np.array([[np.nan, 1]]), "b", "not finite"),
        ([0], np.array([[0.9, 0.9]]), "b", "do not sum to 1"),
        ([0], np.array([[-0.5, 1.5]]), "b", "do not sum to 1"),
        ([0], np.ones((1, 2)) / 2, "c", "positive class 'c'"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(
    labels: list[int], probabilities: np.ndarray, positive: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        classification_metrics(
            np.array(labels, dtype=int), probabilities, classes=["a", "b"], positive=positive
        )
