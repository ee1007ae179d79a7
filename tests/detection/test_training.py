"""Boxes move with their pictures; both stages learn; what stands for nothing costs nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from medcli.config import DetectionConfig, ModelConfig, PreprocessConfig, TrainConfig
from medcli.detection.arrays import BoxArrays
from medcli.detection.augment import augment
from medcli.detection.fit import fit
from medcli.detection.network import DetectionModel
from medcli.detection.objective import detection_loss
from medcli.detection.settings import choose_detection
from medcli.errors import UsageError

pytestmark = pytest.mark.usefixtures("one_thread")

Draw = Callable[[int, int], BoxArrays]
CONFIG = DetectionConfig(stride=8, width=32, anchor_sizes=(13.0, 17.0, 21.0))
SMALL = ModelConfig(arch="cnn_lrn", aggregator="none", embedding_dim=32)


def test_boxes_move_with_their_pictures() -> None:
    generator = torch.Generator().manual_seed(3)
    images = torch.zeros(40, 1, 64, 64)
    images[:, :, 20:36, 30:50] = 1
    boxes = [torch.tensor([[30.0, 20, 50, 36]])] * 40
    labels = [torch.ones(1, dtype=torch.long)] * 40
    moved, seen, kept = augment(images, boxes, labels, "ct", generator)
    compared = 0
    for picture, box, label in zip(moved[:, 0], seen, kept, strict=True):
        assert len(box) == len(label)
        bright = picture > 0.5
        if not len(box):
            continue
        columns, rows = torch.where(bright.any(0))[0], torch.where(bright.any(1))[0]
        drawn = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        assert box[0].tolist() == pytest.approx([float(each) for each in drawn], abs=1.1)
        compared += 1
    assert compared > 30


def test_pictures_without_boxes_have_a_finite_loss() -> None:
    torch.manual_seed(0)
    model = DetectionModel(SMALL, CONFIG, 1, 64, 1)
    none = [torch.empty(0, 4)] * 2, [torch.empty(0, dtype=torch.long)] * 2
    loss = detection_loss(model, torch.randn(2, 1, 64, 64), *none, CONFIG)
    loss.backward()  # type: ignore[no-untyped-call]
    assert torch.isfinite(loss)


@pytest.mark.slow
def test_a_detector_that_sees_the_same_pictures_again_gets_better_at_them(
    drawn_discs: Draw,
) -> None:
    train = drawn_discs(24, 1)
    mean, std = train.statistics()
    preprocess = PreprocessConfig(size=64, mean=mean, std=std)
    config = TrainConfig(
        epochs=14, batch_slices=8, augmentation="none", learning_rate=3e-3, ema=0.9
    )
    torch.manual_seed(0)
    model = DetectionModel(SMALL, CONFIG, 1, 64, 1)
    fitted = fit(
        model,
        train,
        train,
        preprocess,
        CONFIG,
        config,
        device=torch.device("cpu"),
        num_classes=1,
    )
    looks = [line.val_ap50 for line in fitted.history if line.val_ap50 is not None]
    assert fitted.stopped == "epochs"
    assert max(looks) > 0.5 > looks[0]


def test_the_clock_ends_a_training(drawn_discs: Draw) -> None:
    train = drawn_discs(6, 1)
    config = TrainConfig(epochs=100_000, minutes=1e-4, batch_slices=2, augmentation="ct")
    model = DetectionModel(SMALL, CONFIG, 1, 64, 1)
    fitted = fit(
        model,
        train,
        train,
        PreprocessConfig(size=64),
        CONFIG,
        config,
        device=torch.device("cpu"),
        num_classes=1,
    )
    assert fitted.stopped == "minutes"
    assert len(fitted.history) <= 2


def test_anchors_are_as_large_as_the_boxes(drawn_discs: Draw) -> None:
    train = drawn_discs(30, 2)
    chosen = choose_detection(train)
    assert chosen.stride == 4  # the discs are small
    assert 12 <= chosen.anchor_sizes[0] < chosen.anchor_sizes[-1] <= 24
    large = replace(train, boxes=tuple(3 * np.array(box) for box in train.boxes))
    assert choose_detection(large).stride == 8


@pytest.mark.parametrize("arch", ["resnet18_half", "cnn_lrn", "mobilenet_v3_small"])
def test_every_kind_of_backbone_gives_a_map_with_an_anchor_at_each_field(arch: str) -> None:
    settings = ModelConfig(arch=arch, aggregator="none", embedding_dim=16)
    model = DetectionModel(settings, CONFIG, 1, 96, 2).eval()
    with torch.inference_mode():
        proposed = model.propose(torch.randn(2, 1, 96, 96))
        judged = model.judge(proposed.features, torch.tensor([[1.0, 4, 4, 40, 30]]))
    assert proposed.boxes.shape == (2, 12 * 12 * 9, 4)
    assert (proposed.boxes >= 0).all()
    assert (proposed.boxes <= 96).all()
    assert judged.logits.shape == (1, 3)


def test_a_stride_that_a_backbone_lacks_is_refused() -> None:
    with pytest.raises(UsageError, match="no feature map at a stride of 1 px"):
        DetectionModel(SMALL, replace(CONFIG, stride=1, width=8), 1, 96, 1)
