"""What the user asked of optimizer and loss, and what is chosen where that was left open."""

from __future__ import annotations

import math
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from medcli.config import Imbalance, JsonConfig, MetricLoss, Optimizer, RobustLoss, TrainConfig
from medcli.data.arrays import ScanArrays
from medcli.errors import UsageError
from medcli.models.heads import column_ranges
from medcli.models.registry import check_name
from medcli.records import Task

# Peak learning rate and weight decay of each optimizer. Adam and SGD add the decay to the
# gradient, where a twentieth would be far too much.
RATES: Mapping[str, tuple[float, float]] = {
    "adamw": (1e-3, 0.05),
    "adam": (1e-3, 1e-4),
    "sgd": (0.05, 5e-4),
}
PRETRAINED_SHARE = 0.1  # of the learning rate, for a backbone that starts from --weights
UNEVEN = 10  # times the smallest class, from which on the largest is no longer weighed out
METRIC_WEIGHTS = {"none": 0.0, "supcon": 0.5, "proxy": 0.1}


@dataclass(frozen=True, slots=True)
class ObjectiveRequest(JsonConfig):
    """What the user asked for; None leaves the choice to the rules of `choose_objective`.

    The names are those of `TrainConfig`; `imbalance` may be "auto" besides. `task_shares` are
    in the order of the tasks.
    """

    optimizer: str = "adamw"
    learning_rate: float | None = None
    weight_decay: float | None = None
    backbone_rate: float | None = None
    label_smoothing: float = 0.0
    mixup: float = 0.0
    imbalance: str = "auto"
    step_slices: int | None = None
    task_shares: tuple[float, ...] = ()
    robust_loss: str = "none"
    metric_loss: str = "none"
    metric_weight: float | None = None
    domain: str | None = None


def check_objective(asked: ObjectiveRequest) -> None:
    """Raise where a name is unknown or options do not go together, before the long work.

    Raises
    ------
    UsageError : says which; of a name, the nearest one that there is
    """
    for kind, name, known in (
        ("optimizer", asked.optimizer, Optimizer),
        ("--imbalance", asked.imbalance, Imbalance),
        ("--robust-loss", asked.robust_loss, RobustLoss),
        ("--metric-loss", asked.metric_loss, MetricLoss),
    ):
        names = typing.get_args(known)
        check_name(("auto", *names) if known is Imbalance else names, kind, name)
    for option, value in (
        ("--learning-rate", asked.learning_rate),
        ("--weight-decay", asked.weight_decay),
        ("--backbone-rate", asked.backbone_rate),
        ("--label-smoothing", asked.label_smoothing),
        ("--mixup", asked.mixup),
        ("--metric-weight", asked.metric_weight),
    ):
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise UsageError(f"{option} {value} is no number from 0", "Leave it out, or give one")
    if asked.learning_rate == 0:
        raise UsageError("--learning-rate 0 teaches nothing", "Leave it out, or give more than 0")
    if asked.label_smoothing >= 1:
        raise UsageError(
            f"--label-smoothing {asked.label_smoothing:g} leaves nothing of the labels",
            "Give less than 1; 0.1 is usual",
        )
    if asked.imbalance == "focal" and asked.robust_loss != "none":
        raise UsageError(
            "--imbalance focal and --robust-loss contradict each other: one looks at the scans "
            "that fit their label least, the other away from them",
            "Leave one of them out; --imbalance weights goes with --robust-loss",
        )
    if asked.task_shares and asked.imbalance != "sampler":
        raise UsageError("task_shares draw nothing", "Ask for imbalance sampler beside them")
    if any(not (math.isfinite(share) and share > 0) for share in asked.task_shares):
        raise UsageError(f"task_shares {asked.task_shares}: each has to be a number above 0")
    if asked.step_slices is not None and asked.step_slices < 1:
        raise UsageError(f"step_slices {asked.step_slices} leaves nothing of a scan")
    if asked.metric_weight is not None and asked.metric_loss == "none":
        raise UsageError("--metric-weight weighs nothing", "Give --metric-loss supcon or proxy")


