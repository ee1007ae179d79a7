"""The model card of a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from medcli.evaluation.out_of_distribution import BUDGET
from medcli.models.package import ModelPackage

_CARD = """\
# {title}

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

{splits}

{numbers}

## Limits

The numbers hold for data like those above. Another scanner, site, population or way of
cropping can change them without a sign. The probabilities were calibrated on the validation
part by {temperatures}.
The same validation part chose the weights, so what holds there holds elsewhere only nearly; the
table shows what was found.{sets} Predictive values hold at the prevalence of the scans they were
measured on. A scan is flagged as out of distribution where tone, texture, colour or layout of the
picture lie further from the training scans than {within:.0%} of the validation scans do; what
looks alike and is foreign by its content is not noticed.{routing}
"""

_NUMBERS = """\
## {heading} on the {part} part

Intervals: 95 %, bootstrap over patients. The threshold was fixed on the validation part.

| metric | value |
|---|---|
{rows}"""

_ROUTER = """\
## The router on the {part} part

It says which task a scan belongs to; it was right for {accuracy}{interval} of the scans.

| scans of | {names} |
|---|{rules}
{rows}"""

_SETS = """ Label sets aim to hold the true class of
{coverage:.0%} of the scans of each class."""

_ROUTING = """ Every scan is
given to one of the tasks, also one that belongs to none: whether it looks like the scans of that
task is what the flag says."""


_ADAPTED = """\
# {title}

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
        title=_title(package),
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
    provenance = package.provenance
    coverage = package.heads[0].calibration.coverage
    synthetic = "\n\n**Trained on generated pictures: it says nothing about a patient.**"
    return _CARD.format(
        title=_title(package),
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
        sets="" if package.tasks[0].multi_label else _SETS.format(coverage=coverage),
        temperatures=_temperatures(package),
        splits="\n\n".join(_split_tables(provenance["split"])),
        numbers="\n\n".join(_numbers(package)),
        routing=_ROUTING if package.router else "",
    )


def _title(package: ModelPackage) -> str:
    """The tasks with their classes."""
    return "; ".join(f"{task.name}: {' · '.join(task.classes)}" for task in package.tasks)


def _temperatures(package: ModelPackage) -> str:
    """By how much the probabilities of each task were softened."""
    if package.tasks[0].multi_label:
        return "a scale and an offset for each finding (Platt)"
    if package.router is None:
        return f"one temperature, {package.calibration.temperature:.3f} (1 changes nothing)"
    each = [f"{head.calibration.temperature:.3f} for {head.task.name}" for head in package.heads]
    each.append(f"{package.router.temperature:.3f} for the router")
    return f"one temperature for each task (1 changes nothing): {', '.join(each)}"


def _split_tables(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A table of the parts for each task."""
    for task in dict.fromkeys(row["task"] for row in rows):
        head = f"| {task or 'part'} | patients | scans | per class |\n|---|---|---|---|"
        own = [_split_row(row) for row in rows if row["task"] == task]
        yield "\n".join([head, *own])


def _numbers(package: ModelPackage) -> Iterator[str]:
    """What was measured: of each task, and of the router."""
    metrics = package.metrics
    part = "held-out test" if metrics["split"] == "test" else "validation"
    if package.router is None:
        rows = "\n".join(_metric_rows(metrics))
        yield _NUMBERS.format(heading="Numbers", part=part, rows=rows)
        if package.task.multi_label:
            yield _finding_table(metrics["per_class"])
        return
    for task, own in metrics["tasks"].items():
        rows = "\n".join(_metric_rows(own))
        yield _NUMBERS.format(heading=f"Numbers of {task}", part=part, rows=rows)
    router = metrics["router"]
    yield _ROUTER.format(
        part=part,
        accuracy=_number(router["accuracy"]),
        interval=_interval(router["accuracy_ci"]),
        names=" | ".join(f"given to {task}" for task in router["tasks"]),
        rules="---|" * len(router["tasks"]),
        rows="\n".join(
            f"| {task} | {' | '.join(map(str, counts))} |"
            for task, counts in zip(router["tasks"], router["confusion"], strict=True)
        ),
    )


def _split_row(row: Mapping[str, Any]) -> str:
    per_class = ", ".join(f"{name} {count}" for name, count in row["per_class"].items())
    return f"| {row['part']} | {row['patients']} | {row['scans']} | {per_class} |"


def _finding_table(per_class: Mapping[str, Any]) -> str:
    """The numbers of each finding; those above are their means."""
    names = ("average_precision", "sensitivity", "specificity", "ppv", "npv", "threshold")
    head = ["finding", "scans", "auroc", *(name.replace("_", " ") for name in names)]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for finding, own in per_class.items():
        auroc = f"{_number(own['auroc'])}{_interval(own['auroc_ci'])}"
        cells = [finding, str(own["n"]), auroc, *(_number(own[name]) for name in names)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


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
        if not name.startswith("perceptron")
    ]
    rows += [
        f"| site {name}: auroc | {_number(site['auroc'])}{_interval(site['auroc_ci'])} |"
        for name, site in (metrics["per_site"] or {}).items()
    ]
    if metrics["label_sets"] is None:
        flagged = _number(metrics["out_of_distribution"])
        rows.append(f"| every finding right | {_number(metrics['exact'])} |")
        rows.append(f"| flagged as out of distribution | {flagged} |")
        return rows
    sets = metrics["label_sets"]
    covered = f"{_number(sets['coverage'])}{_interval(sets['coverage_ci'])}"
    rows.append(f"| label sets hold the class (aim {sets['target']:g}) | {covered} |")
    rows.append(f"| label sets of exactly one class | {_number(sets['one'])} |")
    rows.append(f"| flagged as out of distribution | {_number(metrics['out_of_distribution'])} |")
    rows += [
        f"| auroc of a {name.replace('_', ' on ', 1)} | "
        f"{_number(baseline['auroc'])}{_interval(baseline['auroc_ci'])} |"
        for name, baseline in metrics["baselines"].items()
        if name.startswith("perceptron")
    ]
    return rows


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _interval(bounds: Any) -> str:
    return "" if bounds is None else f" ({bounds[0]:.3f}–{bounds[1]:.3f})"
