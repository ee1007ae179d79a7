"""The numbers of a model that answers several findings of one scan, each by itself."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from medcli.evaluation.baselines import histogram_features, thumbnail_features
from medcli.evaluation.calibration import (
    calibration_errors_by_chance,
    expected_calibration_error,
)
from medcli.evaluation.intervals import Statistic, patient_bootstrap, patient_groups
from medcli.evaluation.metrics import UNKNOWN_SITE, one_against_rest
from medcli.evaluation.ranking import auroc, auroc_statistic

_MEANS = (
    *("auroc", "accuracy", "sensitivity", "specificity", "ppv", "npv"),
    *("average_precision", "ece", "ece_by_chance", "brier"),
)
_OF_A_SITE = ("n", "n_patients", "auroc", "auroc_ci", *_MEANS[1:], "per_class")


def finding_metrics(
    truth: np.ndarray,
    probabilities: np.ndarray,
    *,
    findings: Sequence[str],
    thresholds: Sequence[float] | None = None,
    patients: Sequence[str | None] | None = None,
    sites: Sequence[str | None] | None = None,
    seed: int = 0,
    resamples: int = 1000,
) -> dict[str, Any]:
    """Metrics of probabilities against the findings that scans have, ready for JSON.

    Each finding is a question of its own: present where its probability reaches its
    threshold. The headline numbers are means over the findings that are present in some
    scans and absent in others. Intervals are 95 %, bootstrap over patients.

    Parameters
    ----------
    truth : (N, F) bool or 0/1
    probabilities : (N, F), 0–1
    findings : F names
    thresholds : F; None: 0.5 each
    patients, sites : as for `classification_metrics`

    Returns
    -------
    The fields of `classification_metrics`, with null for what asks for one class to a scan
    (`positive`, `threshold`, `confusion`, `accuracy_ci`); `exact`, the share of scans with
    every finding right; in `per_class` the numbers of each finding, with `auroc_ci` and its
    `threshold`

    Raises
    ------
    ValueError : no rows, or shapes that do not fit
    """
    truth = np.asarray(truth, dtype=bool)
    probabilities = np.asarray(probabilities, dtype=np.float64)
    if not len(truth) or not truth.shape == probabilities.shape == (len(truth), len(findings)):
        raise ValueError(
            f"findings of shape {truth.shape}, probabilities of shape {probabilities.shape} "
            f"for {len(findings)} findings"
        )
    if not np.isfinite(probabilities).all():
        raise ValueError("a probability is not finite")
    levels = np.full(len(findings), 0.5) if thresholds is None else np.asarray(thresholds)
    names = [None] * len(truth) if patients is None else list(patients)

    def of(rows: np.ndarray) -> dict[str, Any]:
        groups = patient_groups([names[row] for row in rows], len(rows))
        return _measure(truth[rows], probabilities[rows], findings, levels, groups, seed, resamples)

    per_site = None
    if sites is not None:
        places: defaultdict[str, list[int]] = defaultdict(list)
        for row, site in enumerate(sites):
            places[(site or "").strip() or UNKNOWN_SITE].append(row)
        each = {site: of(np.array(rows)) for site, rows in sorted(places.items())}
        per_site = {site: {key: own[key] for key in _OF_A_SITE} for site, own in each.items()}
    return {**of(np.arange(len(truth))), "per_site": per_site}


def _measure(
    truth: np.ndarray,
    probabilities: np.ndarray,
    findings: Sequence[str],
    levels: np.ndarray,
    groups: np.ndarray,
    seed: int,
    resamples: int,
) -> dict[str, Any]:
    """The fields of `finding_metrics` but `per_site`."""
    decided = probabilities >= levels
    askable = [f for f in range(len(findings)) if 0 < truth[:, f].sum() < len(truth)]
    statistics: dict[str, Statistic] = {
        str(f): auroc_statistic(truth[:, f], probabilities[:, f]) for f in askable
    }
    if askable:
        statistics["mean"] = _mean_of([statistics[str(f)] for f in askable])
    intervals = patient_bootstrap(statistics, groups, seed=seed, resamples=resamples)
    bounds = {name: interval.bounds for name, interval in intervals.items()}
    per_class = {
        name: {
            **one_against_rest(truth[:, f], probabilities[:, f], decided[:, f], groups),
            "auroc_ci": bounds.get(str(f)),
            "accuracy": float((decided[:, f] == truth[:, f]).mean()),
            "threshold": float(levels[f]),
            **_calibration(truth[:, f], probabilities[:, f], seed),
            "brier": float(((probabilities[:, f] - truth[:, f]) ** 2).mean()),
        }
        for f, name in enumerate(findings)
    }
    own = [per_class[findings[f]] for f in askable]
    absent = [name for f, name in enumerate(findings) if f not in askable]
    return {
        "classes": list(findings),
        "positive": None,
        "n": len(truth),
        "n_patients": int(groups.max()) + 1,
        **{key: _mean([each[key] for each in own]) for key in _MEANS},
        "auroc_ci": bounds.get("mean"),
        "auroc_variance": None,
        "auroc_ci_delong": None,
        "accuracy_ci": None,
        "exact": float((decided == truth).all(axis=1).mean()),
        "threshold": None,
        "confusion": None,
        "per_class": per_class,
        "warnings": [
            {
                "code": "missing_class",
                "message": f"no scan with, or none without, {', '.join(absent)}; means leave "
                "them out",
            }
        ]
        if absent
        else [],
    }


def _calibration(there: np.ndarray, probabilities: np.ndarray, seed: int) -> dict[str, float]:
    """The calibration error of one finding, (N,) each, and what it would be by chance."""
    both = np.column_stack([1 - probabilities, probabilities])
    return {
        "ece": expected_calibration_error(there.astype(int), both),
        "ece_by_chance": float(calibration_errors_by_chance(both, seed=seed).mean()),
    }


def _mean_of(parts: Sequence[Statistic]) -> Statistic:
    """The mean of several statistics; undefined where one of them is."""

    def statistic(weights: np.ndarray) -> np.ndarray:
        return np.asarray(np.mean([part(weights) for part in parts], axis=0))

    return statistic


def _mean(values: Sequence[float | None]) -> float | None:
    """Mean of the defined values, None where there are none."""
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None


def finding_baselines(
    training: tuple[Sequence[np.ndarray], np.ndarray],
    held_out: tuple[Sequence[np.ndarray], np.ndarray],
    *,
    patients: Sequence[str | None] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Mean AUROC over the findings of logistic regressions on thumbnails and on histograms.

    Parameters
    ----------
    training, held_out : N stacks (S, C, H, W) in 0–1, and (N, F) which findings they have

    Returns
    -------
    `thumbnail` and `histogram`, each with `auroc` and `auroc_ci`
    """
    truth = np.asarray(held_out[1], dtype=bool)
    groups = patient_groups(patients, len(truth))
    found: dict[str, Any] = {}
    for name, describe in (("thumbnail", thumbnail_features), ("histogram", histogram_features)):
        known, asked = (
            np.stack([describe(stack) for stack in part[0]]) for part in (training, held_out)
        )
        scores = _logistic_scores(known, np.asarray(training[1], dtype=bool), asked)
        askable = [f for f in range(truth.shape[1]) if 0 < truth[:, f].sum() < len(truth)]
        if not askable:
            found[name] = {"auroc": None, "auroc_ci": None}
            continue
        mean = _mean_of([auroc_statistic(truth[:, f], scores[:, f]) for f in askable])
        interval = patient_bootstrap({"auroc": mean}, groups, seed=seed)["auroc"]
        areas = [auroc(truth[:, f], scores[:, f]) for f in askable]
        found[name] = {"auroc": _mean(areas), "auroc_ci": interval.bounds}
    return found


def _logistic_scores(known: np.ndarray, truth: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """(N, D) features and (N, F) findings → (M, F) scores of (M, D) others."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    scores = np.zeros((len(asked), truth.shape[1]))
    for f in range(truth.shape[1]):
        if truth[:, f].any() and not truth[:, f].all():
            regression = LogisticRegression(C=0.1, class_weight="balanced", max_iter=2000)
            model = make_pipeline(StandardScaler(), regression).fit(known, truth[:, f])
            scores[:, f] = model.decision_function(asked)
    return scores
