"""`medcli evaluate`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from medcli.cli.classify import describe_model
from medcli.cli.inputs import exit_status
from medcli.cli.options import AsJson, EngineOption, HidePaths, Overwrite, Seed, TaskName
from medcli.cli.output import (
    Names,
    counting,
    facts_table,
    failure_json,
    note,
    number,
    print_json,
    print_table,
    show_failure,
    warn,
)
from medcli.errors import UsageError
from medcli.files import check_file, write_file

if TYPE_CHECKING:
    from rich.table import Table

    from medcli.models.package import ModelKind, ModelPackage
    from medcli.workflows.evaluating import Evaluation


class _Evaluate(TyperCommand):
    """The command, whose help says what is needed: one word alone is DATA, not MODEL."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help."""
        for parameter in self.params:
            if parameter.name == "data":
                parameter.required = True  # the parser gives a word alone to the first argument
        super().format_help(ctx, formatter)


app = typer.Typer(add_completion=False)


@app.command(cls=_Evaluate)
def evaluate(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="As of classify --model; may be left out.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="DATA", help="Manifest (.csv), class folders or MedMNIST .npz, with labels."
        ),
    ] = None,
    gallery: Annotated[
        Path | None,
        typer.Option(
            "--gallery",
            "-g",
            metavar="FOLDER",
            help="Evaluate retrieval from this gallery instead.",
            show_default=False,
        ),
    ] = None,
    task: TaskName = None,
    allow_overlap: Annotated[
        bool, typer.Option("--allow-overlap", help="Also with patients of the training part.")
    ] = False,
    report: Annotated[
        Path | None,
        typer.Option(
            "--report",
            metavar="FILE",
            help="Also write a page: curves, tables, pictures of what was decided wrongly.",
            show_default=False,
        ),
    ] = None,
    engine: EngineOption = "auto",
    overwrite: Overwrite = False,
    seed: Seed = 0,
    as_json: AsJson = False,
    hide_paths: HidePaths = False,
) -> None:
    """Measure a model on labelled scans, with intervals over patients.

    Without MODEL the newest run on real data is measured, else the bundled model of the task.
    Scans of the test part count, else the model's own held-out patients, else all. Of a model
    of several tasks the one counts that the data are about, or that --task names. A detector is
    measured on the boxes of a manifest: AP50, AP50-95, recall at 1, 4 and 8 false boxes a slice.

    Example: medcli evaluate runs/lung test.csv --report lung.html
    """
    from medcli.data.presets import is_detection
    from medcli.inference.predictor import Predictor
    from medcli.models.bundled import is_shared
    from medcli.models.locate import open_model
    from medcli.workflows.evaluating import evaluate as evaluate_classifier
    from medcli.workflows.evaluating_retrieval import evaluate_retrieval
    from medcli.workflows.task_choice import task_of_data

    names = Names(hide=hide_paths)
    if report is not None:
        if gallery is not None:
            raise UsageError("--report is about a classifier, --gallery about retrieval")
        check_file(report, overwrite=overwrite)
    if model is None:
        raise UsageError("Missing argument 'DATA'", "See `medcli evaluate --help`")
    named, inputs = (model, data) if data else (None, [model])
    kind: ModelKind = "detection" if is_detection(task) else "classification"
    package = open_model(named, task, kind if named is None else None)
    if package.kind == "detection":
        if gallery is not None or report is not None:
            raise UsageError("--gallery and --report are about models that classify scans")
        numbers = _detector_numbers(package, inputs, allow_overlap, seed)
        raise typer.Exit(_show_numbers(numbers, box_metrics_table, names, as_json=as_json))
    if named is None and task is None and gallery is None and is_shared(package):
        package = open_model(None, task_of_data(package, inputs))
    predictor = Predictor(package, engine, note)
    describe_model(predictor.package, names, chosen=named is not None)
    with counting("evaluating") as on_scan:
        if gallery is not None:
            result = evaluate_retrieval(predictor, gallery, inputs, seed=seed, on_scan=on_scan)
        else:
            result = evaluate_classifier(
                predictor,
                inputs,
                allow_overlap=allow_overlap,
                pictures=report is not None,
                seed=seed,
                on_scan=on_scan,
            )
    table = metrics_table if gallery is None else retrieval_table
    status = _show_numbers(result, table, names, as_json=as_json)
    if report is not None:
        write_report(report, predictor.package, result, seed)
    raise typer.Exit(status)


