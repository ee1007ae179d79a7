"""`medcli models`: look at trained models and hand them on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medcli.cli.options import AsJson, HidePaths, Overwrite
from medcli.cli.output import Names, note, number, print_json, print_line, print_table, warn
from medcli.cli.streams import visible

if TYPE_CHECKING:
    from rich.table import Table

    from medcli.models.package import ModelPackage
    from medcli.models.shelf import ShelfEntry
    from medcli.records import Task

app = typer.Typer(
    help="List, show and export trained models.", no_args_is_help=True, add_completion=False
)

ModelName = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A run's name or folder, a model package, a bundled model (nodule, lung, gi, "
        "shared) or 'latest'.",
        show_default=False,
    ),
]


@app.command("list")
def list_models(as_json: AsJson = False, hide_paths: HidePaths = False) -> None:
    """List the models of the medcli home, newest first, then the bundled ones.

    Damaged ones are named and passed over. With --json one object a model.

    Example: medcli models list
    """
    from medcli import home
    from medcli.home import runs_folder
    from medcli.models.shelf import shelf

    names = Names(hide=hide_paths)
    entries = [*shelf(), *shelf(home.ZOO)]
    if as_json:
        for entry in entries:
            print_json(entry_json(entry, names))
        return
    usable = [entry for entry in entries if entry.package is not None]
    if usable:
        print_table(model_table(usable, names))
    else:
        note(f"no model in {names.shown(runs_folder()) or 'the medcli home'}; train one first")
    for entry in entries:
        if entry.problem:
            warn(entry.problem if not names.hide else f"{names.of(entry.name)}: damaged")


@app.command()
def show(model: ModelName, as_json: AsJson = False, hide_paths: HidePaths = False) -> None:
    """Show a model's card, after comparing every file with its checksum.

    Example: medcli models show nodule
    """
    from medcli.models.bundled import is_bundled
    from medcli.models.locate import find_model
    from medcli.models.package import CARD, MANIFEST, load_package

    package = load_package(find_model(model, kind=None), None)
    if as_json:
        files = json.loads((package.path / MANIFEST).read_text(encoding="utf-8"))["files"]
        print_json({**package_json(package, Names(hide=hide_paths)), "files": files})
        return
    print_card((package.path / CARD).read_text(encoding="utf-8"))
    if is_bundled(package) and package.path.name != model:
        note(f"{model} is answered by the bundled model {package.path.name}")
    note("every file has its checksum")


@app.command()
def export(
    model: ModelName,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE.onnx|FILE.zip|FOLDER",
            help="The graph with its metadata, or the whole package.",
            show_default=False,
        ),
    ],
    without_splits: Annotated[
        bool,
        typer.Option(
            "--without-splits",
            help="Leave out the lines about single scans: hashes and held-out answers.",
        ),
    ] = False,
    overwrite: Overwrite = False,
) -> None:
    """Write a model for others: its ONNX graph, or the package as a folder or zip archive.

    The graph carries classes, preprocessing and calibration as metadata, and is compared with
    the package's own.

    Example: medcli models export latest -o nodule.onnx
    """
    from medcli.models.locate import find_model
    from medcli.models.package import SPLITS, load_package
    from medcli.workflows.exporting import export_model

    package = load_package(find_model(model, kind=None), None)
    export_model(package, output, without_splits=without_splits, overwrite=overwrite)
    whole = output.suffix.lower() != ".onnx" and not without_splits
    if whole and (package.path / SPLITS).is_file():
        note(
            f"{SPLITS} has hashes of the pixels and patients of the training, with which medcli "
            "keeps training patients out of evaluations; --without-splits leaves it out"
        )
    if package.synthetic:
        warn("synthetic: trained on generated pictures, it says nothing about a patient")
    print_line(str(output))


def entry_json(entry: ShelfEntry, names: Names) -> dict[str, Any]:
    """One model of a list; a damaged one has `status` and `error` only."""
    if entry.package is None:
        message = None if names.hide else entry.problem
        return {
            "name": names.of(entry.name),
            "path": names.shown(entry.path),
            "status": "damaged",
            "error": {"code": "damaged", "message": message},
        }
    from medcli.models.bundled import is_bundled

    package, metrics = entry.package, entry.package.metrics
    return {
        "name": names.of(entry.name),
        "path": names.shown(entry.path.absolute()),
        "status": "ok",
        "tasks": [_task_json(package, task) for task in package.tasks],
        "split": metrics.get("split"),
        "created": package.created,
        "size": entry.size,
        "synthetic": package.synthetic,
        "bundled": is_bundled(package),
        "model": package.fingerprint,
    }


def _task_json(package: ModelPackage, task: Task) -> dict[str, Any]:
    """One task of a model and how well it does there."""
    own = package.only(task.name).metrics
    return {
        "task": task.name,
        "classes": task.classes,
        "positive": task.positive,
        "auroc": own.get("auroc"),
        "auroc_ci": own.get("auroc_ci"),
        **({"ap50": own["ap50"]} if package.kind == "detection" else {}),
    }


def package_json(package: ModelPackage, names: Names) -> dict[str, Any]:
    """Everything `model.json` says but the salt of the patients' hashes."""
    return {
        "name": names.of(package.path.name),
        "path": names.shown(package.path.absolute()),
        "status": "ok",
        "model": package.fingerprint,
        "kind": package.kind,
        "tasks": package.tasks,
        "created": package.created,
        "synthetic": package.synthetic,
        "network": package.model.to_json(),
        "preprocess": package.preprocess.to_json(),
        "calibration": {head.task.name: head.calibration.to_json() for head in package.heads},
        **({"detection": package.detection.to_json()} if package.detection else {}),
        "provenance": dict(package.provenance),
        "metrics": dict(package.metrics),
    }


def model_table(entries: Sequence[ShelfEntry], names: Names) -> Table:
    """One line a model: what it is for, how good it was, how old and large it is."""
    from rich.table import Table

    from medcli.models.bundled import is_bundled

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("name", "task", "classes", "AUROC", "created", "MB", ""):
        right = title in ("AUROC", "MB")
        table.add_column(
            title, justify="right" if right else "left", overflow="fold", no_wrap=title == "AUROC"
        )
    for entry in entries:
        package = entry.package
        assert package is not None  # damaged ones are told beside the table
        kinds = {"synthetic": package.synthetic, "bundled": is_bundled(package)}
        notes = [word for word, so in kinds.items() if so]
        if package.metrics.get("folds"):
            notes.append(f"{len(package.metrics['folds'])} folds")
        whole = names.of(entry.name), package.created[:10], f"{entry.size / 1e6:.0f}"
        for place, task in enumerate(package.tasks):
            name, created, size = ("", "", "") if place else whole
            auroc = _quality(package, task)
            told = "" if place else ", ".join(notes)
            table.add_row(name, task.name, ", ".join(task.classes), auroc, created, size, told)
    return table


def _quality(package: ModelPackage, task: Task) -> str:
    """The number that a model is known by: AUROC, of a detector AP50."""
    metrics = package.only(task.name).metrics
    if package.kind == "detection":
        return f"{number(metrics.get('ap50'))} AP50"
    return number(metrics.get("auroc"))


def print_card(text: str) -> None:
    """A card on stdout: laid out on a terminal, else as the Markdown it is."""
    import sys

    lines = [visible(line) for line in text.rstrip("\n").split("\n")]
    if not sys.stdout.isatty():
        for line in lines:
            print_line(line)
        return
    from rich.markdown import Markdown

    from medcli.cli.console import stdout

    stdout().print(Markdown("\n".join(lines)))
