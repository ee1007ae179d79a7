"""`medcli evaluate`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medcli.cli.classify import describe_model
from medcli.cli.inputs import exit_status
from medcli.cli.options import AsJson, Seed
from medcli.cli.output import Names, counting, note, print_json, show_failure, stdout, warn

if TYPE_CHECKING:
    from rich.table import Table


def evaluate(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A run folder, a model package, or 'latest'.")
    ],
    data: Annotated[
        list[str],
        typer.Argument(
            metavar="DATA...", help="Manifest (.csv), class folders or MedMNIST .npz, with labels."
        ),
    ],
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
    allow_overlap: Annotated[
        bool, typer.Option("--allow-overlap", help="Also with patients of the training part.")
    ] = False,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Measure a model on labelled scans, with intervals over patients.

    Example: medcli evaluate runs/lung test.csv --json
    """
    from medcli.inference.predictor import Predictor
    from medcli.models.locate import find_model
    from medcli.models.package import load_package
    from medcli.workflows.evaluating import evaluate as evaluate_classifier
    from medcli.workflows.evaluating import evaluate_retrieval

    predictor = Predictor(load_package(find_model(model)))
    describe_model(predictor.package)
    with counting("evaluating") as on_scan:
        if gallery is not None:
            result = evaluate_retrieval(predictor, gallery, data, seed=seed, on_scan=on_scan)
        else:
            result = evaluate_classifier(
                predictor, data, allow_overlap=allow_overlap, seed=seed, on_scan=on_scan
            )
    for message in result.notes:
        note(message)
    names = Names(hide=False)
    for failure in result.failures:
        show_failure(failure, names)
    for warning in result.metrics.pop("warnings", []):
        warn(warning["message"])
    if as_json:
        print_json(result.metrics)
    else:
        show = retrieval_table if gallery is not None else metrics_table
        stdout().print(show(result.metrics))
    sys.exit(exit_status(result.failures))


def metrics_table(metrics: dict[str, Any]) -> Table:
    """Each number with its interval, then the baselines and the confusion matrix."""
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column()
    table.add_row(
        "part", f"{metrics['split']}: {metrics['n']} scans, {metrics['n_patients']} patients"
    )
    for name in ("auroc", "accuracy"):
        table.add_row(name, number(metrics[name], metrics[f"{name}_ci"]))
    for name in ("sensitivity", "specificity", "threshold", "average_precision", "ece", "brier"):
        table.add_row(name.replace("_", " "), number(metrics[name]))
    for name, baseline in metrics["baselines"].items():
        told = f"AUROC {number(baseline['auroc'], baseline.get('auroc_ci'))}"
        if "accuracy" in baseline:
            told += f", accuracy {number(baseline['accuracy'])}"
        table.add_row(f"baseline {name}", told)
    for label, row in zip(metrics["classes"], metrics["confusion"], strict=True):
        told = ", ".join(f"{n} as {c}" for c, n in zip(metrics["classes"], row, strict=True))
        table.add_row(f"true {label}", told)
    return table


def retrieval_table(metrics: dict[str, Any]) -> Table:
    """Each retrieval metric with its interval and what chance would give."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("metric")
    table.add_column("value")
    table.add_column("chance", justify="right")
    for name, chance in metrics["chance"].items():
        table.add_row(name, number(metrics[name], metrics["ci"][name]), number(chance))
    return table


def number(value: float | None, bounds: Any = None) -> str:
    """`0.912 (0.875–0.944)`, or a dash where it is undefined."""
    if value is None:
        return "–"
    return f"{value:.3f}" + (f" ({bounds[0]:.3f}–{bounds[1]:.3f})" if bounds else "")
