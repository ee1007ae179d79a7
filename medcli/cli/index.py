"""`medcli index`: build a gallery, add to it, look at it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medcli.cli.classify import describe_model
from medcli.cli.inputs import exit_status, labelled_scans
from medcli.cli.options import (
    AsJson,
    GalleryPath,
    HidePaths,
    Labels,
    LockTimeout,
    Model,
    Overwrite,
    TaskName,
    TimePoint,
)
from medcli.cli.output import (
    Names,
    counting,
    facts_table,
    failure_json,
    keep_and_show,
    note,
    print_json,
    print_line,
    print_table,
    say,
    show_warnings,
    warn,
)
from medcli.errors import ScanError
from medcli.home import default_gallery
from medcli.records import Case, Failure

if TYPE_CHECKING:
    from medcli.retrieval.entries import AddReport

app = typer.Typer(help="Build and look at a gallery: the searchable archive.", no_args_is_help=True)

Scans = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="SCAN",
        help="Files, folders, globs, a manifest (.csv) or - for a list on stdin; without: "
        "the current folder, by its manifest.csv where it has one.",
        show_default=False,
    ),
]


@app.command()
def build(
    scans: Scans = None,
    gallery: GalleryPath = None,
    model: Model = None,
    task: TaskName = None,
    labels: Labels = "manifest",
    time_point: TimePoint = None,
    overwrite: Overwrite = False,
    lock_timeout: LockTimeout = 60.0,
    as_json: AsJson = False,
    hide_paths: HidePaths = False,
) -> None:
    """Make a gallery of scans.

    It keeps a copy of the model, which later searches use, and appears once it is whole.

    Example: medcli index build scans/ -g archive --labels folder
    """
    from medcli.inference.predictor import Predictor
    from medcli.models.locate import find_model
    from medcli.models.package import load_package
    from medcli.retrieval.entries import AddReport
    from medcli.retrieval.folder import check_target
    from medcli.workflows.indexing import build_gallery

    target = gallery or default_gallery()
    check_target(target, overwrite=overwrite)
    names = Names(hide=hide_paths)
    predictor = Predictor(load_package(find_model(model, task)))
    describe_model(predictor.package, names)
    failures: list[Failure] = []
    stored = AddReport()
    try:
        with counting("indexing") as on_scan:
            report = build_gallery(
                target,
                predictor,
                _labelled(scans, labels, names, time_point),
                overwrite=overwrite,
                lock_timeout=lock_timeout,
                on_scan=on_scan,
                on_failure=keep_and_show(failures, names),
            )
            stored = report.stored
    except ScanError:  # none could be read, and each that failed was named
        note("no gallery was made")
    show_report(target, stored, failures, as_json=as_json, names=names)
    raise typer.Exit(exit_status(failures, stored.added))


@app.command()
def add(
    scans: Scans = None,
    gallery: GalleryPath = None,
    model: Model = None,
    labels: Labels = "manifest",
    time_point: TimePoint = None,
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

    target = gallery or default_gallery()
    opened, predictor = open_gallery(target, write=True, lock_timeout=lock_timeout)
    names = Names(hide=hide_paths)
    failures: list[Failure] = []
    with opened:
        if model is not None:
            opened.check_fingerprint(load_package(find_model(model)).fingerprint)
        cases = _labelled(scans, labels, names, time_point)
        with counting("indexing") as on_scan:
            report = add_to_gallery(
                opened, predictor, cases, on_scan=on_scan, on_failure=keep_and_show(failures, names)
            )
    stored = report.stored
    show_report(target, stored, failures, as_json=as_json, names=names)
    answered = stored.added + stored.updated + stored.unchanged
    raise typer.Exit(exit_status(failures, answered))


@app.command()
def info(
    gallery: GalleryPath = None, as_json: AsJson = False, hide_paths: HidePaths = False
) -> None:
    """Say what a gallery holds.

    Example: medcli index info -g archive
    """
    from medcli.retrieval.gallery import Gallery

    with Gallery.open(gallery or default_gallery()) as opened:
        facts = opened.info()
    if hide_paths:
        facts |= {"path": None, "model": None}
    if as_json:
        print_json(facts)
    else:
        print_table(facts_table((name, _told(name, facts[name])) for name in FACTS))


FACTS = (
    "path",
    "scans",
    "slices",
    "vectors",
    "classes",
    "unlabelled",
    "modalities",
    "patients",
    "unknown_patients",
    "fingerprint",
    "generation",
    "created",
    "bytes",
)


def _told(name: str, value: Any) -> str:
    """A fact of a gallery in words."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {count}" for key, count in value.items()) or "–"
    if name == "bytes":
        return f"{value / 1e6:.1f} MB"
    return "–" if value is None else str(value)


def _labelled(
    scans: list[str] | None, labels: str, names: Names, time_point: int | None
) -> list[Case | Failure]:
    """The cases of the inputs, by default of the current folder, with their labels."""
    cases = labelled_scans(scans or [_here(labels, names)], labels, names, time_point)
    for case in cases:
        if isinstance(case, Case) and case.label is None:
            unclear = [each for each in case.warnings if each.code == "label_unclear"]
            show_warnings(case.path, unclear, names)
    return cases


def _here(labels: str, names: Names) -> str:
    """What is indexed when nothing is named: the current folder, by its manifest if it has one."""
    from medcli.data.sources import folder_manifest

    folder = "the current folder" if names.hide else f"the current folder, {Path.cwd()}"
    manifest = folder_manifest(".") if labels == "manifest" else None
    if manifest is None:
        note(f"indexing {folder}")
        return "."
    note(f"indexing the scans that {manifest} names in {folder}; name . to take every scan there")
    return str(manifest)


def show_report(
    path: Path, stored: AddReport, failures: Sequence[Failure], *, as_json: bool, names: Names
) -> None:
    """Counts; in JSON every failure with them."""
    failed = sum(failure.status == "failed" for failure in failures)
    counts = {
        "added": stored.added,
        "updated": stored.updated,
        "unchanged": stored.unchanged,
        "failed": failed,
        "skipped": len(failures) - failed,
    }
    for warning in stored.warnings:
        warn(f"{warning.message} [{warning.code}]")
    if as_json:
        told = [failure_json(failure, names) for failure in failures]
        print_json({"gallery": names.shown(path), **counts, "failures": told})
        return
    say(
        ", ".join(f"{counts[what]} {what}" for what in counts if counts[what] and what != "skipped")
        or "nothing added"
    )
    if stored.added + stored.updated + stored.unchanged and not names.hide:
        print_line(str(path))
