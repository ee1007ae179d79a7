"""`medcli data split`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medcli.cli.options import AsJson, LabelledData, Overwrite, Seed, TaskName
from medcli.cli.output import Names, counting, note, print_json, print_line, show_failure, warn

if TYPE_CHECKING:
    from medcli.data.resplit import Resplit


def split(
    data: LabelledData,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The manifest to write (.csv).")
    ],
    val: Annotated[float, typer.Option(metavar="SHARE", help="Of the scans, to validate.")] = 0.15,
    test: Annotated[float, typer.Option(metavar="SHARE", help="Of the scans, to test.")] = 0.15,
    folds: Annotated[
        int | None,
        typer.Option(metavar="K", min=2, help="A column fold, 0 to K-1, instead of parts."),
    ] = None,
    task: TaskName = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Write a manifest in which no two parts share a patient or a picture.

    Classes are spread alike; copies of a picture, also re-saved, mirrored or turned
    ones, stay in one part. A split that the data come with is replaced.

    Example: medcli data split scans.csv -o clean.csv --test 0.2
    """
    from medcli.data.resplit import resplit
    from medcli.data.sources import load_cases
    from medcli.files import check_file

    check_file(output, overwrite=overwrite)
    names = Names(hide=False)
    cases = load_cases(data, task=task, on_note=note)
    with counting("reading") as on_scan:
        done = resplit(
            cases,
            output,
            val=val,
            test=test,
            folds=folds,
            seed=seed,
            overwrite=overwrite,
            on_scan=on_scan,
            on_failure=lambda failure: show_failure(failure, names),
        )
    for message in done.warnings:
        warn(message)
    for reason, count in done.dropped.items():
        warn(f"{count:,} dropped: {reason}")
    if as_json:
        print_json(split_json(done, seed))
    else:
        show_split(done)


def split_json(done: Resplit, seed: int) -> dict[str, Any]:
    """What was written, as one object."""
    return {
        "path": str(done.path),
        "column": done.column,
        "seed": seed,
        "parts": done.rows,
        "copies": done.copies,
        "dropped": done.dropped,
    }


def show_split(done: Resplit) -> None:
    """The table of the parts on stderr, then where the manifest is."""
    from medcli.cli.console import stderr
    from medcli.cli.output import say
    from medcli.cli.train_display import split_table

    stderr().print(split_table(done.rows))
    if done.copies:
        say(f"{done.copies:,} scans are copies of another one, or nearly: each set in one part")
    print_line(str(done.path))