def _detector_numbers(
    package: ModelPackage, data: list[str], allow_overlap: bool, seed: int
) -> Evaluation:
    """Measure a detector."""
    from medcli.inference.detector import Detector
    from medcli.workflows.evaluating_boxes import evaluate_boxes

    with counting("evaluating") as on_scan:
        return evaluate_boxes(
            Detector(package), data, allow_overlap=allow_overlap, seed=seed, on_scan=on_scan
        )


def _show_numbers(
    result: Evaluation,
    table: Callable[[dict[str, Any]], Table],
    names: Names,
    *,
    as_json: bool,
) -> int:
    """Warnings and notes on stderr, the numbers on stdout; the exit status."""
    if not names.hide:
        for message in result.warnings:
            warn(message)
    for message in result.notes:
        note(message)
    for failure in result.failures:
        show_failure(failure, names)
    for warning in result.metrics.get("warnings", []):
        warn(warning["message"])
    if as_json:
        told = [failure_json(failure, names) for failure in result.failures]
        print_json({**result.metrics, "failures": told})
    else:
        print_table(table(result.metrics))
    return exit_status(result.failures, 1)


def write_report(path: Path, package: ModelPackage, result: Evaluation, seed: int) -> None:
    """Write the page of an evaluation; it names no scan and no path."""
    from medcli.workflows.reporting import evaluated_page

    assert result.answers is not None  # those of a classifier
    notes = list(result.notes)
    if result.failures:
        notes.append(f"{len(result.failures)} inputs could not be read and are left out")
    page = evaluated_page(
        package, result.metrics, result.answers, result.mistakes, notes=notes, seed=seed
    )
    write_file(path, page.encode("utf-8"))
    note(f"report written to {path.name}")


def metrics_table(metrics: dict[str, Any]) -> Table:
    """Each number with its interval, then the baselines and the confusion matrix."""
    scans = f"{metrics['n']} scans, {metrics['n_patients']} patients"
    rows = [("part", f"{metrics['split']}: {scans}")]
    for name in ("auroc", "accuracy"):
        rows.append((TITLES.get(name, name), number(metrics[name], metrics[f"{name}_ci"])))
    rows.insert(2, ("AUROC, DeLong", number(metrics["auroc"], metrics["auroc_ci_delong"])))
    for name in ("sensitivity", "specificity", "ppv", "npv", "threshold"):
        rows.append((TITLES.get(name, name), number(metrics[name], metrics.get(f"{name}_ci"))))
    for name in ("average_precision", "brier"):
        rows.append((TITLES.get(name, name), number(metrics[name], metrics.get(f"{name}_ci"))))
    by_chance = number(metrics["ece_by_chance"])
    rows.append((TITLES["ece"], f"{number(metrics['ece'])}, {by_chance} by chance alone"))
    if sets := metrics["label_sets"]:
        covered = f"{number(sets['coverage'], sets['coverage_ci'])} hold the class"
        rows.append((f"label sets, {sets['target']:g}", f"{covered}, {sets['one']:.3f} hold one"))
    rows.append(("out of distribution", number(metrics["out_of_distribution"])))
    if metrics["router_accuracy"] is not None:
        rows.append(("given to this task", number(metrics["router_accuracy"])))
    for name, site in (metrics["per_site"] or {}).items():
        rows.append((f"site {name}", _site(site)))
    for name, baseline in metrics["baselines"].items():
        told = f"AUROC {number(baseline['auroc'], baseline.get('auroc_ci'))}"
        if "accuracy" in baseline:
            told += f", accuracy {number(baseline['accuracy'])}"
        rows.append((f"baseline {name}", told))
    if metrics["confusion"] is None:
        rows.insert(3, ("every finding right", number(metrics["exact"])))
        rows += [(name, _finding(own)) for name, own in metrics["per_class"].items()]
        return facts_table(rows)
    for label, row in zip(metrics["classes"], metrics["confusion"], strict=True):
        told = ", ".join(f"{n} as {c}" for c, n in zip(metrics["classes"], row, strict=True))
        rows.append((f"true {label}", told))
    return facts_table(rows)


