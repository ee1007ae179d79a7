"""The model card of several tasks in one model, and of findings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from medcli.evaluation.out_of_distribution import BUDGET
from medcli.models.package import ModelPackage
from medcli.training.card_cells import interval, run_facts, scaling, split_row, value

_CARD = """\
# {title}

{facts}

## Data

Parts never share a patient; scans of unknown patients count as one patient each.

{splits}

{numbers}

## Limits

The numbers hold for data like those above. Another scanner, site, population or way of
cropping can change them without a sign. The probabilities were calibrated on the validation
part by {scalings}.
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


def joint_card(package: ModelPackage) -> str:
    """The card as Markdown, from what `model.json` holds."""
    provenance = package.provenance
    coverage = package.heads[0].calibration.coverage
    return _CARD.format(
        title=title(package),
        facts=run_facts(package),
        within=1 - BUDGET,
        sets="" if package.tasks[0].multi_label else _SETS.format(coverage=coverage),
        scalings=_scalings(package),
        splits="\n\n".join(_split_tables(provenance["split"])),
        numbers="\n\n".join(_numbers(package)),
        routing=_ROUTING if package.router else "",
    )


def title(package: ModelPackage) -> str:
    """The tasks with their classes."""
    return "; ".join(f"{task.name}: {' · '.join(task.classes)}" for task in package.tasks)


def _scalings(package: ModelPackage) -> str:
    """How the probabilities of each task were calibrated."""
    if package.tasks[0].multi_label:
        return "a scale and an offset for each finding (Platt)"
    each = [
        f"{scaling(head.calibration, head.task)} for {head.task.name}" for head in package.heads
    ]
    if package.router is None:
        return scaling(package.calibration, package.task)
    return "; ".join([*each, f"a temperature of {package.router.temperature:.3f} for the router"])


def _split_tables(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A table of the parts for each task."""
    for task in dict.fromkeys(row["task"] for row in rows):
        head = f"| {task or 'part'} | patients | scans | per class |\n|---|---|---|---|"
        own = [split_row(row) for row in rows if row["task"] == task]
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
        accuracy=value(router["accuracy"]),
        interval=interval(router["accuracy_ci"]),
        names=" | ".join(f"given to {task}" for task in router["tasks"]),
        rules="---|" * len(router["tasks"]),
        rows="\n".join(
            f"| {task} | {' | '.join(map(str, counts))} |"
            for task, counts in zip(router["tasks"], router["confusion"], strict=True)
        ),
    )


def _finding_table(per_class: Mapping[str, Any]) -> str:
    """The numbers of each finding; those above are their means."""
    names = ("average_precision", "sensitivity", "specificity", "ppv", "npv", "threshold")
    head = ["finding", "scans", "auroc", *(name.replace("_", " ") for name in names)]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for finding, own in per_class.items():
        auroc = f"{value(own['auroc'])}{interval(own['auroc_ci'])}"
        cells = [finding, str(own["n"]), auroc, *(value(own[name]) for name in names)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _metric_rows(metrics: Any) -> list[str]:
    rows = [
        f"| {name} | {value(metrics[name])}{interval(metrics.get(f'{name}_ci'))} |"
        for name in ("auroc", "accuracy")
    ]
    rows.insert(1, f"| auroc, DeLong | {interval(metrics['auroc_ci_delong']).strip() or '–'} |")
    at_threshold = ("sensitivity", "specificity", "ppv", "npv", "threshold")
    names = (*at_threshold, "average_precision", "brier")
    rows += [f"| {name.replace('_', ' ')} | {value(metrics[name])} |" for name in names]
    by_chance = value(metrics.get("ece_by_chance"))
    rows.append(f"| ece (by chance alone) | {value(metrics['ece'])} ({by_chance}) |")
    rows += [
        f"| {name} alone, logistic regression: auroc | "
        f"{value(baseline['auroc'])}{interval(baseline['auroc_ci'])} |"
        for name, baseline in metrics["baselines"].items()
        if not name.startswith("perceptron")
    ]
    rows += [
        f"| site {name}: auroc | {value(site['auroc'])}{interval(site['auroc_ci'])} |"
        for name, site in (metrics["per_site"] or {}).items()
    ]
    if metrics["label_sets"] is None:
        flagged = value(metrics["out_of_distribution"])
        rows.append(f"| every finding right | {value(metrics['exact'])} |")
        rows.append(f"| flagged as out of distribution | {flagged} |")
        return rows
    sets = metrics["label_sets"]
    covered = f"{value(sets['coverage'])}{interval(sets['coverage_ci'])}"
    rows.append(f"| label sets hold the class (aim {sets['target']:g}) | {covered} |")
    rows.append(f"| label sets of exactly one class | {value(sets['one'])} |")
    rows.append(f"| flagged as out of distribution | {value(metrics['out_of_distribution'])} |")
    rows += [
        f"| auroc of a {name.replace('_', ' on ', 1)} | "
        f"{value(baseline['auroc'])}{interval(baseline['auroc_ci'])} |"
        for name, baseline in metrics["baselines"].items()
        if name.startswith("perceptron")
    ]
    return rows
