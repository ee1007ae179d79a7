"""`medcli detect`."""

from __future__ import annotations

import json
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
    TimePoint,
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
    write_csv_columns,
)
from medcli.errors import UsageError
from medcli.files import check_file, write_file
from medcli.records import Case, Detection, Failure

if TYPE_CHECKING:
    from rich.table import Table

MOST_ROWS = 12  # boxes of a scan in the table on the terminal


def detect(
    scans: Scans,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE.png",
            help="The scan with its boxes as a picture.",
            show_default=False,
        ),
    ] = None,
    model: Model = None,
    task: TaskName = None,
    score: Annotated[
        float | None,
        typer.Option(
            metavar="S",
            min=0,
            max=1,
            help="Lowest score of a box.",
            show_default="the model's own",
        ),
    ] = None,
    window: WindowName = None,
    time_point: TimePoint = None,
    as_json: AsJson = False,
    csv: Annotated[
        Path | None,
        typer.Option(
            "--csv", metavar="FILE", help="A line a box, as a manifest.", show_default=False
        ),
    ] = None,
    coco: Annotated[
        Path | None,
        typer.Option("--coco", metavar="FILE", help="All as COCO JSON.", show_default=False),
    ] = None,
    overwrite: Overwrite = False,
    hide_paths: HidePaths = False,
) -> None:
    """Find candidate lesions as boxes, slice by slice.

    Boxes of neighbouring slices that overlap are one lesion. A box is something to look at, not
    a diagnosis. Without --model the newest detector answers.

    Example: medcli detect frame.png -o frame-boxes.png
    """
    seen_through = parse_window(window)
    for path in (output, csv, coco):
        if path is not None:
            check_file(path, overwrite=overwrite)
    if output is not None and output.suffix.lower() != ".png":
        raise UsageError(f"{output.name}: boxes are drawn as .png", "Name the output accordingly")

    from medcli.imaging.batch import read_all
    from medcli.inference.detector import Detector
    from medcli.models.locate import find_model
    from medcli.models.package import load_package
    from medcli.workflows.detecting import COLUMNS, box_rows, coco_json, detection_picture

    names = Names(hide=hide_paths)
    package = load_package(find_model(model, task, "detection"), "detection")
    detector = Detector(package)
    cases = found_scans(scans, names, time_point)
    found = sum(isinstance(case, Case) for case in cases)
    if output is not None and found > 1:
        raise UsageError(f"{found} scans were found, and --output takes one", "Name a single scan")
    if not as_json:
        note(f"detector {names.of(package.path.name)} ({package.task.name})")
    if package.synthetic:
        warn("synthetic: this model knows generated pictures only")
    failures: list[Failure] = []
    answers: list[tuple[str, tuple[int, int, int], Detection]] = []
    with counting("detecting", beside_data=as_json) as on_scan:
        for _, scan in read_all(cases):
            if isinstance(scan, Failure):
                failures.append(scan)
                show_failure(scan, names)
                answer = failure_json(scan, names)
            else:
                detection = detector.detect(scan, score)
                answers.append((names.of(scan.path), scan.pixels.shape[:3], detection))
                answer = detection_json(detection, names)
                if output is not None:
                    title = names.of(scan.path)
                    picture = detection_picture(scan, detection, title, seen_through)
                    write_file(output, picture)
            if as_json:
                print_json(answer)
            on_scan(len(failures) + len(answers), len(cases))
    if answers and not as_json:
        print_table(box_table(answers))
    if csv is not None:
        rows = [row for path, _, each in answers for row in box_rows(each, path)]
        write_csv_columns(csv, COLUMNS, rows)
    if coco is not None:
        written = coco_json(answers, package.task.classes)
        write_file(coco, (json.dumps(written, indent=1) + "\n").encode())
    for path in (output, csv, coco):
        if path is not None and answers:
            say("wrote the output" if hide_paths else f"wrote {path}")
    raise typer.Exit(exit_status(failures, len(answers)))


def detection_json(detection: Detection, names: Names) -> dict[str, Any]:
    """The object of one scan."""
    return {
        **common_json(
            detection.path, detection.scan_id, detection.files, detection.warnings, names
        ),
        "task": detection.task,
        "boxes": detection.boxes,
        "lesions": detection.lesions,
        "synthetic": detection.synthetic,
        "model": detection.model,
    }


def box_table(answers: Sequence[tuple[str, tuple[int, int, int], Detection]]) -> Table:
    """The best boxes of each scan; a scan without any says so."""
    from rich.table import Table

    from medcli.cli.console import stdout

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("scan", no_wrap=True)
    for name in ("label", "score", "slice", "x0", "y0", "x1", "y1", "lesion"):
        table.add_column(name, justify="left" if name == "label" else "right")
    room = max(20, stdout().width - 60)
    for path, (slices, _, _), detection in answers:
        shown = shorten(path, room)
        if not detection.boxes:
            table.add_row(shown, "nothing found", *[""] * 7)
        for box in detection.boxes[:MOST_ROWS]:
            corners = [f"{value:.0f}" for value in (box.x0, box.y0, box.x1, box.y1)]
            place = str(box.slice) if slices > 1 else "–"
            cells = box.label, f"{box.score:.3f}", place, *corners, str(box.lesion)
            table.add_row(shown, *cells)
            shown = ""
        if (more := len(detection.boxes) - MOST_ROWS) > 0:
            table.add_row("", f"and {more} more", *[""] * 7)
    return table
