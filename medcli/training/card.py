"""The model card of a run: the usual sections, filled with what is known.

References
----------
Mitchell et al. 2019, doi:10.1145/3287560.3287596 (model cards)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from medcli.evaluation.out_of_distribution import BUDGET
from medcli.models.package import ModelPackage
from medcli.training.card_cells import (
    interval,
    of,
    percent,
    run_facts,
    scaling,
    split_row,
    value,
)
from medcli.training.card_joint import joint_card

OPEN = "*not known to medcli: fill in*"

_CARD = """\
# {task}: {classes}

{facts}

## Intended use

Research on scans like those it was trained on: {intended}. It answers about the classes above and
no others; a scan of anything else gets one of them all the same, and at best a flag. It is not a
medical device: no diagnosis, no triage, no decision about a patient rests on it.

| | |
|---|---|
| intended users and setting | {users} |
| uses to be avoided | clinical decisions; other modalities, regions or ways of cropping |
| licence of this model | {licence} |
| data: licence and attribution | {attribution} |
| contact | {contact} |

## Data

{data_sentence}

| part | patients | scans | per class |
|---|---|---|---|
{split_rows}

Age, sex, scanners, sites and dates of the patients, and how the labels were obtained: {people}.
Slices are resized to {size} × {size} px, CT seen through the window {window} HU; intensities are
standardised by the training part. A longer series is sampled to {slices} slices.

## Numbers on the {part}

Intervals: 95 %, bootstrap over patients. {evaluated}

| metric | value |
|---|---|
{metric_rows}
{class_rows}{site_rows}{fold_rows}
### Beside simple baselines

| classifier | AUROC |
|---|---|
{baseline_rows}

Where one of them comes close to the model, the classes may be told apart by a mark, a border, an
exposure or a size: look at the pictures before believing the model.

## Threshold

{threshold}

## Calibration and label sets

The probabilities were calibrated on the validation part by {scaling}.
Label sets aim to hold the true class of {coverage:.0%} of the scans of each class; where a set does
not hold exactly one class, the answer is called uncertain. The same validation part chose the
weights, so that holds only nearly; the table shows what was found.

| | |
|---|---|
{set_rows}

## Out of distribution

A scan is flagged where tone, texture, colour or layout of the picture lie further from the training
scans than {within:.0%} of the validation scans do: a budget of {budget:.0%} of scans like these.
Flagged among the scans measured: {flagged}. What looks alike and is foreign by its content is not
noticed.

## Limits and ethical considerations

