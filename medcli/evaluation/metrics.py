"""The numbers of `medcli evaluate` for a classifier, with intervals by patient."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score

from medcli.evaluation.calibration import (
    brier_loss,
    brier_losses,
    calibration_errors_by_chance,
    expected_calibration_error,
)
from medcli.evaluation.delong import delong_interval, delong_variance
from medcli.evaluation.intervals import (
    Interval,
    Statistic,
    mean_statistic,
    patient_bootstrap,
    patient_groups,
    weighted_mean,
    weighted_share,
)
from medcli.evaluation.ranking import (
    auroc,
    average_precision_statistic,
    mean_auroc_statistic,
)

_HEADLINE = ("auroc", "sensitivity", "specificity", "ppv", "npv", "average_precision")
_OF_A_SITE = (
    *("n", "n_patients", "auroc", "auroc_ci", "accuracy", "accuracy_ci"),
    *("sensitivity", "sensitivity_ci", "specificity", "specificity_ci", "ppv", "npv"),
    *("ece", "ece_by_chance", "brier", "per_class"),
)
_WITH_INTERVAL = ("sensitivity", "specificity", "ppv", "npv", "average_precision")
_DELONG = ("auroc_variance", "auroc_ci_delong")
UNKNOWN_SITE = "unknown"


def classification_metrics(
    labels: np.ndarray,
    probabilities: np.ndarray,
    *,
    classes: Sequence[str],
    positive: str | None = None,
    threshold: float | np.ndarray | None = None,
    patients: Sequence[str | None] | None = None,
    sites: Sequence[str | None] | None = None,
    seed: int = 0,
    resamples: int = 1000,
) -> dict[str, Any]:
    """Metrics of probabilities against true labels, ready for JSON.

    Accuracy and confusion are taken at the argmax. With two classes the headline
    numbers are those of the positive class, sensitivity, specificity and predictive
    values at `threshold`; with more they are means over the classes present, one against
    the rest, at the argmax. Predictive values hold at the prevalence of these scans.

    Parameters
    ----------
    labels : (N,) class indices
    probabilities : (N, K), rows summing to 1
    classes : K names
    positive : the positive one of two classes, ignored for more
    threshold : "positive" means a probability ≥ it; None: 0.5. Rows of several models have
        one each, (N,); what is told is then None
    patients : one a row, None or blank where unknown
    sites : one a row, None or blank where unknown; None: `per_site` is None

    Returns
    -------
    The fields of `medcli evaluate` that are numbers, and `warnings`; what is
    undefined is None. Rows of `confusion` are true classes, columns predicted ones.
    The `…_ci` are from the bootstrap, `auroc_ci_delong` from `auroc_variance`, of two
    classes only; each class has its own in `per_class`

    Raises
    ------
    ValueError : no rows, shapes that do not fit, a positive class that is none of two
    """
    labels, probabilities = np.asarray(labels), np.asarray(probabilities, dtype=np.float64)
    _check(labels, probabilities, classes, positive)
    if patients is None:
        patients = [None] * len(labels)

    def of(rows: list[int]) -> dict[str, Any]:
        return _measure(
            labels[rows],
            probabilities[rows],
            [patients[row] for row in rows],
            classes=classes,
            positive=positive,
            threshold=threshold[rows] if isinstance(threshold, np.ndarray) else threshold,
            seed=seed,
            resamples=resamples,
        )

    per_site = None if sites is None else _per_site(sites, of)
    return {**of(list(range(len(labels)))), "per_site": per_site}


def _measure(
    labels: np.ndarray,
    probabilities: np.ndarray,
    patients: Sequence[str | None],
    *,
    classes: Sequence[str],
    positive: str | None,
    threshold: float | np.ndarray | None,
    seed: int,
    resamples: int,
) -> dict[str, Any]:
    """The fields of `classification_metrics` but `per_site`, of rows that fit each other."""
    binary = len(classes) == 2
    threshold = (0.5 if threshold is None else threshold) if binary else None
    predicted = probabilities.argmax(axis=1)
    decided = _decided(probabilities, classes, positive, threshold)
    groups = patient_groups(patients, len(labels))
    per_class = {
        name: one_against_rest(labels == k, probabilities[:, k], decided == k, groups)
        for k, name in enumerate(classes)
    }
    present = [name for name in classes if per_class[name]["n"]]
    headline = [positive] if binary and positive else present
    intervals = patient_bootstrap(
        {
            "auroc": mean_auroc_statistic(
                labels, probabilities, [classes.index(c) for c in headline]
            ),
            "accuracy": weighted_mean(predicted == labels),
            "brier": weighted_mean(brier_losses(labels, probabilities)),
            **_statistics(labels, probabilities, decided, per_class, headline, classes),
        },
        groups,
        seed=seed,
        resamples=resamples,
    )
    own = per_class[positive] if binary and positive else dict.fromkeys(_DELONG)
    means = {key: _mean([per_class[name][key] for name in headline]) for key in _HEADLINE}
    return {
        "classes": list(classes),
        "positive": positive if binary else None,
        "n": len(labels),
        "n_patients": int(groups.max()) + 1,
        "auroc": means["auroc"],
        "auroc_ci": intervals["auroc"].bounds if means["auroc"] is not None else None,
        **{key: own[key] for key in _DELONG},
        "accuracy": float((predicted == labels).mean()),
        "accuracy_ci": intervals["accuracy"].bounds,
        **_with_bounds({name: means[name] for name in _WITH_INTERVAL}, intervals),
        "threshold": None if isinstance(threshold, np.ndarray) else threshold,
        "ece": expected_calibration_error(labels, probabilities),
        "ece_by_chance": float(calibration_errors_by_chance(probabilities, seed=seed).mean()),
        **_with_bounds({"brier": brier_loss(labels, probabilities)}, intervals),
        "confusion": _confusion(labels, predicted, len(classes)),
        "per_class": per_class,
        "warnings": [
            *_class_warnings(classes, present),
            *_patient_warnings(patients, len(labels)),
            *(_resample_warnings(intervals, resamples) if len(present) > 1 else []),
        ],
    }


def _with_bounds(
    values: Mapping[str, float | None], intervals: Mapping[str, Interval]
) -> dict[str, Any]:
    """Each value and, as `<name>_ci`, its bounds; None for a value that is undefined."""
    fields: dict[str, Any] = {}
    for name, value in values.items():
        known = value is not None and name in intervals
        fields |= {name: value, f"{name}_ci": intervals[name].bounds if known else None}
    return fields


def _statistics(
    labels: np.ndarray,
    probabilities: np.ndarray,
    decided: np.ndarray,
    per_class: Mapping[str, Mapping[str, Any]],
    headline: Sequence[str],
    classes: Sequence[str],
) -> dict[str, Statistic]:
    """What is resampled beside AUROC and accuracy: means over the classes where it is defined."""
    parts: dict[str, list[Statistic]] = {name: [] for name in _WITH_INTERVAL}
    for name in headline:
        k = classes.index(name)
        truth, called = labels == k, decided == k
        own = {
            "sensitivity": weighted_share(called, truth),
            "specificity": weighted_share(~called, ~truth),
            "ppv": weighted_share(truth, called),
            "npv": weighted_share(~truth, ~called),
            "average_precision": average_precision_statistic(truth, probabilities[:, k]),
        }
        for key, statistic in own.items():
            if per_class[name][key] is not None:
                parts[key].append(statistic)
    return {name: mean_statistic(each) for name, each in parts.items() if each}


def _check(
    labels: np.ndarray, probabilities: np.ndarray, classes: Sequence[str], positive: str | None
) -> None:
    """Raise ValueError unless the arguments fit each other."""
    n_classes = len(classes)
    if n_classes < 2 or len(labels) == 0 or probabilities.shape != (len(labels), n_classes):
        raise ValueError(
            f"{len(labels)} labels and probabilities of shape {probabilities.shape} "
            f"for {n_classes} classes"
        )
    if labels.min() < 0 or labels.max() >= n_classes:
        raise ValueError("a label is none of the classes")
    if not np.isfinite(probabilities).all():
        raise ValueError("a probability is not finite")
    if probabilities.min() < 0 or not np.allclose(probabilities.sum(axis=1), 1, atol=1e-3):
        raise ValueError("the probabilities of a row do not sum to 1")
    if n_classes == 2 and positive not in classes:
        raise ValueError(f"the positive class {positive!r} is none of {', '.join(classes)}")


def _decided(
    probabilities: np.ndarray,
    classes: Sequence[str],
    positive: str | None,
    threshold: float | np.ndarray | None,
) -> np.ndarray:
    """(N,) class indices the model decides for: by threshold for two classes, else argmax."""
    decided: np.ndarray = probabilities.argmax(axis=1)
    if threshold is not None and positive is not None:
        k = classes.index(positive)
        decided = np.where(probabilities[:, k] >= threshold, k, 1 - k)
    return decided


def one_against_rest(
    truth: np.ndarray, scores: np.ndarray, decided: np.ndarray, groups: np.ndarray
) -> dict[str, Any]:
    """Numbers of one class; all arguments (N,), `truth` and `decided` bool."""
    n = int(truth.sum())
    both = 0 < n < len(truth)
    return {
        "n": n,
        "auroc": auroc(truth, scores),
        "auroc_variance": delong_variance(truth, scores, groups),
        "auroc_ci_delong": delong_interval(truth, scores, groups),
        "sensitivity": _share(decided, truth),
        "specificity": _share(~decided, ~truth),
        "ppv": _share(truth, decided),
        "npv": _share(~truth, ~decided),
        "average_precision": float(average_precision_score(truth, scores)) if both else None,
    }


def _per_site(
    sites: Sequence[str | None], of: Callable[[list[int]], dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """What `of` says of each site's rows alone, in the order of the sites' names."""
    rows: defaultdict[str, list[int]] = defaultdict(list)
    for row, site in enumerate(sites):
        rows[(site or "").strip() or UNKNOWN_SITE].append(row)
    measured = {name: of(rows[name]) for name in sorted(rows)}
    return {name: {key: each[key] for key in _OF_A_SITE} for name, each in measured.items()}


def _share(flags: np.ndarray, among: np.ndarray) -> float | None:
    """Share of `flags` in the rows of `among`, None where there are none."""
    return float(flags[among].mean()) if among.any() else None


def _mean(values: Sequence[float | None]) -> float | None:
    """Mean of the defined values, None where there are none."""
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None


def _confusion(labels: np.ndarray, predicted: np.ndarray, n_classes: int) -> list[list[int]]:
    """(K, K) counts, rows true, columns predicted."""
    counts = np.bincount(labels * n_classes + predicted, minlength=n_classes**2)
    rows: list[list[int]] = counts.reshape(n_classes, n_classes).tolist()
    return rows


def _class_warnings(classes: Sequence[str], present: Sequence[str]) -> list[dict[str, str]]:
    """What absent classes leave undefined."""
    if len(present) == 1:
        message = f"only {present[0]} occurs in the scans evaluated; the AUROC is undefined"
        return [{"code": "one_class", "message": message}]
    absent = [name for name in classes if name not in present]
    if absent:
        message = f"no scan of {', '.join(absent)} to evaluate; means leave them out"
        return [{"code": "missing_class", "message": message}]
    return []


def _patient_warnings(patients: Sequence[str | None] | None, n: int) -> list[dict[str, str]]:
    """How many rows count as patients of their own."""
    unknown = n if patients is None else sum(not (name and name.strip()) for name in patients)
    if not unknown:
        return []
    message = f"the patient of {unknown} of {n} scans is unknown; each counts as one of its own"
    return [{"code": "unknown_patient", "message": message}]


def _resample_warnings(intervals: Mapping[str, Interval], resamples: int) -> list[dict[str, str]]:
    """How many resamples missed a class."""
    skipped = intervals["auroc"].skipped
    if not skipped:
        return []
    message = f"{skipped} of {resamples} resamples miss a class and are left out of the interval"
    return [{"code": "resamples_skipped", "message": message}]
