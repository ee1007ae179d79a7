"""`medcli train`."""

from __future__ import annotations

from medcli.cli.options import AsJson, Overwrite, Seed
from medcli.cli.train_display import TrainDisplay, show_run
from medcli.cli.train_options import (
    Aggregator,
    Arch,
    BackboneRate,
    Classes,
    Data,
    Device,
    Domain,
    Epochs,
    ImbalanceMode,
    LabelSmoothing,
    LearningRate,
    MetricLossName,
    MetricWeight,
    Minutes,
    Mixup,
    OptimizerName,
    Positive,
    RobustLossName,
    RunFolder,
    Size,
    Tasks,
    WeightDecay,
    Weights,
)
from medcli.config import NO_AGGREGATOR
from medcli.files import check_parent
from medcli.home import runs_folder
from medcli.models.registry import (
    VOLUMES,
    check_network,
)


def train(
    data: Data = None,
    task: Tasks = None,
    output: RunFolder = None,
    overwrite: Overwrite = False,
    classes: Classes = None,
    positive: Positive = None,
    domain: Domain = None,
    arch: Arch = "resnet18_half",
    aggregator: Aggregator = None,
    weights: Weights = None,
    size: Size = None,
    epochs: Epochs = None,
    minutes: Minutes = None,
    device: Device = "auto",
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
    seed: Seed = 0,
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
        model=ModelConfig(arch=arch, aggregator=aggregator),
        objective=objective,
    )
    with TrainDisplay() as display:
        package = train_run(request, display.events())
    show_run(package, as_json=as_json)
