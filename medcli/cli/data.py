"""`medcli data`: check a data set, convert it; split and audit have files of their own."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from medcli.cli.data_audit import audit
from medcli.cli.data_split import split
from medcli.cli.inputs import exit_status, labelled_scans
from medcli.cli.options import (
    AsJson,
    HidePaths,
    Labels,
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
    failure_json,
    keep_and_show,
    meaning,
    note,
    print_json,
    print_line,
    print_table,
    say,
    shorten,
    show_failure,
    show_warnings,
    warn,
)
from medcli.cli.streams import visible
from medcli.errors import ScanError, UsageError
from medcli.records import Failure

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from medcli.data.check import Check, CheckedScan, Finding
    from medcli.data.convert import ConvertedScan

app = typer.Typer(
    help="Check, split, convert and audit data sets.", no_args_is_help=True, add_completion=False
)


@app.command()
def check(
    scans: Scans,
    labels: Labels = "manifest",
    time_point: TimePoint = None,
    as_json: AsJson = False,
    hide_paths: HidePaths = False,
) -> None:
    """Name what is wrong with a folder or manifest, and what to do about it.

    Damaged and blank scans, gaps in series, copies, patients in two classes or
    splits, boxes outside their picture, text that may be burned in. With --json one object
    a scan.

    Example: medcli data check scans/ --labels folder
    """
    from medcli.data.check import check_scans

    names = Names(hide=hide_paths)
    notes: list[str] = []
    cases = labelled_scans(scans, labels, names, time_point, notes.append, any_boxes=True)
    with counting("checking") as on_scan:
        found = check_scans(
            cases, on_scan=on_scan, on_failure=lambda failure: show_failure(failure, names)
        )
    if as_json:
        for scan in found.scans:
            print_json(checked_json(scan, names))
    else:
        if found.findings:
            print_table(finding_table(found, names))
            print_line("")
        if found.labels:
            print_line(_labels(found))
        print_line(summary(found))
    _tell_of_manifests(scans, notes, names)
    failures = [scan.failure for scan in found.scans if scan.failure is not None]
    raise typer.Exit(exit_status(failures, found.counts["scans"] - found.counts["failed"]))


def checked_json(scan: CheckedScan, names: Names) -> dict[str, Any]:
    """The object of one input."""
    if scan.failure is not None:
        return failure_json(scan.failure, names)
    return common_json(scan.path, scan.scan_id, scan.files, scan.warnings, names)


def summary(found: Check) -> str:
    """`1,204 scans: 1,190 good, 9 with warnings, 5 failed`."""
    counts = found.counts
    parts = [f"{counts['good']:,} good"]
    parts += [f"{counts['warned']:,} with warnings"] if counts["warned"] else []
    parts += [f"{counts['failed']:,} failed"] if counts["failed"] else []
    return f"{counts['scans']:,} scan{'s' if counts['scans'] != 1 else ''}: {', '.join(parts)}"


def _labels(found: Check) -> str:
    """`benign 440, malignant 230; 322 patients`."""
    labels = ", ".join(f"{label} {count:,}" for label, count in found.labels.items())
    patients = f"{found.patients:,} patient{'s' if found.patients != 1 else ''}"
    return f"{labels}; {patients if found.patients else 'no patient named'}"


@app.command()
def convert(
    scans: Scans,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="The folder to write.")
    ],
    to: Annotated[
        Literal["nifti", "png", "npz"],
        typer.Option("--to", help="Volumes, one picture a slice, or one MedMNIST archive."),
    ],
    window: WindowName = None,
    bits: Annotated[
        Literal["8", "16"],
        typer.Option("--bits", help="Bits of a PNG; 16 keep whole numbers as they are read."),
    ] = "8",
    size: Annotated[
        int, typer.Option("--size", metavar="PX", min=8, max=1024, help="Side of an .npz picture.")
    ] = 64,
    labels: Labels = "manifest",
    time_point: TimePoint = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    hide_paths: HidePaths = False,
) -> None:
    """Write scans as NIfTI, PNG or .npz, with a manifest that keeps labels and patients.

    Files are numbered, and so are patients that only the tags name. NIfTI keeps
    values and geometry; PNG and .npz see them through a window. Values are those
    that medcli reads, in which larger is brighter: MONOCHROME1 is inverted.

    Example: medcli data convert scans.csv -o nifti --to nifti
    """
    from medcli.data.convert import check_conversion, convert_scans

    _check_fit(to, window, bits)
    seen_through = parse_window(window)
    check_conversion(output, overwrite=overwrite)
    names = Names(hide=hide_paths)
    cases = labelled_scans(scans, labels, names, time_point)
    failures: list[Failure] = []
    results: Sequence[ConvertedScan | Failure] = failures
    notes: Sequence[str] = ()
    try:
        with counting("converting") as on_scan:
            done = convert_scans(
                cases,
                output,
                to,
                window=seen_through,
                bits=8 if bits == "8" else 16,
                size=size,
                overwrite=overwrite,
                on_scan=on_scan,
                on_failure=keep_and_show(failures, names),
            )
        results, notes = done.results, done.notes
    except ScanError:  # none could be read, and each that failed was named
        notes = ("nothing was written",)
    for each in notes:
        note(each)
    for result in results if as_json else ():
        print_json(converted_json(result, names))
    converted = [each for each in results if not isinstance(each, Failure)]
    if converted and not as_json:
        show_converted(output, converted, names)
    raise typer.Exit(exit_status(failures, len(converted)))


def _check_fit(to: str, window: str | None, bits: str) -> None:
    """Refuse options that the format has no use for.

    Raises
    ------
    UsageError : such an option
    """
    if to == "nifti" and window is not None:
        raise UsageError("--window is for png and npz", "NIfTI keeps the values as they are read")
    if to != "png" and bits == "16":
        raise UsageError("--bits 16 is for png", "NIfTI keeps all values, an .npz has 8 bits")


def show_converted(output: Path, converted: Sequence[ConvertedScan], names: Names) -> None:
    """What was noticed about the scans, how many there are, and where."""
    for scan in converted:
        show_warnings(scan.path, scan.warnings, names)
    say(f"{len(converted):,} scan{'s' if len(converted) != 1 else ''} converted")
    if not names.hide:
        print_line(str(output))


def converted_json(result: ConvertedScan | Failure, names: Names) -> dict[str, Any]:
    """The object of one input; `outputs` are relative to the new folder."""
    if isinstance(result, Failure):
        return {**failure_json(result, names), "outputs": []}
    return {
        **common_json(result.path, result.scan_id, result.files, result.warnings, names),
        "outputs": list(result.outputs),
    }


app.command()(split)
app.command()(audit)

LEVEL_STYLES = {"error": "bold red", "warning": "yellow", "note": "dim"}
SHOWN = 3  # scans, or groups of them, that are named of a finding
MARGIN = 18  # columns of a terminal before the words of a finding


def finding_table(found: Check, names: Names) -> Table:
    """For each finding how grave it is, how many scans it concerns, which, and what to do."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(overflow="fold")
    readable = found.counts["scans"] - found.counts["failed"]
    for finding in found.findings:
        level = Text(finding.level, style=LEVEL_STYLES[finding.level])
        shown = () if finding.count == readable > SHOWN else finding.groups
        words = _told(finding, shown, names)
        table.add_row(level, f"{finding.count:,}", words)
    return table


