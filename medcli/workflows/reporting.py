"""A model, its answers and its numbers → one page."""

from __future__ import annotations

import csv
import platform
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.metadata import version
from typing import Any

import numpy as np

from medcli.errors import UsageError
from medcli.evaluation.curves import GRID, precision_recall, reliability, roc
from medcli.imaging.hashing import set_fingerprint
from medcli.models.held_out import HeldOut, read_held_out
from medcli.models.package import SPLITS, ModelPackage
from medcli.report.evaluation_page import Chart, Mistake, evaluation_page, number
from medcli.report.figures import (
    N_COLOURS,
    Line,
    Point,
    curves_figure,
    histogram_figure,
    reliability_figure,
)
from medcli.workflows.known import known_items

_NO_PICTURES = (
    "A run keeps no pictures. `medcli evaluate MODEL DATA --report FILE` makes this page with "
    "the pictures of what was decided wrongly."
)
_NO_ANSWERS = (
    "This run was made by an older medcli, which did not keep the answers behind its numbers: "
    "no curves. `medcli evaluate MODEL DATA --report FILE` draws them."
)
_MEAN_OF_CLASSES = "mean over the classes, each against the rest"
_MEAN_OF_FINDINGS = "mean over the findings, each by itself"


def run_page(package: ModelPackage, *, seed: int = 0) -> str:
    """The page of a run, from what its folder holds: numbers and curves, no pictures.

    Raises
    ------
    UsageError : a package without numbers
    """
    metrics = package.metrics
    if "confusion" not in metrics:
        raise UsageError(
            f"{package.path} holds no numbers to report",
            "Make the page with `medcli evaluate MODEL DATA --report FILE`",
        )
    answers = read_held_out(package)
    return _page(
        package,
        metrics,
        answers,
        data=_run_data(package),
        mistakes=None,
        notes=[] if answers else [_NO_ANSWERS],
        seed=seed,
    )


def evaluated_page(
    package: ModelPackage,
    metrics: Mapping[str, Any],
    answers: HeldOut,
    mistakes: Sequence[Mistake],
    *,
    notes: Sequence[str] = (),
    seed: int = 0,
) -> str:
    """The page of `medcli evaluate --report`; arguments as `evaluate` gives them."""
    data = metrics["data_fingerprint"]
    return _page(package, metrics, answers, data=data, mistakes=mistakes, notes=notes, seed=seed)


def _page(
    package: ModelPackage,
    metrics: Mapping[str, Any],
    answers: HeldOut | None,
    *,
    data: str | None,
    mistakes: Sequence[Mistake] | None,
    notes: Sequence[str],
    seed: int,
) -> str:
    provenance = package.provenance
    facts = {
        "Findings" if package.task.multi_label else "Classes": " · ".join(package.task.classes),
        "Model": package.fingerprint,
        "Data": data,
        "Made": datetime.now().astimezone().isoformat(" ", "minutes"),
    }
    return evaluation_page(
        title=f"{package.task.name}: report",
        facts=[(name, value) for name, value in facts.items() if value],
        metrics=metrics,
        charts=charts(metrics, answers, seed) if answers else [],
        findings=package.task.multi_label,
        split=provenance.get("split", ()),
        mistakes=mistakes,
        no_mistakes=_NO_PICTURES,
        provenance=_provenance(package, data, seed),
        known=known_items(package, metrics, pictures=mistakes is not None),
        notes=notes,
        synthetic=package.synthetic,
    )


def charts(metrics: Mapping[str, Any], answers: HeldOut, seed: int = 0) -> list[Chart]:
    """ROC, precision over recall, reliability and the spread of the probabilities.

    Of findings the spread is left out, which would be one of each.
    """
    classes, positive = metrics["classes"], metrics["positive"]
    shown = [positive] if positive else list(classes)[:N_COLOURS]
    found = [
        _roc_chart(metrics, answers, shown, seed),
        _precision_chart(metrics, answers, shown),
        _reliability_chart(metrics, answers),
        None if answers.of_findings else _spread_chart(metrics, answers),
    ]
    return [chart for chart in found if chart]


def _column(
    metrics: Mapping[str, Any], answers: HeldOut, name: str
) -> tuple[np.ndarray, np.ndarray]:
    """(N,) whether each scan is of the class, or has the finding, and its probability."""
    k = metrics["classes"].index(name)
    own = answers.labels[:, k] == 1 if answers.of_findings else answers.labels == k
    return own, answers.probabilities[:, k]


def _roc_chart(
    metrics: Mapping[str, Any], answers: HeldOut, shown: Sequence[str], seed: int
) -> Chart | None:
    lines = []
    for name in shown:
        curve = roc(*_column(metrics, answers, name), answers.groups, seed=seed)
        if curve is not None:
            banded = len(shown) == 1 and curve.band is not None
            band = (GRID, curve.band) if banded else ()
            lines.append(Line(name, curve.false_positive, curve.true_positive, *band))
    if not lines:
        return None
    point = None
    if metrics["positive"] and metrics["specificity"] is not None:
        x, y = 1 - metrics["specificity"], metrics["sensitivity"]
        point = Point("at the threshold", x, y) if y is not None else None
    area = number(metrics["auroc"], metrics["auroc_ci"])
    where = ""
    if point:
        where = f" The ring: sensitivity {point.y:.3f} at a specificity of {1 - point.x:.3f}."
    if point and metrics["split"] == "cross-validation":
        where += " Each fold has its own threshold, so it need not lie on the curve."
    return Chart(
        "ROC",
        curves_figure(
            "roc",
            lines,
            x_label="1 - specificity",
            y_label="sensitivity",
            diagonal=True,
            point=point,
        ),
        f"ROC curve of {', '.join(shown)}: AUROC {area}.{where}",
        f"AUROC {area}.{where} The band holds 95 % of resampled patients, point by point."
        if point
        else f"AUROC {area}, {_MEAN_OF_FINDINGS if answers.of_findings else _MEAN_OF_CLASSES}.",
    )


