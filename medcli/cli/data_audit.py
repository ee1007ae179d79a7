"""`medcli data audit`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medcli.cli.inputs import exit_status
from medcli.cli.options import AsJson, HidePaths, LabelledData, Model, Overwrite, Seed, TaskName
from medcli.cli.output import (
    Names,
    common_json,
    counting,
    failure_json,
    note,
    print_json,
    print_line,
    print_table,
    print_words,
    shorten,
    show_failure,
    warn,
    write_csv,
)

if TYPE_CHECKING:
    from rich.table import Table

    from medcli.data.check import CheckedScan
    from medcli.workflows.auditing import Audit, Suspect

SHOWN = 10  # suspects in words; CSV and JSON hold all
_WIDE = 46  # columns of a terminal before the path of a suspect


def audit(
    data: LabelledData,
    model: Model = None,
    csv: Annotated[
        Path | None,
        typer.Option(
            "--csv", metavar="FILE", help="Every label by rank, as CSV.", show_default=False
        ),
    ] = None,
    task: TaskName = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    hide_paths: HidePaths = False,
) -> None:
    r"""Find leaks between splits, copies, and labels that look wrong.

    Copies are found by their pixels, and by their look where they were saved again,
    mirrored or turned. Labels are judged by the other patients, on embeddings of
    --model, else on thumbnails and histograms; the ranking needs medcli\[cleanlab].

    Example: medcli data audit scans.csv --csv suspects.csv
    """
    from medcli.cli.data import finding_table, summary
    from medcli.data.label_noise import require_cleanlab
    from medcli.data.sources import load_cases
    from medcli.files import check_file
    from medcli.workflows.auditing import audit as audit_data

    if csv is not None:
        check_file(csv, overwrite=overwrite)
        require_cleanlab()
    names = Names(hide=hide_paths)
    cases = load_cases(data, task=task, on_note=note)
    names.number(cases.cases)
    with counting("auditing") as on_scan:
        found = audit_data(
            cases,
            _predictor(model),
            seed=seed,
            on_scan=on_scan,
            on_failure=lambda failure: show_failure(failure, names),
        )
    for message in () if hide_paths else cases.warnings:
        warn(message)
    for reason, count in cases.dropped.items():
        warn(f"{count:,} dropped: {reason}")
    for message in found.notes:
        note(message)
    if csv is not None:
        write_csv(csv, [suspect_row(each, names) for each in found.suspects or ()])
    if as_json:
        for each in audit_json(found, names):
            print_json(each)
    else:
        relations = [f for f in found.check.findings if f.code != "suspicious_label"]
        if relations:  # suspects have a table of their own
            print_table(finding_table(replace(found.check, findings=tuple(relations)), names))
            print_line("")
        show_suspects(found, names)
        print_line(summary(found.check))
    failures = [scan.failure for scan in found.check.scans if scan.failure is not None]
    raise typer.Exit(exit_status(failures, len(found.check.scans) - len(failures)))


def _predictor(model: str | None) -> Any:
    """The named model, None where none is named."""
    if model is None:
        return None
    from medcli.inference.predictor import Predictor
    from medcli.models.locate import open_model

    return Predictor(open_model(model))


def audit_json(found: Audit, names: Names) -> list[dict[str, Any]]:
    """One object a scan: what was found, and how its label was judged."""
    judged = {(each.path, each.scan_id): each for each in found.suspects or ()}
    return [
        {**_scan_json(scan, names), **_judged_json(judged.get((scan.path, scan.scan_id or "")))}
        for scan in found.check.scans
    ]


def _scan_json(scan: CheckedScan, names: Names) -> dict[str, Any]:
    if scan.failure is not None:
        return failure_json(scan.failure, names)
    return common_json(scan.path, scan.scan_id, scan.files, scan.warnings, names)


def _judged_json(suspect: Suspect | None) -> dict[str, Any]:
    fields = ("label", "suggested_label", "label_quality", "suspicious", "rank")
    return {name: None if suspect is None else getattr(suspect, name) for name in fields}


def suspect_row(suspect: Suspect, names: Names) -> dict[str, Any]:
    """A line of the CSV."""
    return {
        "rank": suspect.rank,
        "path": names.of(suspect.path),
        "scan_id": names.id_of(suspect.path, suspect.scan_id),
        "label": suspect.label,
        "suggested_label": suspect.suggested_label,
        "label_quality": f"{suspect.label_quality:.4f}",
        "suspicious": "yes" if suspect.suspicious else "no",
    }


def show_suspects(found: Audit, names: Names) -> None:
    """The first of the ranking, and how good the judge is."""
    if found.suspects is None:
        return
    suspects = [each for each in found.suspects if each.suspicious]
    if suspects:
        print_table(suspect_table(suspects[:SHOWN], names))
        print_line("")
    total, accuracy = len(found.suspects), found.judge_accuracy or 0.0
    print_words(
        f"{len(suspects):,} of {total:,} labels look wrong to a judge that agrees with "
        f"{accuracy:.1%} of them: look at these scans from the top, and change no label unseen"
    )


def suspect_table(suspects: Sequence[Suspect], names: Names) -> Table:
    """Rank, quality, the label and what the scan looks like, and which it is."""
    from rich.table import Table

    from medcli.cli.console import stdout

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("#", "quality"):
        table.add_column(title, justify="right", no_wrap=True)
    for title in ("label", "looks like"):
        table.add_column(title, overflow="fold")
    table.add_column("scan", no_wrap=True)
    room = max(24, stdout().width - _WIDE)
    for each in suspects:
        table.add_row(
            str(each.rank),
            f"{each.label_quality:.3f}",
            each.label,
            each.suggested_label,
            shorten(names.of(each.path), room),
        )
    return table
