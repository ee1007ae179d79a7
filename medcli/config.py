"""Settings that travel with a model, as frozen dataclasses ⇄ JSON."""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

Window = tuple[float, float]
NO_AGGREGATOR = "none"
"""Stands for the aggregator of a network that sees the slices of a scan together."""
Augmentation = Literal["none", "ct", "radiograph", "colour", "grey"]
Optimizer = Literal["adamw", "adam", "sgd"]
Imbalance = Literal["none", "weights", "sampler", "focal", "logit-adjust"]
RobustLoss = Literal["none", "gce", "symmetric"]
MetricLoss = Literal["none", "supcon", "proxy"]
EngineName = Literal["auto", "onnxruntime", "openvino", "openvino-bf16"]


class JsonConfig:
    """Conversion between a frozen dataclass and a JSON object."""

    def to_json(self) -> dict[str, Any]:
        """The settings as a JSON object (tuples become lists)."""
        return typing.cast(
            dict[str, Any],
            json.loads(json.dumps(dataclasses.asdict(typing.cast(Any, self)))),
        )

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Settings from a JSON object; missing keys take the default.

        Raises
        ------
        ValueError : a key this version does not know, or a value of the wrong kind
        """
        hints = typing.get_type_hints(cls)
        unknown = sorted(set(values) - set(hints))
        if unknown:
            raise ValueError(f"unknown {cls.__name__} keys: {', '.join(unknown)}")
        return cls(**{key: _frozen(value, hints[key], key) for key, value in values.items()})


def _frozen(value: Any, hint: Any, key: str) -> Any:
    """`value` with lists as tuples, checked against the outermost type of `hint`."""
    if isinstance(value, list):
        value = tuple(_frozen(item, Any, key) for item in value)
    options = (
        typing.get_args(hint)
        if typing.get_origin(hint) in (typing.Union, types.UnionType)
        else (hint,)
    )
    for option in options:
        if typing.get_origin(option) is Literal:
            if value in typing.get_args(option):
                return value
            continue
        kind = typing.get_origin(option) or option
        if kind is Any or (isinstance(kind, type) and isinstance(value, kind)):
            return value
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
    raise ValueError(f"{key}: {value!r} does not fit {hint}")


@dataclass(frozen=True, slots=True)
class PreprocessConfig(JsonConfig):
    """How a scan becomes the (S, C, H, W) input of a model.

    Attributes
    ----------
    size : rows and columns of the input
    channels : 1 (grey) or 3 (RGB; grey scans are repeated)
    ct_window : (center, width) in HU that CT is seen through
    index_windows : further windows in HU under which CT slices enter a gallery, so
        that a picture saved with one of them finds its slice
    percentiles : the values mapped to 0 and 1 for MR, X-ray and 16-bit pictures,
        taken over the whole scan
    pictures : what happens to 8-bit grey pictures: "full_range" maps 0–255 onto
        0–1 (they were windowed by who saved them), "percentiles" treats them like X-rays
    slice_budget : longer series are sampled evenly to this many slices
    mean, std : per channel, of the training part, after scaling to 0–1
    region_mm : side of the region that the model answers about, in mm; None: it answers
        about the scan as it is
    region_task : which of several tasks is asked about a region, and about a CT in HU; None: the
        router says it of a region as of any scan
    """

    size: int = 64
    channels: Literal[1, 3] = 1
    ct_window: Window = (-600.0, 1500.0)
    index_windows: tuple[Window, ...] = ((-600.0, 1500.0), (40.0, 400.0))
    percentiles: tuple[float, float] = (0.5, 99.5)
    pictures: Literal["full_range", "percentiles"] = "full_range"
    slice_budget: int = 32
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.25,)
    region_mm: float | None = None
    region_task: str | None = None

    def __post_init__(self) -> None:
        if self.region_mm is not None and not 0 < self.region_mm < math.inf:
            raise ValueError(f"region_mm: {self.region_mm} is no length")

    def to_json(self) -> dict[str, Any]:
        """As of every config; what is said of a region is left out where there is none.

        The fingerprint of a model hangs on these lines, and models from before there were
        regions keep theirs.
        """
        values = JsonConfig.to_json(self)
        for name in ("region_mm", "region_task"):
            if values[name] is None:
                del values[name]
        return values


@dataclass(frozen=True, slots=True)
class ModelConfig(JsonConfig):
    """What is built: names from the registries of `medcli.models.registry`.

    Attributes
    ----------
    embedding_dim : length of the learnt part of an embedding
    layout_grid : the other part is a picture of so many fields a side
    layout_share : weight of the layout in the cosine of two embeddings, 0–1
    measured_columns : first and end of the logits that a regression on measures of the finding
        in the middle has a say in (`medcli.models.measured_model`); None: it has none
    """

    arch: str = "resnet18_half"
    aggregator: str = "attention"
    embedding_dim: int = 128
    layout_grid: int = 8
    layout_share: float = 0.2
    dropout: float = 0.2
    measured_columns: tuple[int, int] | None = None

    def to_json(self) -> dict[str, Any]:
        """As of every config; older versions read the model where nothing is measured."""
        values = JsonConfig.to_json(self)
        if self.measured_columns is None:
            del values["measured_columns"]
        return values

    @property
    def network(self) -> str:
        """Backbone, aggregator, and whether findings are measured, for people."""
        beside = " and measures" if self.measured_columns else ""
        inner = "" if self.aggregator == NO_AGGREGATOR else f" with {self.aggregator}"
        return f"{self.arch}{inner}{beside}"

    @property
    def vector_dim(self) -> int:
        """Length of a vector in a gallery: learnt part and layout."""
        return self.embedding_dim + self.layout_grid**2


@dataclass(frozen=True, slots=True)
class DetectionConfig(JsonConfig):
    """How regions of a slice are proposed and judged; lengths in pixels of the model's input.

    Attributes
    ----------
    stride : between two fields of the map that anchors stand on
    width : of that map
    anchor_sizes : square roots of the anchors' areas
    anchor_ratios : their heights divided by their widths
    proposals : regions of a slice that the second stage judges
    proposal_overlap : of two proposals that overlap more (intersection over union) the
        better one goes on
    overlap : the same for the boxes of an answer
    score : boxes below it are no answer
    most : boxes of a slice in an answer
    """

    stride: int = 8
    width: int = 64
    anchor_sizes: tuple[float, ...] = (16.0, 32.0, 64.0)
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    proposals: int = 60
    proposal_overlap: float = 0.7
    overlap: float = 0.4
    score: float = 0.05
    most: int = 20


@dataclass(frozen=True, slots=True)
class TrainConfig(JsonConfig):
    """How a model is trained.

    Attributes
    ----------
    epochs : passes over the training part
    minutes : stop before the epoch that would pass this time; None: no limit
    follow_clock : let the learning rate fall with the time spent of `minutes`, where that
        is ahead of the epochs, so that a short budget ends at a low rate too
    patience : epochs without a better validation AUROC before stopping
    batch_slices : slices in a batch (a batch holds whole scans)
    step_slices : slices of a stack that one step sees, drawn anew each time; None: all
    task_shares : how often scans of each of several tasks are drawn, relatively, where
        `imbalance` is "sampler"; empty: of each task alike
    learning_rate : peak of the cosine schedule
    backbone_rate : share of the learning rate that the backbone gets
    slice_loss : weight of the loss that asks each slice alone for the scan's class
    augmentations : one for each of several tasks; empty: `augmentation` for all scans
    bf16 : bfloat16 autocast of the backbone
    fp16 : float16 autocast of the backbone and a scaled loss, on a GPU without bfloat16
    mixup : both parameters of the Beta distribution that scans are mixed by; 0: not mixed
    imbalance : what evens out that classes differ in size
    robust_loss : what takes the place of cross-entropy where labels are noisy
    metric_loss : what draws embeddings of a class together, with the weight `metric_weight`
    domain : column of the manifest whose values count the same; None: each scan does
    """

    epochs: int = 20
    minutes: float | None = None
    follow_clock: bool = False
    seed: int = 0
    patience: int = 6
    batch_slices: int = 64
    step_slices: int | None = None
    task_shares: tuple[float, ...] = ()
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    warmup: float = 0.1
    label_smoothing: float = 0.0
    slice_loss: float = 0.5
    gradient_clip: float = 1.0
    ema: float = 0.99
    augmentation: Augmentation = "grey"
    augmentations: tuple[Augmentation, ...] = ()
    bf16: bool = False
    fp16: bool = False
    test_fraction: float = 0.15
    val_fraction: float = 0.15
    optimizer: Optimizer = "adamw"
    backbone_rate: float = 1.0
    mixup: float = 0.0
    imbalance: Imbalance = "weights"
    robust_loss: RobustLoss = "none"
    metric_loss: MetricLoss = "none"
    metric_weight: float = 0.0
    domain: str | None = None


@dataclass(frozen=True, slots=True)
class Calibration(JsonConfig):
    """How the logits of a trained model become an answer; fitted on the validation part.

    Attributes
    ----------
    temperature : probabilities are softmax(logits / temperature + offsets)
    offsets : of each class; None: 0 for all, as in packages up to format 3
    coverage : share of the scans of each class whose label set is to hold it
    label_set_levels : per class, the probability from which it stands in a label set;
        None: no label sets
    platt : per finding (scale, offset), where a scan may have several: its probability is
        sigmoid(scale · logit + offset)
    """

    temperature: float = 1.0
    offsets: tuple[float, ...] | None = None
    coverage: float = 0.9
    label_set_levels: tuple[float, ...] | None = None
    platt: tuple[tuple[float, float], ...] | None = None

    def __post_init__(self) -> None:
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature: {self.temperature} is not above 0")
        if not all(map(math.isfinite, self.offsets or ())):
            raise ValueError("offsets: one is not finite")
        if not all(0 <= level <= 1 for level in self.label_set_levels or ()):
            raise ValueError("label_set_levels: a level is no probability")
        for pair in self.platt or ():
            if len(pair) != 2 or not all(map(math.isfinite, pair)) or pair[0] < 0:
                raise ValueError(f"platt: {pair!r} is no scale and offset")
