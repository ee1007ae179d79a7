"""How much each scan counts, where classes or sites differ in size."""

from __future__ import annotations

import numpy as np

MOST = 10.0  # times the average: what a scan of a tiny group counts at most


def class_weights(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """(N,) labels → (K,) weights inverse to each class's share, with mean 1 over the scans."""
    counts = np.bincount(labels, minlength=num_classes)
    weights: np.ndarray = len(labels) / (num_classes * np.maximum(counts, 1))
    return weights


def scan_weights(
    labels: np.ndarray, num_classes: int, domains: np.ndarray | None, *, by_class: bool
) -> np.ndarray:
    """(N,) labels and domains → (N,) weights with mean 1.

    Every domain has the same total; inside a domain every class that occurs there has,
    with `by_class`, else every scan. With domains no scan counts more than `MOST` times the
    average, or the only three scans of a site would rule the training.

    References
    ----------
    Idrissi, Arjovsky, Pezeshki, Lopez-Paz: Simple data balancing achieves competitive
    worst-group-accuracy, CLeaR 2022 (reweighting of groups).
    """
    if domains is None:
        by_label = class_weights(labels, num_classes)
        return by_label[labels] if by_class else np.ones(len(labels))
    weights = np.empty(len(labels))
    for domain in np.unique(domains):
        here = np.flatnonzero(domains == domain)
        counts = np.bincount(labels[here], minlength=num_classes)
        groups = np.count_nonzero(counts)
        each = (
            1 / (groups * counts[labels[here]]) if by_class else np.full(len(here), 1 / len(here))
        )
        weights[here] = each
    capped = np.minimum(weights / weights.mean(), MOST)
    balanced: np.ndarray = capped / capped.mean()
    return balanced


def class_shares(labels: np.ndarray, num_classes: int, weights: np.ndarray) -> np.ndarray:
    """(K,) share of each class in the (N,) `weights`; an absent one counts as half a scan."""
    totals = np.bincount(labels, weights=weights, minlength=num_classes)
    totals = np.where(totals > 0, totals, 0.5)
    shares: np.ndarray = totals / totals.sum()
    return shares