The numbers hold for data like those above. Another scanner, site, population or way of cropping
can change them without a sign. Predictive values hold at the prevalence of the scans they were
measured on. Whether the model is equally good for people of different age, sex or origin was not
measured: {open}. The package names no patient; `splits.csv` holds hashes of pixels and of patients.
"""

_PARTS = {
    "test": "held-out test part",
    "val": "validation part",
    "cross-validation": "patients left out of each fold",
}

_TOLD = ("users", "licence", "attribution", "contact", "people")  # what medcli cannot know


def model_card(package: ModelPackage) -> str:
    """The card as Markdown, from what `model.json` holds."""
    if package.router is not None or package.task.multi_label:
        return joint_card(package)
    provenance, metrics = package.provenance, package.metrics
    center, width = package.preprocess.ct_window
    told = provenance.get("bundled", {})
    about = {name: told.get(name, OPEN) for name in _TOLD}
    return _CARD.format(
        open=OPEN,
        **about,
        task=package.task.name,
        classes=" · ".join(package.task.classes),
        facts=run_facts(package),
        intended=f"telling apart {', '.join(package.task.classes)}",
        size=package.preprocess.size,
        window=f"{center:g}/{width:g}",
        slices=package.preprocess.slice_budget,
        data_sentence=_data_sentence(metrics),
        within=1 - BUDGET,
        budget=BUDGET,
        flagged=percent(metrics["out_of_distribution"]),
        coverage=package.calibration.coverage,
        scaling=scaling(package.calibration, package.task),
        split_rows=_lines(split_row(row) for row in provenance["split"]),
        part=_PARTS.get(metrics["split"], metrics["split"]),
        evaluated=_evaluated(metrics),
        metric_rows=_lines(_metric_rows(metrics)),
        class_rows=_class_rows(metrics),
        site_rows=_site_rows(metrics),
        fold_rows=_fold_rows(metrics),
        baseline_rows=_lines(_baseline_rows(metrics)),
        threshold=_threshold(package),
        set_rows=_lines(_set_rows(metrics["label_sets"])),
    )


def _lines(rows: Iterable[str]) -> str:
    return "\n".join(rows)


def _data_sentence(metrics: Mapping[str, Any]) -> str:
    """How patients were kept apart."""
    apart = "Parts never share a patient; scans of unknown patients count as one patient each."
    folds = metrics.get("folds")
    if not folds:
        return apart
    return (
        f"The numbers below come from {len(folds)} folds by patient: each scan was answered by a "
        "model that had not seen its patient. This model then learnt from all patients; the table "
        f"shows its own parts. {apart}"
    )


def _evaluated(metrics: Mapping[str, Any]) -> str:
    """What the numbers rest on."""
    if metrics.get("folds"):
        kept = metrics["kept"]
        own = value(kept["validation_auroc"], kept["validation_auroc_ci"])
        return (
            "Cross-validated: they are those of the models of the folds, which saw fewer patients; "
            f"this model has no held-out scans of its own (AUROC on its validation part: {own})."
        )
    if metrics["split"] == "val":
        return "No test part: the validation part chose the weights, so the numbers flatter."
    return "The test part had no say in weights, calibration or threshold."


def _threshold(package: ModelPackage) -> str:
    """Where the threshold lies, by which rule, and what it reached where it was chosen."""
    point, task = package.metrics.get("operating_point"), package.task
    if not point or task.positive is None:
        return "More than two classes: the most probable class is the answer, without a threshold."
    rule = "Youden's index (the largest sum of sensitivity and specificity)"
    if point["rule"] == "sensitivity":
        rule = f"the highest that reaches a sensitivity of {point['wanted']:g}"
    elif point["wanted"] is not None:
        rule += f"; the wanted sensitivity of {point['wanted']:g} was out of reach"
    return (
        f"A scan is called {task.positive} from a probability of {point['threshold']:.3f}. The "
        f"threshold was fixed on the validation part: {rule}. There it reached a sensitivity of "
        f"{point['sensitivity']:.3f} and a specificity of {point['specificity']:.3f} "
        f"({point['n_positive']} positive and {point['n_negative']} negative scans); on the scans "
        "above what the table says. `label` of an answer is the most probable class, not the one "
        "by threshold."
    )


def _metric_rows(metrics: Mapping[str, Any]) -> list[str]:
    rows = [f"| scans, patients | {metrics['n']}, {metrics['n_patients']} |"]
    rows.append(f"| auroc | {of(metrics, 'auroc')} |")
    rows.append(f"| auroc, DeLong | {interval(metrics['auroc_ci_delong']).strip() or '–'} |")
    at_threshold = ("sensitivity", "specificity", "ppv", "npv", "threshold")
    names = ("accuracy", *at_threshold, "average_precision", "brier")
    rows += [f"| {name.replace('_', ' ')} | {of(metrics, name)} |" for name in names]
    by_chance = value(metrics.get("ece_by_chance"))
    return [*rows, f"| ece (by chance alone) | {value(metrics['ece'])} ({by_chance}) |"]


def _class_rows(metrics: Mapping[str, Any]) -> str:
    """The numbers of each class against the rest; with two classes they would be the same."""
    if metrics["positive"]:
        return ""
    rows = [
        f"| {name} | {each['n']} | {value(each['auroc'], each['auroc_ci_delong'])} "
        f"| {value(each['sensitivity'])} | {value(each['ppv'])} |"
        for name, each in metrics["per_class"].items()
    ]
    head = "| class | scans | AUROC (DeLong) | sensitivity | PPV |\n|---|---|---|---|---|"
    return f"\n{head}\n{_lines(rows)}\n"


def _fold_rows(metrics: Mapping[str, Any]) -> str:
    """The numbers of each fold, where there are folds."""
    if not metrics.get("folds"):
        return ""
    rows = [
        f"| {row['fold']} | {row['n']} | {row['n_patients']} | {of(row, 'auroc')} "
        f"| {of(row, 'sensitivity')} | {of(row, 'specificity')} |"
        for row in metrics["folds"]
    ]
    head = (
        "| fold | scans | patients | AUROC | sensitivity | specificity |\n|---|---|---|---|---|---|"
    )
    return f"\n{head}\n{_lines(rows)}\n"


def _site_rows(metrics: Mapping[str, Any]) -> str:
    """The numbers of each site, where the data name sites."""
    if not metrics.get("per_site"):
        return ""
    rows = [
        f"| {name} | {each['n']} | {value(each['auroc'], each['auroc_ci'])} |"
        for name, each in metrics["per_site"].items()
    ]
    return f"\n| site | scans | AUROC |\n|---|---|---|\n{_lines(rows)}\n"


def _baseline_rows(metrics: Mapping[str, Any]) -> list[str]:
    rows = [f"| the model | {of(metrics, 'auroc')} |"]
    return rows + [
        f"| {name.replace('_', ' on ', 1)} | {of(each, 'auroc')} |"
        for name, each in metrics["baselines"].items()
    ]


def _set_rows(sets: Mapping[str, Any]) -> list[str]:
    covered = value(sets["coverage"], sets["coverage_ci"])
    rows = [f"| label sets hold the class (aim {sets['target']:g}) | {covered} |"]
    rows += [f"| … of {name} | {value(share)} |" for name, share in sets["per_class"].items()]
    return [*rows, f"| label sets of exactly one class | {value(sets['one'])} |"]
