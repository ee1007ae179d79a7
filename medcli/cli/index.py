"""`medcli index`: build a gallery, add to it, look at it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from medcli.cli.classify import describe_model
from medcli.cli.inputs import exit_status, found_scans
from medcli.cli.options import (
    AsJson,
    GalleryPath,
    HidePaths,
    LockTimeout,
    Model,
    Overwrite,
    TaskName,
)
from medcli.cli.output import (
    Names,
    counting,
    failure_json,
    note,
    print_json,
    say,
    show_failure,
    stdout,
)
from medcli.home import default_gallery
from medcli.records import Case, Failure

if TYPE_CHECKING:
    from medcli.workflows.indexing import IndexReport

app = typer.Typer(help="Build and look at a gallery: the searchable archive.", no_args_is_help=True)

Scans = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[SCAN]...",
        help="Files, folders, globs, a manifest (.csv) or - for a list on stdin; without: "
        "the current folder.",
        show_default=False,
    ),
]
Labels = Annotated[
    Literal["manifest", "folder"],
    typer.Option(help="Where labels come from: the manifest, or the names of class folders."),
]


@app.command()
def build(
    scans: Scans = None,
    gallery: GalleryPath = None,
    model: Model = None,
    task: TaskName = None,
    labels: Labels = "manifest",
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    hide_paths: HidePaths = False,
) -> None:
    """Make a gallery of scans.

    It keeps a copy of the model; later searches use that. Example: medcli index build scans/
    -g archive
    """
    from medcli.inference.predictor import Predictor
    from medcli.models.locate import find_model
    from medcli.models.package import load_package
    from medcli.retrieval.folder import check_target
    from medcli.workflows.indexing import build_gallery

    target = gallery or default_gallery()
    check_target(target, overwrite=overwrite)
    predictor = Predictor(load_package(find_model(model, task)))
    describe_model(predictor.package)
    cases = _labelled(scans, labels)
    names = Names(hide=hide_paths)
    with counting("indexing") as on_scan:
        report = build_gallery(target, predictor, cases, overwrite=overwrite, on_scan=on_scan)
    show_report(target, report, as_json=as_json, names=names)


@app.command()
def add(
    scans: Scans = None,
    gallery: GalleryPath = None,
    model: Model = None,
    labels: Labels = "manifest",
    lock_timeout: LockTimeout = 60.0,
    as_json: AsJson = False,
    hide_paths: HidePaths = False,
) -> None:
    """Add scans to a gallery; what it holds already is left alone.

    Example: medcli index add new/ -g archive
    """
    from medcli.models.locate import find_model
    from medcli.models.package import load_package
    from medcli.workflows.indexing import add_to_gallery
    from medcli.workflows.searching import open_gallery

    opened, predictor = open_gallery(
        gallery or default_gallery(), write=True, lock_timeout=lock_timeout
    )
    names = Names(hide=hide_paths)
    with opened:
        if model is not None:
            opened.check_fingerprint(load_package(find_model(model)).fingerprint)
        cases = _labelled(scans, labels)
        with counting("indexing") as on_scan:
            report = add_to_gallery(opened, predictor, cases, on_scan=on_scan)
    show_report(opened.path, report, as_json=as_json, names=names)


@app.command()
def info(gallery: GalleryPath = None, as_json: AsJson = False) -> None:
    """Say what a gallery holds.

    Example: medcli index info -g archive
    """
    from medcli.retrieval.gallery import Gallery

    with Gallery.open(gallery or default_gallery()) as opened:
        facts = opened.info()
    if as_json:
        print_json(facts)
    else:
        stdout().print(facts_table(facts))


def _labelled(scans: list[str] | None, labels: str) -> list[Case | Failure]:
    """The cases of the inputs, with the label of their class folder if that is asked for."""
    from medcli.data.sources import class_folder_labels

    if not scans:
        note(f"indexing the current folder, {Path.cwd()}")
    inputs = scans or ["."]
    cases = found_scans(inputs)
    if labels == "folder":
        for root in filter(os.path.isdir, inputs):
            cases = class_folder_labels(cases, root)
    return cases


def show_report(path: Path, report: IndexReport, *, as_json: bool, names: Names) -> None:
    """Counts, in JSON every failure, and the exit status."""
    stored = report.stored
    failed = [failure for failure in report.failures if failure.status == "failed"]
    counts: dict[str, Any] = {
        "added": stored.added,
        "updated": stored.updated,
        "unchanged": stored.unchanged,
        "failed": len(failed),
        "skipped": len(report.failures) - len(failed),
    }
    for warning in stored.warnings:
        note(warning.message)
    if not as_json:
        for failure in report.failures:
            show_failure(failure, names)
    if as_json:
        failures = [failure_json(failure, names) for failure in report.failures]
        print_json({"gallery": str(path), **counts, "failures": failures})
    else:
        told = [f"{count} {name}" for name, count in counts.items() if count or name == "added"]
        say(", ".join(told))
        stdout().print(str(path), soft_wrap=True, markup=False)
    sys.exit(exit_status(report.failures))


def facts_table(facts: dict[str, Any]) -> Any:
    """The facts of a gallery as two columns."""
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in facts.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {count}" for key, count in value.items())
        elif name == "bytes":
            value = f"{value / 1e6:.1f} MB"
        table.add_row(name.replace("_", " "), str(value))
    return table
