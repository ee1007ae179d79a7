"""`medcli data`: check a data set, convert it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer

from medcli.cli.inputs import exit_status, labelled_scans
from medcli.cli.options import AsJson, HidePaths, Labels, Scans
from medcli.cli.output import (
    Names,
    counting,
    failure_json,
    meaning,
    note,
    print_json,
    print_line,
    print_table,
    shorten,
    show_failure,
)
from medcli.cli.streams import visible

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from medcli.data.check import Check, CheckedScan, Finding

app = typer.Typer(help="Check and convert data sets.", no_args_is_help=True)


@app.command()
def check(
    scans: Scans,
    labels: Labels = "manifest",
    as_json: AsJson = False,
    hide_paths: HidePaths = False,
) -> None:
    """Name what is wrong with a folder or manifest, and what to do about it.

    Reads every scan: damaged and blank ones, gaps in series, copies, patients in two
    classes or splits, text that may be burned in. With --json one object a scan.

    Example: medcli data check scans/ --labels folder
    """
    from medcli.data.check import check_scans

    names = Names(hide=hide_paths)
    cases = labelled_scans(scans, labels)
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
        print_line(summary(found))
        _tell_of_manifests(scans, names)
    failures = [scan.failure for scan in found.scans if scan.failure is not None]
    raise typer.Exit(exit_status(failures, found.counts["scans"] - found.counts["failed"]))


def checked_json(scan: CheckedScan, names: Names) -> dict[str, Any]:
    """The object of one input."""
    if scan.failure is not None:
        return failure_json(scan.failure, names)
    return {
        "path": names.of(scan.path),
        "scan_id": names.id_of(scan.path, scan.scan_id),
        "files": names.files(scan.path, scan.files),
        "status": scan.status,
        "warnings": names.warnings(scan.warnings),
        "error": None,
    }


def summary(found: Check) -> str:
    """`1,204 scans: 1,190 good, 9 with warnings, 5 failed`."""
    counts = found.counts
    parts = [f"{counts['good']:,} good"]
    parts += [f"{counts['warned']:,} with warnings"] if counts["warned"] else []
    parts += [f"{counts['failed']:,} failed"] if counts["failed"] else []
    return f"{counts['scans']:,} scan{'s' if counts['scans'] != 1 else ''}: {', '.join(parts)}"


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


def _tell_of_manifests(inputs: Sequence[str], names: Names) -> None:
    """A manifest inside a folder was not read: only one that is named brings labels."""
    for folder in filter(os.path.isdir, inputs):
        manifest = os.path.join(folder, "manifest.csv")
        if os.path.isfile(manifest):
            note(f"labels and patients stand in {names.of(manifest)}: check that too")
