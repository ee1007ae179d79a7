"""`medcli inspect`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medcli.cli.inputs import exit_status, found_scans
from medcli.cli.options import (
    AsJson,
    HidePaths,
    Overwrite,
    Scans,
    TimePoint,
    WindowName,
    parse_window,
)
from medcli.cli.output import (
    Names,
    common_json,
    counting,
    facts_table,
    failure_json,
    note,
    print_json,
    print_table,
    say,
    shorten,
    show_failure,
    show_warnings,
)
from medcli.cli.terminal import Show, show_pictures, terminal_shows
from medcli.files import check_file, write_file
from medcli.records import Case, Failure, Scan, plain

if TYPE_CHECKING:
    from rich.table import Table

    from medcli.imaging.inspection import Inspection, Intensity
    from medcli.workflows.previewing import Preview


def inspect(
    scans: Scans,
    preview: Annotated[
        Path | None,
        typer.Option(
            "--preview",
            metavar="PNG",
            help="Draw the slices, in true proportion and with a scale bar.",
            show_default=False,
        ),
    ] = None,
    window: WindowName = None,
    time_point: TimePoint = None,
    show: Show = False,
    as_json: AsJson = False,
    overwrite: Overwrite = False,
    hide_paths: HidePaths = False,
) -> None:
    """Show what was read of each scan: geometry, intensities, decoder, warnings.

    Shapes are slices × rows × columns, spacing is in mm in the same order.

    Example: medcli inspect series/ --preview series.png
    """
    from medcli.workflows.previewing import Preview

    seen_through = parse_window(window)
    if preview is not None:
        check_file(preview, overwrite=overwrite)
    names = Names(hide=hide_paths)
    cases = found_scans(scans, names, time_point)
    count = sum(isinstance(case, Case) for case in cases)
    shows = show and not as_json and terminal_shows()
    sheet = Preview(count, window=seen_through) if preview is not None or shows else None
    results = _inspected(cases, names, sheet, as_json=as_json)
    answers = [result for result in results if not isinstance(result, Failure)]
    if answers and not as_json:
        lone = len(answers) == 1
        print_table(scan_facts(answers[0], names) if lone else scan_table(answers, names))
        for answer in answers:
            show_warnings(answer.path, answer.warnings, names)
    if sheet is not None and preview is not None and answers:
        write_file(preview, sheet.png())
        say("wrote the preview" if names.hide else f"wrote {preview}")
        if sheet.left_out:
            drawn = len(answers) - sheet.left_out
            note(f"the preview shows {drawn} of {len(answers)} scans, evenly spread")
    if shows and sheet is not None and answers:
        show_pictures(sheet.thumbnails())
    failures = [result for result in results if isinstance(result, Failure)]
    raise typer.Exit(exit_status(failures, len(answers)))


def _inspected(
    cases: Sequence[Case | Failure], names: Names, sheet: Preview | None, *, as_json: bool
) -> list[Inspection | Failure]:
    """What each input is; printed and drawn as it is read."""
    from medcli.imaging.inspection import inspect_all

    results: list[Inspection | Failure] = []
    with counting("reading", beside_data=as_json) as on_scan:
        for scan, result in inspect_all(cases):
            results.append(result)
            on_scan(len(results), len(cases))
            if as_json:
                print_json(inspection_json(result, names))
            if isinstance(result, Failure):
                show_failure(result, names)
            elif sheet is not None and isinstance(scan, Scan):
                sheet.add(scan, names.of(result.path))
    return results


def inspection_json(result: Inspection | Failure, names: Names) -> dict[str, Any]:
    """The object of one input."""
    if isinstance(result, Failure):
        return failure_json(result, names)
    return {
        **common_json(result.path, result.scan_id, result.files, result.warnings, names),
        "format": result.format,
        "modality": result.modality,
        "shape": plain(result.shape),
        "spacing_mm": plain(result.spacing_mm),
        "intensity": plain(result.intensity),
        "photometric": result.photometric,
        "transfer_syntax": result.transfer_syntax,
        "decoder": result.decoder,
        "sha256": result.sha256,
        "pixel_sha256": result.pixel_sha256,
    }


def scan_facts(result: Inspection, names: Names) -> Table:
    """Everything about one scan, one fact a line."""
    files = len(result.files)
    facts = {
        "scan": names.of(result.path),
        "files": str(files) if files > 1 else None,
        "format": result.format,
        "modality": result.modality,
        "shape": _shape(result),
        "spacing": _spacing(result),
        "intensity": _intensity(result.intensity),
        "photometric": result.photometric,
        "syntax": _syntax(result.transfer_syntax),
        "decoder": result.decoder,
        "sha256": result.sha256,
        "pixel sha256": result.pixel_sha256,
    }
    return facts_table((name, value) for name, value in facts.items() if value is not None)


def scan_table(results: Sequence[Inspection], names: Names) -> Table:
    """A line for each scan."""
    from rich.table import Table

    from medcli.cli.console import stdout

    rows = [
        (
            " ".join(filter(None, (result.format, result.modality))),
            _shape(result),
            _spacing(result, unit=""),
            _intensity(result.intensity),
        )
        for result in results
    ]
    heads = ("format", "shape", "spacing mm", "intensity")
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("scan", no_wrap=True)
    for head in heads:
        table.add_column(head, justify="left" if head == "format" else "right", overflow="fold")
    room = max(MIN_NAME, stdout().width - sum(widths) - 2 * len(widths))
    for result, row in zip(results, rows, strict=True):
        table.add_row(shorten(names.of(result.path), room), *row)
    return table


MIN_NAME = 20  # columns of a terminal that a path gets, at least


def _syntax(uid: str | None) -> str | None:
    """A transfer syntax by name, with its UID."""
    from medcli.imaging.decoders import find_syntax

    known = find_syntax(uid) if uid is not None else None
    return f"{known.name} ({uid})" if known is not None else uid


def _shape(result: Inspection) -> str:
    """Slices, rows and columns, and "RGB" for colour."""
    slices, rows, columns, channels = result.shape
    return f"{slices}×{rows}×{columns}" + (" RGB" if channels == 3 else "")


def _spacing(result: Inspection, unit: str = " mm") -> str:
    """Spacing in the order of the shape, with a dash where it is unknown."""
    if result.spacing_mm == (None, None, None):
        return "–"
    return "×".join("–" if mm is None else f"{mm:.3g}" for mm in result.spacing_mm) + unit


def _intensity(values: Intensity) -> str:
    """Smallest and largest value with the unit, which "stored" values do not have."""
    unit = " HU" if values.unit == "HU" else ""
    return f"{values.min:.4g} … {values.max:.4g}{unit}"
