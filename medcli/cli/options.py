"""Arguments and options that several commands share, declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Scans = Annotated[
    list[str],
    typer.Argument(
        metavar="SCAN",
        help="Files, folders, globs, a manifest (.csv), a MedMNIST .npz, or - for a list on stdin.",
        show_default=False,
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        metavar="MODEL",
        help="A run folder, a model package, or 'latest'.",
        show_default=False,
    ),
]
TaskName = Annotated[
    str | None,
    typer.Option(
        "--task",
        "-t",
        metavar="NAME",
        help="The task, where there are models or labels of several.",
        show_default=False,
    ),
]
GalleryPath = Annotated[
    Path | None,
    typer.Option(
        "--gallery",
        "-g",
        metavar="FOLDER",
        help="The gallery; by default the one in the medcli home.",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line on stdout.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what exists.")]
HidePaths = Annotated[
    bool, typer.Option("--hide-paths", help="Put ids in the place of paths and file names.")
]
Seed = Annotated[int, typer.Option("--seed", metavar="N", help="Seed of every random choice.")]
LockTimeout = Annotated[
    float,
    typer.Option(metavar="SECONDS", min=0, help="How long to wait while another process writes."),
]
