"""The model card of a run."""

from __future__ import annotations

from typing import Any

from medcli.evaluation.out_of_distribution import BUDGET
from medcli.models.package import ModelPackage

_CARD = """\
# {task}: {classes}

Trained by medcli {medcli} on {created}. **Research use, not a medical device.**{synthetic}

| | |
|---|---|
| fingerprint | `{fingerprint}` |
| network | {arch}, {aggregator} over slices, {dim}-dimensional embedding of unit length |
| input | {size} × {size} px, {channels} channel(s) |
| trained on | {source} |
| started from | {weights} |
| training | seed {seed}, {epochs_run} epochs, best {best_epoch}, ended by {stopped} |
| time | {seconds:.0f} s on {device} |
| ONNX graph | differs from torch by at most {onnx_difference:.1e} |

## Data

Parts never share a patient; scans of unknown patients count as one patient each.

| part | patients | scans | per class |
|---|---|---|---|
{split_rows}

## Numbers on the {part} part

Intervals: 95 %, bootstrap over patients. The threshold was fixed on the validation part.

| metric | value |
|---|---|
{metric_rows}

## Limits

The numbers hold for data like those above. Another scanner, site, population or way of
cropping can change them without a sign. The probabilities were calibrated on the validation
part by one temperature, {temperature:.3f} (1 changes nothing). Label sets aim to hold the true
class of {coverage:.0%} of the scans of each class. The same validation part chose the weights, so
that holds only nearly; the table shows what was found. Predictive values hold at the prevalence of
the scans they were measured on. A scan is flagged as out of distribution where tone, texture,
colour or layout of the picture lie further from the training scans than {within:.0%} of the
validation scans do; what looks alike and is foreign by its content is not noticed.
"""

_ADAPTED = """\
# {task}: {classes}

Adapted by medcli {medcli} on {created}. **Research use, not a medical device.**{synthetic}

The statistics of batch normalisation were measured on {scans} unlabelled scans ({slices} slices,
{source}) and take the place of those of the training part. The mean of a channel moved by
{shift:.2f} of its deviations on average. No weight was changed.

| | |
|---|---|
| fingerprint | `{fingerprint}` |
| made from | `{before}`, trained on {trained_on} |
| network | {arch}, {aggregator} over slices |
| ONNX graph | differs from torch by at most {onnx_difference:.1e} |

## Numbers

None: nothing was measured after the change, and the numbers of `{before}` are not those of this
model. Measure it on labelled scans of the new site, `medcli evaluate MODEL DATA`, beside the old
one: whether it became better is not known before.

## Not refitted

Threshold, temperature and label sets are those that `{before}` got on its own validation part;
they may not fit the new site. What is out of distribution is still held against the scans that
taught the model, so scans of the new site may be flagged. A gallery made with `{before}` refuses
this model: build it again.

The scans should be as mixed as those that the model will see. Where one class is more frequent
among them than in training, the statistics take part of that difference for one of the scanner.
"""


def adapted_card(package: ModelPackage) -> str:
    """The card of a model that was adapted, as Markdown, from what `model.json` holds."""
    provenance, last = package.provenance, package.provenance["adaptations"][-1]
    synthetic = "\n\n**Trained on generated pictures: it says nothing about a patient.**"
    return _ADAPTED.format(
        task=package.task.name,
        classes=" · ".join(package.task.classes),
        medcli=last["versions"]["medcli"],
        created=package.created[:10],
        synthetic=synthetic if package.synthetic else "",
        scans=last["scans"],
        slices=last["slices"],
        source=last["source"] or "source not named",
        shift=last["shift"],
        fingerprint=package.fingerprint,
        before=last["from"],
        trained_on=provenance.get("source", "data not named"),
        arch=package.model.arch,
        aggregator=package.model.aggregator,
        onnx_difference=last["onnx_difference"],
    )


def model_card(package: ModelPackage) -> str:
    """The card as Markdown, from what `model.json` holds."""
    provenance, metrics = package.provenance, package.metrics
    synthetic = "\n\n**Trained on generated pictures: it says nothing about a patient.**"
    return _CARD.format(
        task=package.task.name,
        classes=" · ".join(package.task.classes),
        medcli=provenance["versions"]["medcli"],
        created=package.created[:10],
        synthetic=synthetic if package.synthetic else "",
        fingerprint=package.fingerprint,
        arch=package.model.arch,
        aggregator=package.model.aggregator,
        dim=package.model.vector_dim,
        size=package.preprocess.size,
        channels=package.preprocess.channels,
        source=provenance["source"],
        weights=provenance["weights"] or "scratch",
        seed=provenance["train"]["seed"],
        epochs_run=provenance["epochs_run"],
        best_epoch=provenance["best_epoch"],
        stopped=provenance["stopped"],
        seconds=provenance["seconds"],
        device=provenance["device"],
        onnx_difference=provenance["onnx_difference"],
        within=1 - BUDGET,
        coverage=package.calibration.coverage,
        temperature=package.calibration.temperature,
        split_rows="\n".join(_split_row(row) for row in provenance["split"]),
        part="held-out test" if metrics["split"] == "test" else "validation",
        metric_rows="\n".join(_metric_rows(metrics)),
    )


def _split_row(row: dict[str, Any]) -> str:
    per_class = ", ".join(f"{name} {count}" for name, count in row["per_class"].items())
    return f"| {row['part']} | {row['patients']} | {row['scans']} | {per_class} |"


def _metric_rows(metrics: Any) -> list[str]:
    rows = [
        f"| {name} | {_number(metrics[name])}{_interval(metrics.get(f'{name}_ci'))} |"
        for name in ("auroc", "accuracy")
    ]
    rows.insert(1, f"| auroc, DeLong | {_interval(metrics['auroc_ci_delong']).strip() or '–'} |")
    at_threshold = ("sensitivity", "specificity", "ppv", "npv", "threshold")
    names = (*at_threshold, "average_precision", "ece", "brier")
    rows += [f"| {name.replace('_', ' ')} | {_number(metrics[name])} |" for name in names]
    rows += [
        f"| {name} alone, logistic regression: auroc | "
        f"{_number(baseline['auroc'])}{_interval(baseline['auroc_ci'])} |"
        for name, baseline in metrics["baselines"].items()
    ]
    rows += [
        f"| site {name}: auroc | {_number(site['auroc'])}{_interval(site['auroc_ci'])} |"
        for name, site in (metrics["per_site"] or {}).items()
    ]
    sets = metrics["label_sets"]
    covered = f"{_number(sets['coverage'])}{_interval(sets['coverage_ci'])}"
    rows.append(f"| label sets hold the class (aim {sets['target']:g}) | {covered} |")
    rows.append(f"| label sets of exactly one class | {_number(sets['one'])} |")
    rows.append(f"| flagged as out of distribution | {_number(metrics['out_of_distribution'])} |")
    rows += [
        f"| auroc of a {name.replace('_', ' on ', 1)} | "
        f"{_number(baseline['auroc'])}{_interval(baseline['auroc_ci'])} |"
        for name, baseline in metrics["baselines"].items()
    ]
    return rows


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _interval(bounds: Any) -> str:
    return "" if bounds is None else f" ({bounds[0]:.3f}–{bounds[1]:.3f})"