def box_metrics_table(metrics: dict[str, Any]) -> Table:
    """The numbers of a detector, each with its interval."""
    about = f"{metrics['n_scans']} scans, {metrics['n_patients']} patients"
    seen = f"{metrics['n_images']} slices with {metrics['n_boxes']} boxes"
    bounds = metrics["ci"]
    rows = [("part", f"{metrics['split']}: {about}, {seen}")]
    rows += [(TITLES[n], number(metrics[n], bounds[n])) for n in ("ap50", "ap50_95")]
    for limit, recall in metrics["recall_at_fppi"].items():
        told = number(recall, bounds["recall_at_fppi"][limit])
        rows.append((f"recall, {limit} false", told))
    return facts_table(rows)


def _finding(metrics: dict[str, Any]) -> str:
    """The numbers of one of several findings."""
    told = [f"{metrics['n']} scans", f"AUROC {number(metrics['auroc'], metrics['auroc_ci'])}"]
    names = ("average_precision", "sensitivity", "specificity", "threshold")
    return ", ".join([*told, *(f"{TITLES.get(n, n)} {number(metrics[n])}" for n in names)])


def _site(metrics: dict[str, Any]) -> str:
    """The numbers of one site."""
    told = [f"{metrics['n']} scans", f"AUROC {number(metrics['auroc'], metrics['auroc_ci'])}"]
    names = ("sensitivity", "specificity", "ppv", "npv")
    return ", ".join([*told, *(f"{TITLES.get(n, n)} {number(metrics[n])}" for n in names)])


TITLES = {
    "auroc": "AUROC",
    "ap50": "AP50",
    "ap50_95": "AP50–95",
    "average_precision": "average precision",
    "ppv": "PPV",
    "npv": "NPV",
    "ece": "calibration error",
    "brier": "Brier score",
}


def retrieval_table(metrics: dict[str, Any]) -> Table:
    """Each retrieval metric with its interval and what chance would give; then the classes,
    the baselines, and what neighbours share.
    """
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("metric")
    table.add_column("value")
    table.add_column("chance", justify="right")
    queries = f"{metrics['n_queries']} in {metrics['n_gallery']} scans"
    table.add_row("queries", queries, "")
    for name, chance in metrics["chance"].items():
        table.add_row(name, number(metrics[name], metrics["ci"][name]), number(chance))
    if metrics["ann_recall_at_10"] is not None:
        table.add_row("hits of exact search found", number(metrics["ann_recall_at_10"]), "")
    macro = metrics["macro"]
    for name in _TOLD_BY_CLASS:
        told = number(macro[name], macro["ci"][name])
        table.add_row(f"{name}, macro", told, number(macro["chance"][name]))
    for label, each in metrics["per_class"].items():
        for name in _TOLD_BY_CLASS:
            told = number(each[name], each["ci"][name])
            table.add_row(f"{name}, {label}", told, number(each["chance"][name]))
    for title, each in metrics["baselines"].items():
        for name in _TOLD_BY_CLASS:
            told = number(each[name], each["ci"][name])
            table.add_row(f"{name}, {title.replace('_', ' ')}", told, "")
    for name, each in metrics["shortcuts"].items():
        table.add_row(f"first 5 share {name}", number(each["share"]), number(each["chance"]))
    return table


_TOLD_BY_CLASS = ("map_at_5", "acc_at_1")
