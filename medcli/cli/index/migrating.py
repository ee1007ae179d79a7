"""`medcli index migrate`: another model for a gallery."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated

import typer

from medcli.cli.classify import describe_model
from medcli.cli.index.filling import show_failures_by_code
from medcli.cli.inputs import EXIT_UNREADABLE
from medcli.cli.options import AsJson, GalleryPath, HidePaths, LockTimeout, Seed, TaskName
from medcli.cli.output import (
    Names,
    counting,
    failure_json,
    keep_and_show,
    note,
    number,
    print_json,
    print_words,
    say,
    show_error,
)
from medcli.home import default_gallery
from medcli.records import Failure

if TYPE_CHECKING:
    from medcli.retrieval.migrating import Overlap
    from medcli.workflows.migrating import MigrationReport


def migrate(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="A run folder, a model package, or 'latest'.", show_default=False
        ),
    ],
    gallery: GalleryPath = None,
    task: TaskName = None,
    prune: Annotated[
        bool, typer.Option("--prune", help="Leave out the scans that cannot be embedded anew.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Compare both models, and keep the gallery as it is.")
    ] = False,
    sample: Annotated[
        int, typer.Option(metavar="N", min=1, help="Scans whose neighbours are compared.")
    ] = 200,
    seed: Seed = 0,
    lock_timeout: LockTimeout = 60.0,
    as_json: AsJson = False,
    hide_paths: HidePaths = False,
) -> None:
    """Give a gallery the vectors of another model, made from its files.

    They are made beside the gallery, which answers until they take its place. Before that
    it is told how many of the ten nearest scans are the same under both models.

    Example: medcli index migrate runs/nodule-2 -g archive --dry-run
    """
    from medcli.inference.predictor import Predictor
    from medcli.models.locate import find_model
    from medcli.models.package import load_package
    from medcli.workflows.migrating import migrate_gallery

    target = gallery or default_gallery()
    names = Names(hide=hide_paths)
    predictor = Predictor(load_package(find_model(model, task)))
    describe_model(predictor.package, names, routes=False)
    failures: list[Failure] = []
    with counting("embedding anew") as on_scan:
        report = migrate_gallery(
            target,
            predictor,
            prune=prune,
            dry_run=dry_run,
            sample=sample,
            seed=seed,
            lock_timeout=lock_timeout,
            on_scan=on_scan,
            on_failure=keep_and_show(failures, names),
            on_overlap=lambda overlap: None if as_json else _show_overlap(overlap),
        )
    if as_json:
        told = {
            **dataclasses.asdict(report),
            "failures": [failure_json(each, names) for each in failures],
        }
        print_json({"gallery": names.shown(target), **told})
    else:
        update = names.command("medcli index update", target)
        _show(report, failures, update, dry_run=dry_run)
    raise typer.Exit(EXIT_UNREADABLE if failures else 0)


def _show_overlap(overlap: Overlap) -> None:
    print_words(
        f"overlap@{overlap.k}: {number(overlap.overlap)} of the nearest scans of "
        f"{overlap.queries} scans are the same under both models"
    )
    before, after = overlap.same_label
    if before is not None:
        print_words(f"nearest scans of the same label: {number(before)} old, {number(after)} new")


def _show(report: MigrationReport, failures: list[Failure], update: str, *, dry_run: bool) -> None:
    show_failures_by_code(failures)
    if report.switched:
        left_out = f", {report.left_out} left out" if report.left_out else ""
        say(f"{report.embedded} embedded anew{left_out}; the model is now {report.fingerprints[1]}")
    elif dry_run and report.overlap is not None:
        note("the gallery is as it was")
    else:
        show_error(
            f"{len(failures)} scans cannot be embedded anew: the gallery is as it was",
            f"bring it up to date with {update}, or leave them out with --prune",
        )
