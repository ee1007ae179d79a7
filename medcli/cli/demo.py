"""`medcli demo`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medcli.cli.options import Overwrite, Seed
from medcli.cli.output import facts_table, number, print_line, print_table, say

if TYPE_CHECKING:
    from medcli.workflows.demonstration import Demo


def demo(
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FOLDER",
            help="Where to work; by default a new folder medcli-demo here.",
            show_default=False,
        ),
    ] = None,
    overwrite: Overwrite = False,
    seed: Seed = 0,
) -> None:
    """Show the whole road on generated scans, in about three minutes.

    Trains, evaluates, classifies, indexes, searches and writes a page.

    Example: medcli demo -o demo
    """
    from medcli.cli.train_display import TrainDisplay
    from medcli.files import check_target
    from medcli.workflows.demonstration import demonstrate

    target = output or _free_name(Path("medcli-demo"))
    check_target(target, overwrite=overwrite, replaceable=_is_demo)
    # The gallery remembers where its scans lie, so the work is done in place.
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    (target / MARK).write_text("Made by `medcli demo` from generated data.\n")
    try:
        with TrainDisplay() as display:
            done = demonstrate(target, seed=seed, on_step=_announce, events=display.events())
    except BaseException:
        shutil.rmtree(target)
        raise
    show_demo(done)


MARK = ".medcli-demo"


def _is_demo(folder: Path) -> bool:
    return (folder / MARK).is_file()


def _free_name(path: Path) -> Path:
    """`path`, or the first of path-2, path-3 … that is free."""
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}-{number}")
    return free


def _announce(step: str) -> None:
    say(f"── {step}", "bold")


def show_demo(done: Demo) -> None:
    """The summary, and where the page is."""
    metrics = done.metrics
    rows = [
        ("test part", f"{metrics['n']} scans, {metrics['n_patients']} patients"),
        ("AUROC", number(metrics["auroc"], metrics["auroc_ci"])),
        ("accuracy", number(metrics["accuracy"], metrics["accuracy_ci"])),
        ("classified", f"{len(done.predictions)} scans"),
    ]
    for result in done.results:
        first = result.hits[0]
        where = "" if first.slice is None else f", slice {first.slice}"
        told = f"{Path(first.path).name}{where} ({first.label}, {first.score:.3f})"
        rows.append((f"like {Path(result.query).name}", told))
    rows += [(name, f"{seconds:.1f} s") for name, seconds in done.seconds.items()]
    print_table(facts_table(rows, title="medcli demo (synthetic scans)"))
    print_line(str(done.page.absolute()))
