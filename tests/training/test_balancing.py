from __future__ import annotations

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from medcli.training.balancing import MOST, class_shares, class_weights, scan_weights


def test_class_weights_are_inverse_to_the_share_of_a_class() -> None:
    labels = np.array([0, 0, 0, 1])
    assert class_weights(labels, 2).tolist() == pytest.approx([4 / (2 * 3), 4 / (2 * 1)])
    assert class_weights(labels, 2)[labels].mean() == pytest.approx(1)


def test_class_weights_are_scikit_learns_balanced_ones() -> None:
    labels = np.random.default_rng(0).integers(0, 4, 200)
    expected = compute_class_weight("balanced", classes=np.arange(4), y=labels)
    assert class_weights(labels, 4) == pytest.approx(expected)


def test_the_weight_of_an_absent_class_is_finite() -> None:
    assert np.isfinite(class_weights(np.array([0, 0, 2]), 3)).all()


def test_without_domains_every_scan_counts_alike_or_by_its_class() -> None:
    labels = np.array([0, 0, 0, 1])
    assert scan_weights(labels, 2, None, by_class=False).tolist() == [1, 1, 1, 1]
    assert scan_weights(labels, 2, None, by_class=True) == pytest.approx([2 / 3] * 3 + [2])


def test_every_domain_has_the_same_total_and_every_class_within_it() -> None:
    labels = np.array([0] * 6 + [1] * 2 + [0] * 1 + [1] * 3 + [0] * 2)
    domains = np.array([0] * 8 + [1] * 4 + [2] * 2)
    weights = scan_weights(labels, 2, domains, by_class=True)
    assert weights.mean() == pytest.approx(1)
    assert [weights[domains == d].sum() for d in range(3)] == pytest.approx([14 / 3] * 3)
    for domain in (0, 1):
        parts = [weights[(domains == domain) & (labels == k)].sum() for k in (0, 1)]
        assert parts == pytest.approx([7 / 3] * 2)
    plain = scan_weights(labels, 2, domains, by_class=False)
    assert plain[domains == 1] == pytest.approx([14 / 3 / 4] * 4)


def test_a_tiny_site_does_not_rule() -> None:
    domains = np.array([0] * 999 + [1])
    weights = scan_weights(np.zeros(1000, int), 2, domains, by_class=True)
    assert weights[-1] / weights[:-1].mean() < 2.1 * MOST
    assert weights.mean() == pytest.approx(1)


def test_shares_follow_the_weights_and_none_is_zero() -> None:
    labels, weights = np.array([0, 0, 1]), np.array([1.0, 1.0, 3.0])
    assert class_shares(labels, 2, weights) == pytest.approx([0.4, 0.6])
    assert class_shares(labels, 3, np.ones(3)) == pytest.approx(np.array([2, 1, 0.5]) / 3.5)