def choose_objective(
    config: TrainConfig,
    asked: ObjectiveRequest,
    train: ScanArrays,
    tasks: Sequence[Task] = (),
    *,
    pretrained: bool,
) -> TrainConfig:
    """`config` with what was asked, and where that is open what fits optimizer and data.

    Parameters
    ----------
    tasks : what the labels of `train` are columns of; empty: the classes of one task

    Raises
    ------
    UsageError : as `check_objective`, or what asks for one class to a scan of findings
    """
    check_objective(asked)
    if train.labels.ndim == 2:
        _check_findings(asked)
    if asked.task_shares and len(asked.task_shares) != max(1, len(tasks)):
        raise UsageError(f"{len(asked.task_shares)} task_shares for {max(1, len(tasks))} tasks")
    rate, decay = RATES[asked.optimizer]
    share = PRETRAINED_SHARE if pretrained else 1.0
    imbalance = asked.imbalance
    if imbalance == "auto":
        imbalance = choose_imbalance(train.labels, tasks)
    return replace(
        config,
        optimizer=typing.cast(Optimizer, asked.optimizer),
        learning_rate=_given(asked.learning_rate, rate),
        weight_decay=_given(asked.weight_decay, decay),
        backbone_rate=_given(asked.backbone_rate, share),
        label_smoothing=asked.label_smoothing,
        mixup=asked.mixup,
        imbalance=typing.cast(Imbalance, imbalance),
        step_slices=asked.step_slices,
        task_shares=asked.task_shares,
        robust_loss=typing.cast(RobustLoss, asked.robust_loss),
        metric_loss=typing.cast(MetricLoss, asked.metric_loss),
        metric_weight=_given(asked.metric_weight, METRIC_WEIGHTS[asked.metric_loss]),
        domain=asked.domain,
    )


def _check_findings(asked: ObjectiveRequest) -> None:
    """Raise where an option asks for scans of one class each."""
    for option, value, fitting in (
        ("--imbalance", asked.imbalance, ("auto", "weights")),
        ("--robust-loss", asked.robust_loss, ("none",)),
        ("--metric-loss", asked.metric_loss, ("none",)),
        ("--domain", asked.domain, (None,)),
    ):
        if value not in fitting:
            raise UsageError(
                f"{option} {value} is for one class to a scan; here a scan has several findings",
                "Leave it out: each finding is weighed by how rare it is",
            )


def choose_imbalance(labels: np.ndarray, tasks: Sequence[Task] = ()) -> Imbalance:
    """What `--imbalance auto` means for (N,) labels, the columns of `tasks`.

    Class weights, and logit adjustment where the largest class is `UNEVEN` times the smallest:
    there a batch holds a few scans of the small class or none, so that its weight comes in
    jolts. Measured at 1 : 20 (benchmarks/README.md); where the border lies was not.
    """
    if labels.ndim == 2:
        return "weights"
    counts = np.bincount(labels)
    for columns in column_ranges(tasks) or (slice(None),):
        own = counts[columns]
        if own.max() >= UNEVEN * own[own > 0].min():
            return "logit-adjust"
    return "weights"


def describe_objective(config: TrainConfig) -> str:
    """The settings that are not the plain ones, for people; empty where all are."""
    told = [f"{config.optimizer} at {config.learning_rate:g}"]
    if config.backbone_rate != 1:
        told.append(f"backbone at {config.backbone_rate:g} of it")
    if config.imbalance != "none":
        told.append(f"classes evened out by {config.imbalance}")
    if config.domain:
        told.append(f"{config.domain} evened out")
    if config.robust_loss != "none":
        told.append(f"robust loss {config.robust_loss}")
    if config.metric_loss != "none":
        told.append(f"{config.metric_weight:g} × {config.metric_loss}")
    if config.label_smoothing:
        told.append(f"labels smoothed by {config.label_smoothing:g}")
    if config.task_shares:
        told.append("tasks drawn as " + " : ".join(f"{each:g}" for each in config.task_shares))
    if config.step_slices:
        told.append(f"{config.step_slices} slices of a stack a step")
    if config.mixup:
        told.append(f"mixup {config.mixup:g}")
    return ", ".join(told)


def _given(value: float | None, default: float) -> float:
    return default if value is None else value
