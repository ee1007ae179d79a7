"""Arguments and options that several commands share, declared once."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Literal

import typer

from medcli.config import EngineName
from medcli.errors import UsageError

Scans = Annotated[
    list[str],
    typer.Argument(
        metavar="SCAN",
        help="Files, folders, globs, a manifest (.csv), a MedMNIST .npz, or - for a list on stdin.",
        show_default=False,
    ),
]
LabelledData = Annotated[
    list[str],
    typer.Argument(
        metavar="DATA",
        help="A manifest (.csv), class folders, a MedMNIST .npz, medmnist:NAME or hf:OWNER/NAME.",
        show_default=False,
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        metavar="MODEL",
        help="A run, a model package, a bundled model (nodule, lung, gi, shared) or 'latest'.",
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
EngineOption = Annotated[
    EngineName,
    typer.Option(
        "--engine",
        help="What runs the network; auto: what is fastest here once many pictures make it pay.",
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
WindowName = Annotated[
    str | None,
    typer.Option(
        "--window",
        metavar="C/W",
        help="Window center and width, as in -600/1500; by default the file's own.",
        show_default=False,
    ),
]
TimePoint = Annotated[
    int | None,
    typer.Option(
        "--time-point",
        metavar="N",
        min=0,
        help="Which volume of files that hold several in time, from 0; by default the first.",
        show_default=False,
    ),
]
Labels = Annotated[
    Literal["manifest", "folder"],
    typer.Option(help="Where labels come from: the manifest, or the names of class folders."),
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


def parse_window(text: str | None) -> tuple[float, float] | None:
    """`-600/1500` as (center, width).

    Raises
    ------
    UsageError : anything else, or a width below 1
    """
    if text is None:
        return None
    try:
        center, width = (float(part) for part in text.split("/"))
    except ValueError:
        center, width = math.nan, math.nan
    if not (math.isfinite(center) and 1 <= width < math.inf):
        raise UsageError(f"--window {text}: no window", "Give center/width, as in -600/1500")
    return center, width


def parse_slices(text: str | None) -> tuple[int, int] | None:
    """`10-20` or `13` as (first, last), from 0.

    Raises
    ------
    UsageError : anything else
    """
    if text is None:
        return None
    first, dash, last = text.partition("-")
    if not (first.isdecimal() and (last.isdecimal() or not dash)):
        raise UsageError(f"--slices {text}: no range", "Give first-last, as in 10-20, from 0")
    return int(first), int(last if dash else first)
