"""`medcli report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medcli.cli.options import HidePaths, Overwrite, Seed, TaskName
from medcli.cli.output import print_line, say
from medcli.files import check_file, write_file


def report(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN|GALLERY",
            help="A run, 'latest', or a gallery's folder.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE", help="The page."),
    ] = Path("report.html"),
    task: TaskName = None,
    overwrite: Overwrite = False,
    seed: Seed = 0,
    hide_paths: HidePaths = False,
) -> None:
    """Write one HTML page about a run or a gallery.

    Of a run curves, numbers and checklists for a paper; it keeps no pictures: medcli evaluate
    MODEL DATA --report FILE makes the page with them. Of a gallery what it holds, with pictures.

    Example: medcli report latest -o lung.html
    """
    check_file(output, overwrite=overwrite)

    from medcli.retrieval.folder import is_gallery

    folder = Path(run)
    if folder.is_dir() and is_gallery(folder):
        page = _gallery_page(folder, hide_paths=hide_paths)
    else:
        page = _run_page(run, task, seed)
    write_file(output, page.encode("utf-8", "replace"))
    if hide_paths:
        say("wrote the page")
    else:
        print_line(str(output))


def _run_page(run: str, task: str | None, seed: int) -> str:
    from medcli.models.locate import open_model
    from medcli.workflows.reporting import run_page

    return run_page(open_model(run, task), seed=seed)


def _gallery_page(folder: Path, *, hide_paths: bool) -> str:
    from medcli.retrieval.gallery import Gallery
    from medcli.workflows.gallery_reporting import gallery_report
    from medcli.workflows.searching import own_model

    with Gallery.open(folder) as gallery:
        return gallery_report(gallery, own_model(gallery), hide_paths=hide_paths)
