"""`medcli detect`."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
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
    print_line,
    print_table,
    say,
    shorten,
    show_failure,
    warn,
    write_csv_columns,
)
from medcli.cli.search_output import hit_json, hit_table
from medcli.errors import UsageError
from medcli.files import check_file, write_file
from medcli.records import Case, Detection, Failure, Scan, SearchResult, plain

if TYPE_CHECKING:
    from rich.table import Table

    from medcli.config import Window

Answer = tuple[str, tuple[int, int, int], Detection, list[SearchResult] | None]
"""Of a scan: what stands for its path, (slices, rows, columns), boxes, hits of each lesion."""
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
    sr: Annotated[
        Path | None,
        typer.Option(
            "--sr",
            metavar="FILE.dcm",
            help="A DICOM structured report of a DICOM scan (needs medcli\\[highdicom]).",
            show_default=False,
        ),
    ] = None,
    search: Annotated[
        Path | None,
        typer.Option(
            "--search",
            metavar="GALLERY",
            help="Also search this gallery with what lies in each box.",
            show_default=False,
        ),
    ] = None,
    k: Annotated[
        int, typer.Option("-k", metavar="N", min=1, help="Hits of each box with --search.")
    ] = 5,
    overwrite: Overwrite = False,
    hide_paths: HidePaths = False,
) -> None:
    """Find candidate lesions as boxes, slice by slice.

    Boxes of neighbouring slices that overlap are one lesion. A box is something to look at, not
    a diagnosis. Without --model the newest detector answers.

    Example: medcli detect frame.png -o frame-boxes.png
    """
    seen_through = parse_window(window)
    for path in (output, csv, coco, sr):
        if path is not None:
            check_file(path, overwrite=overwrite)
    if output is not None and output.suffix.lower() != ".png":
        raise UsageError(f"{output.name}: boxes are drawn as .png", "Name the output accordingly")

    from medcli.imaging.batch import read_all
    from medcli.inference.detector import Detector
    from medcli.models.locate import open_model

    if sr is not None:
        from medcli.imaging.dicom_derived import check_extra

        check_extra()
    names = Names(hide=hide_paths)
    package = open_model(model, task, "detection")
    detector = Detector(package)
    cases = found_scans(scans, names, time_point)
    if output is not None or sr is not None:
        _check_alone(cases)
    if not as_json:
        told = "" if names.hide else f"{package.path.absolute().name}, "
        note(f"detector {told}task {package.task.name}, fingerprint {package.fingerprint}")
    if package.synthetic:
        warn("synthetic: this model knows generated pictures only")
    failures: list[Failure] = []
    answers: list[Answer] = []
    with contextlib.ExitStack() as stack:
        queries = stack.enter_context(_queries(search, k)) if search is not None else None
        on_scan = stack.enter_context(counting("detecting", beside_data=as_json))
        for _, scan in read_all(cases):
            if isinstance(scan, Failure):
                failures.append(scan)
                show_failure(scan, names)
                told_json = failure_json(scan, names)
            else:
                detection = detector.detect(scan, score)
                hits = queries(scan, detection) if queries is not None else None
                answers.append((names.of(scan.path), scan.pixels.shape[:3], detection, hits))
                told_json = detection_json(detection, names, hits)
                _write_scan(scan, detection, names, output, sr, seen_through)
            if as_json:
                print_json(told_json)
            on_scan(len(failures) + len(answers), len(cases))
    if answers and not as_json:
        show_answers(answers, names)
    if answers:
        _write_all(answers, csv, coco, package.task.classes)
        for path in (output, csv, coco, sr):
            if path is not None:
                say("wrote the output" if hide_paths else f"wrote {path}")
    raise typer.Exit(exit_status(failures, len(answers)))


def _check_alone(cases: Sequence[Case | Failure]) -> None:
    """Raise where several scans were found and the output is about one.

    Raises
    ------
    UsageError : names how many
    """
    found = sum(isinstance(case, Case) for case in cases)
    if found > 1:
        raise UsageError(
            f"{found} scans were found, and --output and --sr are about one", "Name a single scan"
        )


@contextlib.contextmanager
def _queries(path: Path, k: int) -> Iterator[Callable[[Scan, Detection], list[SearchResult]]]:
    """What searches an open gallery with the best box of each lesion."""
    from medcli.workflows.boxed import best_of_lesions, search_boxes
    from medcli.workflows.searching import open_gallery

    gallery, predictor = open_gallery(path)
    with gallery:
        yield lambda scan, detection: search_boxes(
            gallery, predictor, scan, best_of_lesions(detection), k=k
        )


def _write_scan(
    scan: Scan,
    detection: Detection,
    names: Names,
    output: Path | None,
    sr: Path | None,
    window: Window | None,
) -> None:
    """The picture and the report of a scan, where they are asked for."""
    if output is not None:
        from medcli.workflows.detecting import detection_picture

        write_file(output, detection_picture(scan, detection, names.of(scan.path), window))
    if sr is not None:
        from medcli.imaging.dicom_boxes import write_boxes

        write_boxes(sr, scan, detection)


def _write_all(
    answers: Sequence[Answer], csv: Path | None, coco: Path | None, classes: Sequence[str]
) -> None:
    """The table and the COCO file of all scans, where they are asked for."""
    from medcli.workflows.detecting import COLUMNS, box_rows, coco_json

    if csv is not None:
        rows = [row for path, _, each, _ in answers for row in box_rows(each, path)]
        write_csv_columns(csv, COLUMNS, rows)
    if coco is not None:
        written = coco_json([answer[:3] for answer in answers], classes)
        write_file(coco, (json.dumps(written, indent=1) + "\n").encode())


def show_answers(answers: Sequence[Answer], names: Names) -> None:
    """The boxes of all scans as a table; below it the hits of each lesion."""
    print_table(box_table(answers))
    for path, _, _, hits in answers:
        for number, result in enumerate(hits or ()):
            print_line("")
            print_line(f"lesion {number} of {path}")
            if result.hits:
                print_table(hit_table(result, names))
            else:
                print_line("no hits")


def detection_json(
    detection: Detection, names: Names, hits: Sequence[SearchResult] | None = None
) -> dict[str, Any]:
    """The object of one scan; each lesion has its hits where a gallery was searched."""
    lesions: list[dict[str, Any]] = [plain(lesion) for lesion in detection.lesions]
    for lesion, result in zip(lesions, hits or (), strict=bool(hits)):
        lesion["hits"] = [hit_json(hit, names) for hit in result.hits]
        lesion["vote"] = plain(result.vote)
    return {
        **common_json(
            detection.path, detection.scan_id, detection.files, detection.warnings, names
        ),
        "task": detection.task,
        "boxes": detection.boxes,
        "lesions": lesions,
        "synthetic": detection.synthetic,
        "model": detection.model,
    }


def box_table(answers: Sequence[Answer]) -> Table:
    """The best boxes of each scan; a scan without any says so."""
    from rich.table import Table

    from medcli.cli.console import stdout

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("scan", no_wrap=True)
    for name in ("label", "score", "slice", "x0", "y0", "x1", "y1", "lesion"):
        table.add_column(name, justify="left" if name == "label" else "right")
    room = max(20, stdout().width - 60)
    for path, (slices, _, _), detection, _ in answers:
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
