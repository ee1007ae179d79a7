"""`medcli explain`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medcli.cli.inputs import exit_status, found_scans
from medcli.cli.options import (
    AsJson,
    HidePaths,
    Model,
    Overwrite,
    Scans,
    TaskName,
    WindowName,
    parse_window,
)
from medcli.cli.output import (
    Names,
    common_json,
    counting,
    failure_json,
    note,
    print_json,
    print_table,
    say,
    shorten,
    show_failure,
    warn,
)
from medcli.cli.terminal import Show, show_pictures, terminal_shows
from medcli.errors import UsageError
from medcli.explain.methods import METHODS
from medcli.files import check_file
from medcli.models.registry import check_name
from medcli.records import Case, Failure, Scan

if TYPE_CHECKING:
    import numpy as np
    from rich.table import Table

    from medcli.explain.explainer import Explanation
    from medcli.models.package import ModelPackage


def explain(
    scans: Scans,
    method: Annotated[
        str, typer.Option("--method", metavar="NAME", help=f"One of {', '.join(METHODS)}.")
    ] = "gradcam",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="The heat over the scan as .png or .dcm (secondary capture), or as .nii.gz in the "
            "scan's geometry.",
            show_default=False,
        ),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(
            metavar="CLASS", help="The class to explain.", show_default="the predicted one"
        ),
    ] = None,
    model: Model = None,
    task: TaskName = None,
    window: WindowName = None,
    show: Show = False,
    as_json: AsJson = False,
    overwrite: Overwrite = False,
    hide_paths: HidePaths = False,
) -> None:
    """Show where in a scan the model looks.

    A heat map says what moves the model's answer, not what a disease looks like.

    Example: medcli explain chest.png --method occlusion -o chest-heat.png
    """
    seen_through = parse_window(window)
    check_name(METHODS, "method", method)
    from medcli.workflows.explaining import check_output, hottest_pictures, write_explanation

    if output is not None:
        check_output(output)
        check_file(output, overwrite=overwrite)

    from medcli.explain.explainer import Explainer
    from medcli.imaging.batch import read_all
    from medcli.models.bundled import is_shared, specialist
    from medcli.models.locate import open_model

    names = Names(hide=hide_paths)
    package = open_model(model, task)
    cases = found_scans(scans, names)
    found = sum(isinstance(case, Case) for case in cases)
    if output is not None and found > 1:
        raise UsageError(
            f"{found} scans were found, and --output takes one", "Explain them one by one"
        )
    explainer = Explainer(package)
    if package.synthetic:
        warn("synthetic: this model knows generated pictures only")
    failures: list[Failure] = []
    rows: list[tuple[str, ...]] = []
    told: set[str] = set()
    shown: list[tuple[str, np.ndarray]] = []
    shows = show and not as_json and terminal_shows()
    with counting("explaining", beside_data=as_json) as on_scan:
        for _, scan in read_all(cases):
            if isinstance(scan, Failure):
                failures.append(scan)
                show_failure(scan, names)
                answer = failure_json(scan, names)
            else:
                explanation = explainer.explain(scan, method, label)
                rows.append(_row(scan, explanation, names))
                told.add(explanation.task)
                answer = explanation_json(scan, explanation, package, names)
                if output is not None:
                    write_explanation(
                        output,
                        scan,
                        explanation,
                        title=names.of(scan.path),
                        fingerprint=package.fingerprint,
                        window=seen_through,
                    )
                    say("wrote the heat map" if names.hide else f"wrote {output}")
                if shows:
                    shown += hottest_pictures(scan, explanation, names.of(scan.path), seen_through)
            if as_json:
                print_json(answer)
            on_scan(len(failures) + len(rows), len(cases))
    if rows and not as_json:
        print_table(explanation_table(rows))
        show_pictures(shown)
        if output is None and not shown:
            note("--output heat.png draws it")
    for name in sorted(told) if is_shared(package) else ():
        if specialist(name) is not None and task != name:
            note(f"classify asks the model of {name} itself: --task {name} explains that one")
    raise typer.Exit(exit_status(failures, len(rows)))


def explanation_json(
    scan: Scan, explanation: Explanation, package: ModelPackage, names: Names
) -> dict[str, Any]:
    """The object of one scan; `peak` is null where nothing speaks for the class."""
    place = dict(zip(("slice", "row", "column"), explanation.peak, strict=True))
    slices = zip(explanation.slices.tolist(), explanation.shares.tolist(), strict=True)
    return {
        **common_json(scan.path, scan.scan_id, scan.files, scan.warnings, names),
        "task": explanation.task,
        "method": explanation.method,
        "label": explanation.label,
        "predicted": explanation.predicted,
        "peak": None if explanation.empty else place,
        "slices": [{"slice": number, "share": share} for number, share in slices],
        "synthetic": package.synthetic,
        "model": package.fingerprint,
    }


def _row(scan: Scan, explanation: Explanation, names: Names) -> tuple[str, ...]:
    """Scan, class, the slice with the largest share, the strongest place."""
    if explanation.empty:
        return names.of(scan.path), explanation.label, "–", "–"
    number, row, column = explanation.peak
    best = int(explanation.shares.argmax())
    told = f"{explanation.slices[best]} ({100 * explanation.shares[best]:.0f} %)"
    return names.of(scan.path), explanation.label, told, f"{number}, {row}, {column}"


def explanation_table(rows: Sequence[tuple[str, ...]]) -> Table:
    """What each scan's heat says in words."""
    from rich.table import Table

    from medcli.cli.console import stdout

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("scan", no_wrap=True)
    for name in ("speaks for", "slice (share)", "strongest at z, y, x"):
        table.add_column(name)
    for path, *cells in rows:
        table.add_row(shorten(path, max(24, stdout().width - 56)), *cells)
    return table
