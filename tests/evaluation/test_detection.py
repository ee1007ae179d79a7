"""Average precision and FROC, compared with COCO's own code and with arithmetic by hand."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pytest
import torch
from torchvision import ops

from medcli.evaluation.detection import (
    ImageBoxes,
    best_threshold,
    detection_metrics,
    matched,
)
from medcli.evaluation.overlap import box_iou, suppress


def drawn_images(seed: int, count: int = 30, classes: int = 2) -> list[ImageBoxes]:
    """True boxes, and found ones that are true ones moved, or anywhere."""
    rng = np.random.default_rng(seed)

    def boxes(number: int) -> np.ndarray:
        corner, side = rng.uniform(0, 60, (number, 2)), rng.uniform(8, 40, (number, 2))
        return np.concatenate([corner, corner + side], axis=1)

    images = []
    for _ in range(count):
        truths = boxes(rng.integers(0, 4))
        kinds = rng.integers(0, classes, len(truths))
        near = truths + rng.normal(0, 3, truths.shape)
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)  # COCO leaves inverted boxes out
        found = np.concatenate([near, boxes(rng.integers(0, 4))])
        others = rng.integers(0, classes, len(found) - len(near))
        images.append(
            ImageBoxes(
                truths,
                kinds,
                found,
                rng.permutation(np.linspace(0.05, 0.95, 1000))[: len(found)],
                np.concatenate([kinds, others]),
            )
        )
    return images


def coco(images: list[ImageBoxes], classes: int) -> Any:
    """The summary of COCO's evaluation: AP50–95 first, AP50 second."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def entry(box: np.ndarray, image: int, k: int) -> dict[str, Any]:
        x0, y0, x1, y1 = map(float, box)
        bbox = [x0, y0, x1 - x0, y1 - y0]
        area = bbox[2] * bbox[3]
        return {"image_id": image, "category_id": int(k) + 1, "bbox": bbox, "area": area}

    truth, found = COCO(), []
    truth.dataset = {
        "images": [{"id": number} for number, _ in enumerate(images, start=1)],
        "categories": [{"id": k + 1} for k in range(classes)],
        "annotations": [],
    }
    for number, image in enumerate(images, start=1):
        for box, k in zip(image.truths, image.truth_classes, strict=True):
            place = len(truth.dataset["annotations"]) + 1
            held = {**entry(box, number, k), "id": place, "iscrowd": 0}
            truth.dataset["annotations"].append(held)
        for box, score, k in zip(image.boxes, image.scores, image.classes, strict=True):
            found.append({**entry(box, number, k), "score": float(score)})
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


@pytest.mark.parametrize("seed", range(3))
def test_average_precision_is_that_of_coco(seed: int) -> None:
    images = drawn_images(seed)
    metrics = detection_metrics(images, np.zeros(len(images), np.intp), 2)
    expected = coco(images, 2)
    assert metrics["ap50_95"] == pytest.approx(expected[0], abs=1e-6)
    assert metrics["ap50"] == pytest.approx(expected[1], abs=1e-6)
    assert 0 < metrics["ap50_95"] < metrics["ap50"] < 1


def one(truths: list[list[float]], found: list[list[float]], scores: list[float]) -> ImageBoxes:
    """An image of one class."""
    return ImageBoxes(
        np.array(truths, float).reshape(-1, 4),
        np.zeros(len(truths), int),
        np.array(found, float).reshape(-1, 4),
        np.array(scores, float),
        np.zeros(len(found), int),
    )


HERE, THERE, AWAY = [0.0, 0, 10, 10], [20.0, 20, 30, 30], [50.0, 50, 60, 60]


def test_froc_by_hand() -> None:
    # By falling score: hit .9, false .8, false .7, hit .6; two images, three true boxes.
    first = one([HERE, THERE], [HERE, AWAY, [80, 80, 90, 90], THERE], [0.9, 0.8, 0.7, 0.6])
    second = one([AWAY], [], [])
    metrics = detection_metrics([first, second], np.array([0, 1]), 1)
    assert metrics["recall_at_fppi"] == {
        "1": pytest.approx(2 / 3),
        "4": pytest.approx(2 / 3),
        "8": pytest.approx(2 / 3),
    }
    # With a third false box an image before the second hit, only the first counts at 1.
    worse = one(
        [HERE, THERE],
        [HERE, AWAY, [80, 80, 90, 90], [70, 70, 75, 75], THERE],
        [0.9, 0.8, 0.7, 0.65, 0.6],
    )
    metrics = detection_metrics([worse, second], np.array([0, 1]), 1)
    assert metrics["recall_at_fppi"]["1"] == pytest.approx(1 / 3)
    assert metrics["recall_at_fppi"]["4"] == pytest.approx(2 / 3)
    assert (metrics["n_images"], metrics["n_boxes"]) == (2, 3)


def test_without_true_boxes_nothing_is_defined() -> None:
    metrics = detection_metrics([one([], [HERE], [0.9])], np.array([0]), 1)
    assert metrics["ap50"] is None
    assert metrics["recall_at_fppi"]["1"] is None
    assert metrics["ci"]["ap50"] is None


def test_a_true_box_is_hit_once() -> None:
    found = np.array([HERE, HERE, THERE])
    hits = matched(found, np.array([0.5, 0.9, 0.1]), np.array([HERE]), 0.5)
    assert hits.tolist() == [False, True, False]


def test_intervals_hold_the_value_and_resample_patients() -> None:
    images = drawn_images(7, count=40)
    apart = detection_metrics(images, np.arange(40), 2, seed=1)
    low, high = apart["ci"]["ap50"]
    assert low < apart["ap50"] < high
    together = detection_metrics(images, np.zeros(40, np.intp), 2)
    assert together["ci"]["ap50"] is None  # one patient: nothing to resample


def test_the_threshold_with_the_highest_f1() -> None:
    image = one([HERE, THERE], [HERE, THERE, AWAY], [0.9, 0.6, 0.3])
    assert best_threshold([image], 1) == pytest.approx(0.6)
    assert best_threshold([one([HERE], [], [])], 1) == 0.5


def test_overlap_and_suppression_are_those_of_torchvision() -> None:
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 40, (60, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(5, 30, (60, 2))], axis=1)
    scores = rng.permutation(60) / 60
    given = torch.from_numpy(boxes)
    assert np.allclose(box_iou(boxes, boxes[:7]), ops.box_iou(given, given[:7]).numpy())
    expected = ops.nms(given, torch.from_numpy(scores), 0.5)
    assert suppress(boxes, scores, 0.5).tolist() == expected.tolist()
    assert suppress(boxes[:0], scores[:0], 0.5).tolist() == []
