"""What medcli knows of the items that reporting guidelines ask for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medcli.models.package import ModelPackage
from medcli.report.evaluation_page import PARTS, baseline_title, number

_LIMITS = (
    "The numbers hold for data like these; another scanner, site, population or way of cropping "
    "can change them without a sign. Research use, not a medical device."
)
_CLASSES_OUTPUT = "Calibrated probabilities of each class, a label set"
_FINDINGS_OUTPUT = "A calibrated probability and a decision for each finding"


def known_items(
    package: ModelPackage, metrics: Mapping[str, Any], *, pictures: bool
) -> dict[str, str | None]:
    """Texts by the keys of `medcli.report.checklists`; None where medcli does not know.

    Parameters
    ----------
    metrics : those that the page shows
    pictures : whether the page shows what was decided wrongly
    """
    return {
        **_of_data(package, metrics),
        **_of_model(package),
        **_of_numbers(package, metrics, pictures=pictures),
    }


def _of_data(package: ModelPackage, metrics: Mapping[str, Any]) -> dict[str, str | None]:
    known = package.provenance
    split = known.get("split") or []
    parts = "; ".join(
        f"{row['part']}: {row['patients']} patients, {row['scans']} scans" for row in split
    )
    classes = "; ".join(
        f"{row['part']}: " + ", ".join(f"{name} {n}" for name, n in row["per_class"].items())
        for row in split
    )
    evaluated = f"Evaluated: {metrics['n_patients']} patients, {metrics['n']} scans."
    folds = known.get("folds")
    partition = (
        f"{folds} folds, classes spread alike; one validation part in each."
        if folds
        else "Classes spread alike over training, validation and test parts, from a seed, or the "
        "parts that the data name."
    )
    size, channels = package.preprocess.size, package.preprocess.channels
    return {
        "source": f"{known['source']}; where, when and how collected: fill in."
        if known.get("source")
        else None,
        "preprocessing": f"Slices are resized to {size} × {size} px, {channels} channel(s), CT "
        f"through the window {package.preprocess.ct_window[0]:g}/"
        f"{package.preprocess.ct_window[1]:g} HU, other greys by percentiles or 0–255; "
        "standardised by mean and deviation of the training part.",
        "slices": f"Longer series are sampled evenly to {package.preprocess.slice_budget} slices.",
        "predictors": "The pixels of a scan alone; no clinical variable.",
        "missing": "Unreadable scans are left out and named; more than 5 % stop the training.",
        "labels": "Labels are taken as given in the data; how they were obtained: fill in.",
        "partition": partition if split else None,
        "disjoint": "By patient; a scan of an unknown patient is a group of its own."
        if split
        else None,
        "flow": f"{parts}. {evaluated}" if parts else evaluated,
        "characteristics": f"Classes in each part: {classes}. Age, sex and the rest: fill in."
        if classes
        else None,
    }


def _of_model(package: ModelPackage) -> dict[str, str | None]:
    known, settings = package.provenance, package.provenance.get("train") or {}
    several = package.task.multi_label
    versions = known.get("versions") or {}
    trained = (
        f"{settings.get('optimizer') or 'AdamW'}, "
        f"peak learning rate {settings.get('learning_rate')}, "
        f"{known.get('epochs_run')} of {settings.get('epochs')} epochs "
        f"({known.get('stopped')}), seed {settings.get('seed')}, augmentation for "
        f"{settings.get('augmentation')}, on {known.get('device')}. Search for settings: fill in."
    )
    return {
        "technology": "Deep learning: a neural network for image classification.",
        "use": "Research. The clinical role: fill in.",
        "model": f"{package.model.arch} on each slice, {package.model.aggregator} over slices, "
        f"embedding of {package.model.embedding_dim}, a linear head for "
        f"{len(package.task.classes)} {'findings' if several else 'classes'}.",
        "software": ", ".join(f"{name} {v}" for name, v in versions.items()) or None,
        "initial": f"Started from {known.get('weights') or 'random weights'}."
        if settings
        else None,
        "training": trained if settings else None,
        "selection": "The weights of the best validation AUROC, averaged over steps; calibration "
        "and thresholds fixed on the validation part.",
        "ensemble": "None: one model.",
        "imbalance": f"In the loss: {settings.get('imbalance') or 'classes are weighted'}.",
        "output": (_FINDINGS_OUTPUT if several else _CLASSES_OUTPUT)
        + ", and a flag for scans out of distribution.",
        "prediction": "By the ONNX graph of the package, checked against the trained network.",
        "availability": f"A model package with checksums, fingerprint {package.fingerprint}; "
        "medcli is open source. Where package and data can be had: fill in.",
        "details": f"model.json of the package {package.fingerprint} has every setting.",
    }


def _of_numbers(
    package: ModelPackage, metrics: Mapping[str, Any], *, pictures: bool
) -> dict[str, str | None]:
    part = PARTS.get(metrics["split"], metrics["split"])
    own = metrics["split"] in ("test", "val", "held-out", "cross-validation")
    named = ("sensitivity", "specificity", "ppv", "npv")
    at_point = ", ".join(f"{n} {number(metrics[n], metrics.get(f'{n}_ci'))}" for n in named)
    baselines = ", ".join(map(baseline_title, metrics.get("baselines") or {}))
    sites = metrics.get("per_site") or {}
    by_site = "; ".join(f"{n}: AUROC {number(m['auroc'], m['auroc_ci'])}" for n, m in sites.items())
    performance = (
        f"AUROC {number(metrics['auroc'], metrics['auroc_ci'])}, "
        f"accuracy {number(metrics['accuracy'], metrics['accuracy_ci'])}, "
        f"ECE {number(metrics['ece'])} ({number(metrics.get('ece_by_chance'))} by chance alone), "
        f"Brier score {number(metrics['brier'])}."
    )
    point = metrics.get("operating_point") or {}
    rule = {"youden": "Youden's index", "sensitivity": f"a sensitivity of {point.get('wanted')}"}
    return {
        "metrics": "AUROC, average precision, sensitivity, specificity, predictive values, ECE, "
        "Brier score" + (", coverage of label sets." if metrics["label_sets"] else "."),
        "uncertainty": "95 % intervals by bootstrap over patients; DeLong beside it. No test of "
        "significance.",
        "robustness": f"Simple baselines beside the model: {baselines}." if baselines else None,
        "internal": f"On the {part}." if own else None,
        "external": None if own else "These scans; how they differ from the training: fill in.",
        "performance": performance,
        "operating": _at_thresholds(metrics, at_point),
        "operating_rule": f"Threshold {point['threshold']:.3f} by {rule[point['rule']]}, on the "
        "validation part."
        if point
        else None,
        "failures": "Under Mistakes on this page; why: fill in." if pictures else None,
        "sites": f"{by_site}." if sites else None,
        "poor_input": "Damaged scans are refused and named; pictures unlike the training are "
        "flagged as out of distribution (budget 5 %).",
        "limits": _LIMITS,
        "dropped": None,
    }


def _at_thresholds(metrics: Mapping[str, Any], at_point: str) -> str | None:
    """Sensitivity and the like where something was decided by a threshold."""
    if metrics["positive"]:
        return f"At the threshold: {at_point}."
    if metrics["confusion"] is None:
        return f"Means over the findings, each at its own threshold: {at_point}."
    return None
