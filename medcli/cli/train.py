"""`medcli train`."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medcli.cli.options import AsJson, Overwrite, Seed, TaskName
from medcli.cli.train_display import TrainDisplay, check_operating_point, show_run
from medcli.config import NO_AGGREGATOR
from medcli.errors import UsageError
from medcli.files import check_parent
from medcli.home import runs_folder
from medcli.models.registry import (
    AGGREGATORS,
    ARCHITECTURES,
    VOLUMES,
    check_network,
)

if TYPE_CHECKING:
    from medcli.models.package import ModelPackage


def train(
    context: typer.Context,
    data: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="DATA",
            help="Manifest (.csv), class folders or MedMNIST .npz; without: what is here, "
            "else generated sample data.",
            show_default=False,
        ),
    ] = None,
    task: TaskName = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FOLDER",
            help="The run folder; by default in the medcli home.",
            show_default=False,
        ),
    ] = None,
    overwrite: Overwrite = False,
    classes: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,…",
            help="Classes to keep, in this order; others are dropped.",
            show_default=False,
        ),
    ] = None,
    positive: Annotated[
        str | None,
        typer.Option(metavar="CLASS", help="Positive one of two classes.", show_default=False),
    ] = None,
    arch: Annotated[
        str, typer.Option(metavar="NAME", help=f"Backbone: {', '.join(ARCHITECTURES)}.")
    ] = "resnet18_half",
    aggregator: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help=f"How slices become a scan: {', '.join(AGGREGATORS)}.",
            show_default="attention; none for a 3-D network",
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="imagenet|FILE|RUN",
            help="Start the backbone from ImageNet (downloaded), a .safetensors file or a run.",
            show_default="from scratch",
        ),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(metavar="PX", min=16, max=1024, help="Input side.", show_default="by data"),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Passes over the data.", show_default="by data"),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(metavar="M", min=0.1, help="Time budget.", show_default="13 on a CPU"),
    ] = None,
    allow_overlap: Annotated[
        bool,
        typer.Option("--allow-overlap", help="Also where parts share a patient or a picture."),
    ] = False,
    sensitivity: Annotated[
        float | None,
        typer.Option(
            metavar="S",
            help="Wanted sensitivity of the threshold, fixed on the validation part.",
            show_default="Youden's threshold",
        ),
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(
            metavar="K",
            min=2,
            max=20,
            help="Measure in K folds by patient, then train on all; --minutes is for the whole.",
            show_default=False,
        ),
    ] = None,
    seed: Seed = 0,
    device: Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda.")] = "auto",
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="RUN",
            help="Go on with the unfinished run that was to be written there, or 'latest'.",
            show_default=False,
        ),
    ] = None,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Keep nothing of what was read for the next time.")
    ] = False,
    tensorboard: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Log for TensorBoard there.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train a classifier and write it as a run folder.

    The data are split by patient into a part to train on, one to stop by and one to measure.

    Example: medcli train scans.csv --task lung -o runs/lung
    """
    if resume is not None:
        _refuse_beside_resume(context)
        with _ending_like_ctrl_c():
            _resume(resume, tuple(data or ()), as_json=as_json)
        return
    from medcli.config import ModelConfig

    aggregator = aggregator or (NO_AGGREGATOR if arch in VOLUMES else "attention")
    check_network(arch, aggregator)
    check_parent(output or runs_folder() / "run")

    from medcli.training.run import TrainRequest
    from medcli.training.run import train as train_once

    request = TrainRequest(
        inputs=tuple(data or ()),
        task=task,
        output=output,
        overwrite=overwrite,
        classes=tuple(name.strip() for name in classes.split(",")) if classes else None,
        positive=positive,
        size=size,
        epochs=epochs,
        minutes=minutes,
        seed=seed,
        device=device,
        weights=weights,
        allow_overlap=allow_overlap,
        sensitivity=sensitivity,
        cache=not no_cache,
        tensorboard=tensorboard,
        model=ModelConfig(arch=arch, aggregator=aggregator),
    )
    with _ending_like_ctrl_c():
        if folds is None:
            _show(lambda events: train_once(request, events), as_json=as_json)
            return
        from medcli.training.folds import cross_validate

        _show(lambda events: cross_validate(request, folds, events), as_json=as_json)


def _resume(run: str, data: tuple[str, ...], *, as_json: bool) -> None:
    """Go on with an unfinished run."""
    from medcli.training.run import resume_training

    _show(lambda events: resume_training(run, events, inputs=data), as_json=as_json)


def _show(work: Callable[[Any], ModelPackage], *, as_json: bool) -> None:
    """Train and show it; of the processes that `torchrun` started, the first speaks."""
    if int(os.environ.get("RANK", "0")):
        work(None)
        return
    with TrainDisplay() as display:
        package = work(display.events())
    show_run(package, as_json=as_json)
    check_operating_point(package)


def _refuse_beside_resume(context: typer.Context) -> None:
    """Raise where options are given that an unfinished run has settled."""
    given = [
        f"--{name.replace('_', '-')}"
        for name in context.params
        if name not in ("resume", "data", "as_json")
        and (source := context.get_parameter_source(name)) is not None
        and source.name == "COMMANDLINE"
    ]
    if given:
        raise UsageError(
            f"--resume takes its settings from the unfinished run, not from {', '.join(given)}",
            "Leave them out, or train again without --resume",
        )


@contextmanager
def _ending_like_ctrl_c() -> Iterator[None]:
    """Let a request to end (SIGTERM) save the training as ctrl-C does."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