def _precision_chart(
    metrics: Mapping[str, Any], answers: HeldOut, shown: Sequence[str]
) -> Chart | None:
    lines, level = [], None
    for name in shown:
        curve = precision_recall(*_column(metrics, answers, name))
        if curve is not None:
            # From high recall to low, so that a step keeps the precision it was reached with.
            lines.append(Line(name, curve.recall[::-1], curve.precision[::-1]))
            level = curve.prevalence if len(shown) == 1 else None
    if not lines:
        return None
    point = None
    if metrics["positive"] and None not in (metrics["sensitivity"], metrics["ppv"]):
        point = Point("at the threshold", metrics["sensitivity"], metrics["ppv"])
    value = number(metrics["average_precision"], metrics.get("average_precision_ci"))
    figure = curves_figure(
        "precision",
        lines,
        x_label="recall (sensitivity)",
        y_label="precision (PPV)",
        level=level,
        point=point,
        steps=True,
    )
    prevalence = f" {level:.1%} of these scans are positive." if level is not None else ""
    caption = f"Average precision {value}.{prevalence}"
    return Chart("Precision over recall", figure, f"Precision-recall curve. {caption}", caption)


def _reliability_chart(metrics: Mapping[str, Any], answers: HeldOut) -> Chart:
    means = ""
    if answers.of_findings:
        events, probabilities = answers.labels.ravel() == 1, answers.probabilities.ravel()
        about = "the probability of a finding, all findings together"
        means = f" ({_MEAN_OF_FINDINGS})"
    elif metrics["positive"]:
        events, probabilities = _column(metrics, answers, metrics["positive"])
        about = f"the probability of {metrics['positive']}"
    else:
        events = answers.probabilities.argmax(axis=1) == answers.labels
        probabilities = answers.probabilities.max(axis=1)
        about = "the largest probability of each scan"
    curve = reliability(events, probabilities)
    caption = (
        f"Of scans that were given {about}, how many were so; on the diagonal the "
        f"probabilities can be taken at their word. ECE {number(metrics['ece'])} "
        f"({number(metrics.get('ece_by_chance'))} by chance alone), "
        f"Brier score {number(metrics['brier'], metrics.get('brier_ci'))}{means}."
    )
    pairs = ", ".join(
        f"{seen:.2f} at {said:.2f}"
        for said, seen in zip(curve.predicted, curve.observed, strict=True)
    )
    return Chart(
        "Reliability",
        reliability_figure("reliability", curve.predicted, curve.observed, curve.bounds),
        f"Reliability diagram; observed share at predicted probability: {pairs}.",
        caption,
    )


def _spread_chart(metrics: Mapping[str, Any], answers: HeldOut) -> Chart:
    classes, positive = metrics["classes"], metrics["positive"]
    if positive:
        truth, probabilities = _column(metrics, answers, positive)
        other = next(name for name in classes if name != positive)
        groups = [
            (f"true {positive}", probabilities[truth]),
            (f"true {other}", probabilities[~truth]),
        ]
        label = f"probability of {positive}"
    else:
        best = answers.probabilities.max(axis=1)
        right = answers.probabilities.argmax(axis=1) == answers.labels
        groups = [("right", best[right]), ("wrong", best[~right])]
        label = "largest probability"
    figure = histogram_figure(
        "spread", groups, x_label=label, threshold=metrics["threshold"] if positive else None
    )
    means = ", ".join(f"{name}: {len(v)} scans" for name, v in groups)
    return Chart(
        "Spread of the probabilities",
        figure,
        f"Histogram of the {label}; {means}.",
        f"{means[0].upper()}{means[1:]}.",
    )


def _run_data(package: ModelPackage) -> str | None:
    """What stands for the data of a run: all scans of all parts."""
    path = package.path / SPLITS
    if not path.is_file():
        return None
    with path.open(newline="", encoding="utf-8") as stream:
        return set_fingerprint(line["pixel_sha256"] for line in csv.DictReader(stream))


def _provenance(package: ModelPackage, data: str | None, seed: int) -> list[tuple[str, str]]:
    """Model, data and versions: what it takes to know them again."""
    known = package.provenance
    settings = known.get("train", {})
    versions = known.get("versions", {})
    rows: dict[str, Any] = {
        "Model fingerprint": package.fingerprint,
        "Trained": package.created[:19].replace("T", " "),
        "Trained on": known.get("source"),
        "Data fingerprint": data and f"{data} (pixels of the scans, in any order)",
        "Network": f"{package.model.arch}, {package.model.aggregator} over slices",
        "Started from": known.get("weights") or "scratch",
        "Seed of the training": settings.get("seed"),
        "Seed of the intervals": seed,
        "Versions of the training": ", ".join(f"{name} {v}" for name, v in versions.items()),
        "Versions of this page": f"medcli {version('medcli')}, python {platform.python_version()}",
    }
    return [(name, str(value)) for name, value in rows.items() if value not in (None, "")]
