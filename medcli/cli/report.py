"""`medcli report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medcli.cli.options import Overwrite, Seed, TaskName
from medcli.cli.output import print_line
from medcli.files import check_file, write_file


def report(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="A run folder, or 'latest'.", show_default=False)
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE", help="The page."),
    ] = Path("report.html"),
    task: TaskName = None,
    overwrite: Overwrite = False,
    seed: Seed = 0,
) -> None:
    """Write one HTML page about a run: curves, numbers, checklists for a paper.

    A run keeps no pictures: medcli evaluate MODEL DATA --report FILE makes the page with them.

    Example: medcli report latest -o lung.html
    """
    check_file(output, overwrite=overwrite)

    from medcli.models.locate import open_model
    from medcli.workflows.reporting import run_page

    page = run_page(open_model(run, task), seed=seed)
    write_file(output, page.encode("utf-8"))
    print_line(str(output))
