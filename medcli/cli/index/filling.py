"""`medcli index build`, `add`, `update`, `remove`: what enters a gallery and leaves it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from medcli.cli.classify import describe_model
from medcli.cli.index.choosing import tune_built
from medcli.cli.inputs import EXIT_UNREADABLE, exit_status, labelled_scans
from medcli.cli.options import (
    AsJson,
    EngineOption,
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
    failure_json,
    keep_and_show,
    meaning,
    note,
    print_json,
    print_line,
    say,
    show_failure,
    show_warnings,
    warn,
)
from medcli.errors import ScanError
from medcli.home import default_gallery
from medcli.records import Case, Failure, ScanWarning

if TYPE_CHECKING:
    from medcli.retrieval.entries import AddReport
    from medcli.workflows.updating import UpdateReport

MOST_NAMED = 5  # missing scans that are named on stderr; JSON names all

Scans = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="SCAN",
        help="Files, folders, globs, a manifest (.csv) or - for a list on stdin; without: "
        "the current folder, by its manifest.csv where it has one.",
        show_default=False,
    ),
]


def build(
    scans: Scans = None,
    gallery: GalleryPath = None,
    model: Model = None,
    task: TaskName = None,
    labels: Labels = "manifest",
    time_point: TimePoint = None,
    index: Annotated[
        Literal["exact", "hnsw", "ivfpq"],
        typer.Option(help="How it is searched; what is not exact is measured: see index tune."),
    ] = "exact",
    overwrite: Overwrite = False,
    engine: EngineOption = "auto",
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
    predictor = Predictor(load_package(find_model(model, task)), engine, note)
    describe_model(predictor.package, names, chosen=model is not None, routes=False)
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
    if stored.added and index != "exact":
        tune_built(target, index)
    raise typer.Exit(exit_status(failures, stored.added))


def add(
    scans: Scans = None,
    gallery: GalleryPath = None,
    model: Model = None,
    labels: Labels = "manifest",
    time_point: TimePoint = None,
    engine: EngineOption = "auto",
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
    opened, predictor = open_gallery(
        target, write=True, lock_timeout=lock_timeout, engine=engine, tell=note
    )
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


def update(
    scans: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SCAN",
            help="Where to look for new and moved scans; without: every stored scan is looked at.",
            show_default=False,
        ),
    ] = None,
    gallery: GalleryPath = None,
    labels: Labels = "manifest",
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove the scans whose files are gone.")
    ] = False,
    root: Annotated[
        Path | None,
        typer.Option(
            "--root",
            metavar="FOLDER",
            help="Where the folder of the scans lies now, if it was moved as a whole.",
            show_default=False,
        ),
    ] = None,
    engine: EngineOption = "auto",
    lock_timeout: LockTimeout = 60.0,
    as_json: AsJson = False,
    hide_paths: HidePaths = False,
) -> None:
    """Bring a gallery up to date with its files.

    Only scans whose pixels changed are embedded anew; moved files are known by their content.
    What is missing is named and kept, unless --prune.

    Example: medcli index update scans/ -g archive
    """
    from medcli.workflows.searching import open_gallery
    from medcli.workflows.updating import move_root, update_gallery

    target = gallery or default_gallery()
    opened, predictor = open_gallery(
        target, write=True, lock_timeout=lock_timeout, engine=engine, tell=note
    )
    names = Names(hide=hide_paths)
    failures: list[Failure] = []
    with opened:
        if root is not None:
            move_root(opened, str(root))
        cases = labelled_scans(scans, labels, names) if scans else None
        with counting("updating") as on_scan:
            report = update_gallery(
                opened,
                predictor,
                cases,
                inputs=scans or (),
                prune=prune,
                on_scan=on_scan,
                on_failure=keep_and_show(failures, names),
            )
    done = ("unchanged", "updated", "added", "moved", "pruned")
    counts = {name: getattr(report, name) for name in done}
    counts["missing"] = len(report.missing) - report.pruned
    _show_missing(report, names)
    show_counts(
        target,
        {**counts, **failed_and_skipped(failures)},
        failures,
        report.warnings,
        as_json=as_json,
        names=names,
        missing_scans=[
            {"id": each.id, "path": names.shown(each.row.path)} for each in report.missing
        ],
    )
    answered = sum(counts.values())
    raise typer.Exit(exit_status(failures, answered) if scans or failures else 0)


def _show_missing(report: UpdateReport, names: Names) -> None:
    """Scans whose files are gone, the first of them by name."""
    if not report.missing:
        return
    for each in report.missing[:MOST_NAMED]:
        place = f"scan {each.id}" if names.hide else f"scan {each.id}, {each.row.path}"
        warn(f"{place}: its files are gone" + (", it was removed" if report.pruned else ""))
    if len(report.missing) > MOST_NAMED:
        warn(f"… and of {len(report.missing) - MOST_NAMED} more")
    if not report.pruned:
        note("they are kept; name the folder they have moved to, or remove them with --prune")


def remove(
    scans: Annotated[
        list[str],
        typer.Argument(
            metavar="ID|PATH",
            help="Ids of stored scans, or paths of scans, of their files, or of folders of them.",
            show_default=False,
        ),
    ],
    gallery: GalleryPath = None,
    lock_timeout: LockTimeout = 60.0,
    as_json: AsJson = False,
    hide_paths: HidePaths = False,
) -> None:
    """Remove scans from a gallery; their files are not touched.

    To forget a patient, so that no byte stays, there is index forget.

    Example: medcli index remove 17 scans/old -g archive
    """
    from medcli.retrieval.gallery import Gallery
    from medcli.retrieval.selecting import select

    target = gallery or default_gallery()
    names = Names(hide=hide_paths)
    with Gallery.open(target, write=True, lock_timeout=lock_timeout) as opened:
        chosen, unknown = select(opened, scans)
        removed = opened.remove(chosen) if chosen else 0
    failures = [
        Failure(each, "not_found", f"{each}: the gallery holds no such scan") for each in unknown
    ]
    for failure in failures:
        show_failure(failure, names)
    counts = {"removed": removed, "failed": len(failures)}
    show_counts(target, counts, failures, (), as_json=as_json, names=names)
    raise typer.Exit(EXIT_UNREADABLE if failures else 0)


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
    """What `build` and `add` have done."""
    counts = {"added": stored.added, "updated": stored.updated, "unchanged": stored.unchanged}
    counts |= failed_and_skipped(failures)
    show_counts(path, counts, failures, stored.warnings, as_json=as_json, names=names)


def failed_and_skipped(failures: Sequence[Failure]) -> dict[str, int]:
    """How many inputs failed, and how many are no scans."""
    failed = sum(failure.status == "failed" for failure in failures)
    return {"failed": failed, "skipped": len(failures) - failed}


def show_counts(
    path: Path,
    counts: Mapping[str, int],
    failures: Sequence[Failure],
    warnings: Iterable[ScanWarning],
    *,
    as_json: bool,
    names: Names,
    **more: Any,
) -> None:
    """Counts, and failures by code; in JSON every failure."""
    for warning in warnings:
        warn(f"{warning.message} [{warning.code}]")
    if as_json:
        told = [failure_json(failure, names) for failure in failures]
        print_json({"gallery": names.shown(path), **counts, "failures": told, **more})
        return
    show_failures_by_code(failures)
    done = {what: count for what, count in counts.items() if count and what != "skipped"}
    say(", ".join(f"{count} {what}" for what, count in done.items()) or "nothing added")
    if done.keys() - {"failed", "missing"} and not names.hide:
        print_line(str(path))


def show_failures_by_code(failures: Sequence[Failure]) -> None:
    """How many inputs failed for which reason, where there are several."""
    codes = Counter(failure.code for failure in failures if failure.status == "failed")
    if codes.total() < 2:
        return
    width = max(map(len, codes))
    say("failed, by code:")
    for code, count in codes.most_common():
        say(f"  {code:{width}}  {count:5}  {meaning(code)}")
