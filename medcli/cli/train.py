"""`medcli train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medcli.cli.options import AsJson, Overwrite, Seed
from medcli.cli.train_display import TrainDisplay, show_run
from medcli.config import NO_AGGREGATOR
from medcli.files import check_parent
from medcli.home import runs_folder
from medcli.models.registry import (
    AGGREGATORS,
    ARCHITECTURES,
    VOLUMES,
    check_network,
)


def train(
    data: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="DATA",
            help="Manifest (.csv), class folders or MedMNIST .npz, of several tasks as "
            "TASK=DATA; without: what is here, else generated sample data.",
            show_default=False,
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            "--task",
            "-t",
            metavar="NAME[,NAME…]",
            help="The task; several, which a column 'task' of the data names, become one model.",
            show_default=False,
        ),
    ] = None,
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
        typer.Option(
            metavar="CLASS",
            help="Positive one of two classes; of several tasks one each, A,B,….",
            show_default=False,
        ),
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
    seed: Seed = 0,
    device: Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda.")] = "auto",
    as_json: AsJson = False,
) -> None:
    """Train a classifier and write it as a run folder.

    The data are split by patient into a part to train on, one to stop by and one to measure.
    Several tasks share one network and one embedding: medcli train lung=films.csv gi=tiles/

    Example: medcli train scans.csv --task lung -o runs/lung
    """
    from medcli.config import ModelConfig

    aggregator = aggregator or (NO_AGGREGATOR if arch in VOLUMES else "attention")
    check_network(arch, aggregator)
    check_parent(output or runs_folder() / "run")

    from medcli.training.run import TrainRequest
    from medcli.training.run import train as train_run

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
        model=ModelConfig(arch=arch, aggregator=aggregator),
    )
    with TrainDisplay() as display:
        package = train_run(request, display.events())
    show_run(package, as_json=as_json)
