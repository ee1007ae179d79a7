"""`medcli train`."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from medcli.cli.options import AsJson, Overwrite, Seed
from medcli.cli.train_display import TrainDisplay, check_operating_point, show_run
from medcli.cli.train_options import (
    Aggregator,
    AllowOverlap,
    Arch,
    BackboneRate,
    Classes,
    Data,
    Device,
    Domain,
    Epochs,
    Folds,
    ImbalanceMode,
    LabelSmoothing,
    LearningRate,
    Measures,
    MetricLossName,
    MetricWeight,
    Minutes,
    Mixup,
    NoCache,
    OptimizerName,
    Positive,
    Resume,
    RobustLossName,
    RunFolder,
    Sensitivity,
    Size,
    Tasks,
    TensorBoard,
    WeightDecay,
    Weights,
)
from medcli.config import NO_AGGREGATOR
from medcli.data.presets import is_detection
from medcli.errors import UsageError
from medcli.files import check_parent
from medcli.home import runs_folder
from medcli.models.registry import (
    VOLUMES,
    check_network,
)

if TYPE_CHECKING:
    from medcli.models.package import ModelPackage
    from medcli.training.request import TrainRequest

OF_DETECTORS = (
    *("data", "task", "output", "overwrite", "allow_overlap", "arch", "weights", "size"),
    *("epochs", "minutes", "device", "optimizer", "learning_rate", "backbone_rate"),
    *("weight_decay", "seed", "as_json"),
)
"""Parameters that the training of a detector knows."""


def train(
    context: typer.Context,
    data: Data = None,
    task: Tasks = None,
    output: RunFolder = None,
    overwrite: Overwrite = False,
    classes: Classes = None,
    positive: Positive = None,
    domain: Domain = None,
    allow_overlap: AllowOverlap = False,
    folds: Folds = None,
    arch: Arch = "resnet18_half",
    aggregator: Aggregator = None,
    measures: Measures = None,
    weights: Weights = None,
    size: Size = None,
    epochs: Epochs = None,
    minutes: Minutes = None,
    device: Device = "auto",
    resume: Resume = None,
    no_cache: NoCache = False,
    tensorboard: TensorBoard = None,
    optimizer: OptimizerName = "adamw",
    learning_rate: LearningRate = None,
    backbone_rate: BackboneRate = None,
    weight_decay: WeightDecay = None,
    imbalance: ImbalanceMode = "auto",
    label_smoothing: LabelSmoothing = 0.0,
    mixup: Mixup = 0.0,
    robust_loss: RobustLossName = "none",
    metric_loss: MetricLossName = "none",
    metric_weight: MetricWeight = None,
    sensitivity: Sensitivity = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Train a classifier and write it as a run folder.

    The data are split by patient into a part to train on, one to stop by and one to measure.
    Several tasks (medcli train lung=films.csv gi=tiles/) share one network and one embedding.
    A task that ends in -detection trains a detector on a manifest with boxes.

    Example: medcli train scans.csv --task lung -o runs/lung
    """
    if resume is not None:
        _refuse_given(
            context,
            ("resume", "data", "as_json"),
            "--resume takes its settings from the unfinished run, not from {}",
            "Leave them out, or train again without --resume",
        )
        with _ending_like_ctrl_c():
            _resume(resume, tuple(data or ()), as_json=as_json)
        return
    from medcli.config import ModelConfig

    finds_boxes = is_detection(task)
    if finds_boxes:
        _refuse_given(
            context,
            OF_DETECTORS,
            "a detector is trained without {}",
            "Leave them out; -detection at the end of --task asks for a detector",
        )
    aggregator = aggregator or (NO_AGGREGATOR if arch in VOLUMES else "attention")
    check_network(arch, aggregator)
    check_parent(output or runs_folder() / "run")

    from medcli.training.request import TrainRequest
    from medcli.training.run import train as train_once
    from medcli.training.settings import ObjectiveRequest

    objective = ObjectiveRequest(
        optimizer=optimizer,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        backbone_rate=backbone_rate,
        label_smoothing=label_smoothing,
        mixup=mixup,
        imbalance=imbalance,
        robust_loss=robust_loss,
        metric_loss=metric_loss,
        metric_weight=metric_weight,
        domain=domain,
    )
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
        measures=measures,
        model=ModelConfig(arch=arch, aggregator=aggregator),
        objective=objective,
    )
    with _ending_like_ctrl_c():
        if finds_boxes:
            _show_detector(request, as_json=as_json)
            return
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


def _show_detector(request: TrainRequest, *, as_json: bool) -> None:
    """Train a detector and show it."""
    from medcli.cli.train_display import DetectorDisplay, show_detector
    from medcli.detection.run import train_detector

    with DetectorDisplay() as display:
        package = train_detector(request, display.events())
    show_detector(package, as_json=as_json)


def _refuse_given(context: typer.Context, allowed: Sequence[str], message: str, hint: str) -> None:
    """Raise where options beside the `allowed` parameters are given; `message` names them."""
    given = [
        f"--{name.replace('_', '-')}"
        for name in context.params
        if name not in allowed
        and (source := context.get_parameter_source(name)) is not None
        and source.name == "COMMANDLINE"
    ]
    if given:
        raise UsageError(message.format(", ".join(given)), hint)


@contextmanager
def _ending_like_ctrl_c() -> Iterator[None]:
    """Let a request to end (SIGTERM) save the training as ctrl-C does."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
