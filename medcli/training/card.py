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
| network | {network}, {dim}-dimensional embedding of unit length |
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
        network=package.model.network,
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