def _told(finding: Finding, groups: Sequence[tuple[str, ...]], names: Names) -> Text:
    """Message and code, the first of the scans in `groups`, and the advice, line by line."""
    from rich.text import Text

    from medcli.cli.console import stdout

    message = meaning(finding.code) if names.hide else finding.message
    lines = [Text(visible(f"{message.rstrip('.')} [{finding.code}]"))]
    for group in groups[:SHOWN]:
        room = max(24, (stdout().width - MARGIN) // min(len(group), SHOWN) - 2)
        paths = [shorten(names.of(path), room) for path in group[:SHOWN]]
        more = f" and {len(group) - SHOWN} more" if len(group) > SHOWN else ""
        lines.append(Text(visible(", ".join(paths) + more), style="dim"))
    if len(groups) > SHOWN:
        lines.append(Text(f"and {len(groups) - SHOWN:,} more", style="dim"))
    lines.append(Text(f"→ {finding.advice}"))
    return Text("\n").join(lines)


def _tell_of_manifests(inputs: Sequence[str], notes: Sequence[str], names: Names) -> None:
    """What manifests leave out; and where one lies in a folder, whose labels were not read."""
    if notes and names.hide:
        warn(f"{len(notes)} notes on manifests; leave out --hide-paths to see them")
    for each in () if names.hide else notes:
        warn(each)
    for folder in filter(os.path.isdir, inputs):
        manifest = os.path.join(folder, "manifest.csv")
        if os.path.isfile(manifest):
            note(f"labels and patients stand in {names.of(manifest)}: check that too")
