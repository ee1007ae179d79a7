"""`medcli classify`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medcli.cli.inputs import exit_status, found_scans
from medcli.cli.options import AsJson, HidePaths, Model, Overwrite, Scans, TaskName
from medcli.cli.output import (
    Names,
    failure_json,
    note,
    print_json,
    say,
    shorten,
    show_failure,
    stdout,
    warn,
    write_csv,
)
from medcli.files import check_file
from medcli.records import Failure, Prediction, Task, plain

if TYPE_CHECKING:
    from rich.table import Table

    from medcli.models.package import ModelPackage


def classify(
    scans: Scans,
    model: Model = None,
    task: TaskName = None,
    as_json: AsJson = False,
    csv: Annotated[
        Path | None,
        typer.Option("--csv", metavar="FILE", help="Write a table as CSV.", show_default=False),
    ] = None,
    overwrite: Overwrite = False,
    hide_paths: HidePaths = False,
) -> None:
    """Predict the class of each scan.

    Without --model the newest run answers. A bad file is named and the others go on.
    Example: medcli classify chest.dcm series/ --json
    """
    from medcli.imaging.batch import read_all
    from medcli.inference.predictor import Predictor
    from medcli.models.locate import find_model
    from medcli.models.package import load_package

    if csv is not None:
        check_file(csv, overwrite=overwrite)
    predictor = Predictor(load_package(find_model(model, task)))
    describe_model(predictor.package)
    names = Names(hide=hide_paths)
    shown = []
    for result in predictor.predict(scan for _, scan in read_all(found_scans(scans))):
        shown.append(result)
        if as_json:
            print_json(prediction_json(result, names))
        elif isinstance(result, Failure):
            show_failure(result, names)
    predictions = [result for result in shown if isinstance(result, Prediction)]
    if predictions and not as_json:
        stdout().print(prediction_table(predictions, names))
    if csv is not None:
        write_csv(csv, [csv_row(result, predictor.package.task, names) for result in shown])
        say(f"wrote {csv}")
    sys.exit(exit_status(shown))


def describe_model(package: ModelPackage) -> None:
    """Say which model answers, and whether it knows generated pictures only."""
    note(f"model {package.path.name}, task {package.task.name}, fingerprint {package.fingerprint}")
    if package.synthetic:
        warn("synthetic: this model knows generated pictures only")


def prediction_json(result: Prediction | Failure, names: Names) -> dict[str, Any]:
    """The object of one input."""
    if isinstance(result, Failure):
        return failure_json(result, names)
    values = plain(result)
    values["path"] = names.of(result.path)
    values["files"] = names.files(result.path, result.files)
    if names.hide:
        values["scan_id"] = names.of(result.path)
    return {**values, "error": None}


def csv_row(result: Prediction | Failure, task: Task, names: Names) -> dict[str, Any]:
    """One line of the CSV; every input has one."""
    columns = ("label", "probability", *(f"p_{name}" for name in task.classes), "warnings", "error")
    row = {
        "path": names.of(result.path),
        "status": result.status,
        "task": task.name,
        **dict.fromkeys(columns, ""),
    }
    if isinstance(result, Failure):
        return {**row, "error": result.code}
    shares = {f"p_{name}": f"{share:.6f}" for name, share in result.probabilities.items()}
    return {
        **row,
        "label": result.label,
        "probability": f"{result.probability:.6f}",
        **shares,
        "warnings": " ".join(warning.code for warning in result.warnings),
    }


def prediction_table(predictions: list[Prediction], names: Names) -> Table:
    """Path, label and the probability of each class; fits 80 columns."""
    from rich.table import Table
    from rich.text import Text

    classes = list(predictions[0].probabilities)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("scan", overflow="fold")
    table.add_column("label")
    shown = classes if len(classes) <= 3 else []
    table.add_column("probability", justify="right")
    for name in shown:
        table.add_column(name, justify="right")
    table.add_column("notes")
    for result in predictions:
        codes = sorted({warning.code for warning in result.warnings})
        cells = [f"{result.probabilities[name]:.3f}" for name in shown]
        table.add_row(
            Text(shorten(names.of(result.path), 36)),
            Text(result.label, style="bold"),
            f"{result.probability:.3f}",
            *cells,
            ", ".join(codes),
        )
    return table
