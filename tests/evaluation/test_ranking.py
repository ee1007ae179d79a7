"""AUROC and average precision against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from medcli.evaluation.ranking import (
    auroc,
    auroc_statistic,
    average_precision_statistic,
)


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 6)), min_size=2, max_size=40).filter(
        lambda rows: len({positive for positive, _ in rows}) == 2
    )
)
def test_auroc_with_ties_is_that_of_scikit_learn(rows: list[tuple[bool, int]]) -> None:
    positive, scores = (np.array(column) for column in zip(*rows, strict=True))
    assert auroc(positive, scores) == pytest.approx(roc_auc_score(positive, scores), abs=1e-12)


def test_weighted_rows_count_as_often_as_their_weight() -> None:
    rng = np.random.default_rng(3)
    positive, scores = rng.random(60) < 0.4, rng.integers(0, 9, size=60) / 7
    weights = rng.integers(0, 4, size=(5, 60))
    expected = [
        roc_auc_score(np.repeat(positive, counts), np.repeat(scores, counts)) for counts in weights
    ]
    np.testing.assert_allclose(auroc_statistic(positive, scores)(weights), expected, atol=1e-12)


def test_one_class_has_no_auroc() -> None:
    assert auroc(np.ones(3, dtype=bool), np.array([0.1, 0.2, 0.3])) is None


def test_a_resample_of_one_class_is_not_a_number() -> None:
    statistic = auroc_statistic(np.array([True, False]), np.array([0.9, 0.1]))
    np.testing.assert_array_equal(statistic(np.array([[2.0, 0.0], [1.0, 1.0]])), [np.nan, 1.0])


def test_the_average_precision_of_weighted_rows_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(3)
    positive, scores = rng.random(60) < 0.4, rng.integers(0, 9, size=60) / 7
    weights = rng.integers(0, 4, size=(5, 60))
    expected = [
        average_precision_score(np.repeat(positive, counts), np.repeat(scores, counts))
        for counts in weights
    ]
    found = average_precision_statistic(positive, scores)(weights)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    only_negatives = np.array([np.where(positive, 0, 1)])
    assert np.isnan(average_precision_statistic(positive, scores)(only_negatives)).all()
