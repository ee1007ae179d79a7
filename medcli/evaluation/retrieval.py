"""Retrieval metrics at 1, 5 and 10 hits, with the chance of a random retriever beside them.

Definitions follow arXiv:2409.09430, which divides the average precision by the
number of hits found (lenient); the strict value divides by what could have been
found. Chance is exact: the expectation over hits drawn without replacement.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import product
from math import comb, perm
from typing import Any

import numpy as np

from medcli.evaluation.intervals import (
    Statistic,
    mean_statistic,
    patient_bootstrap,
    patient_groups,
    weighted_mean,
)

Label = str | None
METRICS = (
    *("map_at_5", "map_at_5_strict", "mmv_at_5", "acc_at_1", "acc_at_5"),
    *("precision_at_10", "recall_at_10"),
)


def retrieval_metrics(
    hit_labels: Sequence[Sequence[Label]],
    query_labels: Sequence[str],
    gallery_label_counts: Mapping[Label, int],
    patients: Sequence[str | None] | None = None,
    *,
    seed: int = 0,
    resamples: int = 1000,
) -> dict[str, Any]:
    """How often the hits of labelled queries carry the query's label, as fractions.

    Parameters
    ----------
    hit_labels : labels of each query's first ten hits (or all there are), best first;
        None for an unlabelled hit, which is never relevant and does not vote
    query_labels : one a query
    gallery_label_counts : scans of each label a query can be answered with, None for
        the unlabelled ones
    patients : one a query, None or blank where unknown; intervals resample them

    Returns
    -------
    `n_queries`, `n_gallery`, the metrics, and the same keys under `chance` and `ci`; the same
    for the queries of each class under `per_class`, and their mean over classes under `macro`

    Raises
    ------
    ValueError : no queries, or not one list of hits for each
    """
    if not query_labels or len(hit_labels) != len(query_labels):
        raise ValueError(f"{len(hit_labels)} lists of hits for {len(query_labels)} queries")
    per_query = np.array(
        [
            _query_scores(hits, label, gallery_label_counts.get(label, 0))
            for hits, label in zip(hit_labels, query_labels, strict=True)
        ]
    )  # (Q, metrics)
    truth = np.array(query_labels)
    members = {label: truth == label for label in sorted(set(query_labels))}
    intervals = patient_bootstrap(
        _statistics(per_query, members),
        patient_groups(patients, len(query_labels)),
        seed=seed,
        resamples=resamples,
    )

    def summary(name: str, means: np.ndarray, by_chance: Mapping[str, float]) -> dict[str, Any]:
        bounds = {metric: intervals[f"{name}/{metric}"].bounds for metric in METRICS}
        values = dict(zip(METRICS, means.tolist(), strict=True))
        return {**values, "chance": dict(by_chance), "ci": bounds}

    per_class = {
        label: {
            "n_queries": int(rows.sum()),
            "n_gallery": gallery_label_counts.get(label, 0),
            **summary(
                f"of {label}",
                per_query[rows].mean(axis=0),
                chance([label], gallery_label_counts),
            ),
        }
        for label, rows in members.items()
    }
    macro_chance = {
        name: float(np.mean([each["chance"][name] for each in per_class.values()]))
        for name in METRICS
    }
    macro = np.mean([per_query[rows].mean(axis=0) for rows in members.values()], axis=0)
    return {
        "n_queries": len(query_labels),
        "n_gallery": sum(gallery_label_counts.values()),
        **summary("all", per_query.mean(axis=0), chance(query_labels, gallery_label_counts)),
        "macro": summary("macro", macro, macro_chance),
        "per_class": per_class,
    }


def _statistics(per_query: np.ndarray, members: Mapping[str, np.ndarray]) -> dict[str, Statistic]:
    """What is resampled: each metric over all queries, over those of a class, over classes."""
    found: dict[str, Statistic] = {}
    for column, metric in enumerate(METRICS):
        values = per_query[:, column]
        classes = {label: _mean_of(values, rows) for label, rows in members.items()}
        found[f"all/{metric}"] = weighted_mean(values)
        found[f"macro/{metric}"] = mean_statistic(list(classes.values()))
        found |= {f"of {label}/{metric}": each for label, each in classes.items()}
    return found


def _mean_of(values: np.ndarray, rows: np.ndarray) -> Statistic:
    """The mean of (N,) `values` in some rows (N,) bool; NaN where a resample has none."""

    def statistic(weights: np.ndarray) -> np.ndarray:
        total = weights @ rows.astype(float)
        undefined = np.full(len(weights), np.nan)
        mean: np.ndarray = np.divide(
            weights @ (values * rows), total, out=undefined, where=total > 0
        )
        return mean

    return statistic


def chance(
    query_labels: Sequence[str], gallery_label_counts: Mapping[Label, int]
) -> dict[str, float]:
    """What a retriever that answers with random scans of the gallery reaches on average."""
    queries = Counter(query_labels)
    per_label = np.array([_chance_of(label, gallery_label_counts) for label in queries])
    means = np.average(per_label, axis=0, weights=list(queries.values()))
    return dict(zip(METRICS, means.tolist(), strict=True))


def average_precision(relevant: Sequence[bool], divisor: int) -> float:
    """Sum of the precision at each relevant hit, divided by `divisor`; 0 where that is 0."""
    found, total = 0, 0.0
    for rank, is_relevant in enumerate(relevant, start=1):
        if is_relevant:
            found += 1
            total += found / rank
    return total / divisor if divisor else 0.0


def _query_scores(hits: Sequence[Label], label: str, in_gallery: int) -> tuple[float, ...]:
    """The metrics of one query, in the order of `METRICS`."""
    relevant = [hit == label for hit in hits]
    first_five = relevant[:5]
    return (
        average_precision(first_five, sum(first_five)),
        average_precision(first_five, min(5, in_gallery)),
        float(_is_tied_majority(label, hits[:5])),
        float(any(relevant[:1])),
        float(any(first_five)),
        sum(relevant[:10]) / 10,
        sum(relevant[:10]) / in_gallery if in_gallery else 0.0,
    )


def _is_tied_majority(label: str, hits: Sequence[Label]) -> bool:
    """Whether no label occurs more often than `label` does, which must occur."""
    votes = Counter(hit for hit in hits if hit is not None)
    return votes[label] > 0 and votes[label] == max(votes.values())


def _chance_of(label: str, counts: Mapping[Label, int]) -> tuple[float, ...]:
    """Expected metrics of a query with `label`, in the order of `METRICS`."""
    total, relevant = sum(counts.values()), counts.get(label, 0)
    k = min(5, total)
    lenient = strict = 0.0
    for pattern in product((False, True), repeat=k):
        found = sum(pattern)
        # Draws in this order, without replacement.
        ways = perm(relevant, found) * perm(total - relevant, k - found)
        probability = ways / perm(total, k)
        lenient += probability * average_precision(pattern, found)
        strict += probability * average_precision(pattern, min(5, relevant))
    share = relevant / total if total else 0.0
    return (
        lenient,
        strict,
        _majority_chance(label, counts, k),
        share,
        1 - comb(total - relevant, k) / comb(total, k),
        share * min(10, total) / 10,
        min(10, total) / total if relevant else 0.0,
    )


def _majority_chance(label: str, counts: Mapping[Label, int], k: int) -> float:
    """Probability that `label` is a (tied) majority among `k` random scans.

    Counts the draws in which `label` occurs h times and no other label more often:
    the coefficient of x^(k-h) in the product over the other labels of
    sum_t C(n, t) x^t, t ≤ h (unlabelled scans do not vote: t ≤ k).
    """
    favourable = 0
    for own in range(1, k + 1):
        ways = [1] + [0] * (k - own)
        for other, n in counts.items():
            if other != label:
                limit = k if other is None else own
                ways = _times(ways, [comb(n, t) for t in range(limit + 1)])
        favourable += comb(counts.get(label, 0), own) * ways[k - own]
    return favourable / comb(sum(counts.values()), k)


def _times(left: Sequence[int], right: Sequence[int]) -> list[int]:
    """Product of two polynomials, cut to the length of `left`."""
    return [
        sum(left[i] * right[n - i] for i in range(n + 1) if n - i < len(right))
        for n in range(len(left))
    ]
