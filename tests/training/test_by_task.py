"""Several tasks in one batch: each scan is asked about its own task alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch.nn import functional as F

from medcli.config import ModelConfig, PreprocessConfig, TrainConfig
from medcli.data.arrays import ScanArrays
from medcli.models.heads import column_ranges, head_width, make_heads, make_router
from medcli.models.scan_model import ScanModel
from medcli.records import Task
from medcli.training.batches import batches, draw_slices
from medcli.training.by_task import (
    TasksObjective,
    augmentation_of,
    mean_auroc,
    own_scans,
    task_numbers,
)
from medcli.training.loop import fit
from medcli.training.prediction import predict_logits

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")
SIZE = 16
TASKS = (Task("a", ("x", "y")), Task("b", ("u", "v", "w")), Task("c", ("p", "q")))
LABELS = np.array([0, 1, 2, 3, 4, 5, 6, 1, 2])  # columns; two scans more of x, y and u
NUMBERS = [0, 0, 1, 1, 1, 2, 2, 0, 1]


def scans(labels: np.ndarray = LABELS, seed: int = 0) -> ScanArrays:
    """Stacks of one to three slices of noise."""
    lengths = np.arange(len(labels), dtype=np.int64) % 3 + 1
    images = np.random.default_rng(seed).integers(0, 80, (lengths.sum(), 1, SIZE, SIZE))
    return ScanArrays(images.astype(np.uint8), lengths, labels.astype(np.int64))


def test_columns_follow_the_tasks_and_the_router_comes_last() -> None:
    assert column_ranges(TASKS) == (slice(0, 2), slice(2, 5), slice(5, 7))
    assert head_width(TASKS) == 10
    assert head_width(TASKS[:1]) == 2
    router = make_router(TASKS)
    assert router is not None
    assert router.columns == slice(7, 10)
    assert make_router(TASKS[:1]) is None
    assert [head.columns for head in make_heads(TASKS)] == list(column_ranges(TASKS))


def test_a_label_says_which_task_a_scan_belongs_to() -> None:
    assert task_numbers(LABELS, TASKS).tolist() == NUMBERS
    rows, own = own_scans(scans(), slice(2, 5))
    assert rows.tolist() == [2, 3, 4, 8]
    assert own.labels.tolist() == [0, 1, 2, 0]
    np.testing.assert_array_equal(own.images, scans().select(rows).images)


def gradients(rows: np.ndarray, config: TrainConfig) -> torch.Tensor:
    """(W,) size of the gradient of each column of the head for the loss of some scans."""
    batch = scans().select(rows)
    torch.manual_seed(0)
    small = ModelConfig(arch="cnn_lrn", embedding_dim=8, dropout=0.0)
    model = ScanModel(small, 1, SIZE, head_width(TASKS))
    objective = TasksObjective(config, scans(), TASKS, CPU)
    lengths = batch.lengths.tolist()
    features = model.encode(torch.from_numpy(batch.images).float() / 255)
    output = model.aggregate_ragged(features, lengths)
    objective(model, output, features.learnt, objective.target(rows), lengths).backward()
    assert model.head.weight.grad is not None
    return model.head.weight.grad.abs().sum(dim=1)


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"imbalance": "focal"},
        {"imbalance": "sampler", "label_smoothing": 0.2},
        {"imbalance": "logit-adjust"},
        {"imbalance": "none", "robust_loss": "gce"},
    ],
    ids=str,
)
@pytest.mark.parametrize("task", range(3))
def test_a_scan_does_not_touch_the_columns_of_other_tasks(task: int, asked: Any) -> None:
    rows = np.flatnonzero(np.array(NUMBERS) == task)
    touched = gradients(rows, TrainConfig(**asked)) > 0
    expected = torch.zeros(head_width(TASKS), dtype=torch.bool)
    expected[column_ranges(TASKS)[task]] = True
    expected[7:] = True  # the router is asked about every scan
    assert touched.tolist() == expected.tolist()


def test_the_loss_is_the_mean_of_the_tasks_and_of_the_router_by_hand() -> None:
    """Without the loss of single slices, with as many scans of each class as of the others."""
    labels = np.array([0, 1, 5, 6, 5, 6, 5, 6])
    tasks = (TASKS[0], TASKS[2])
    batch = scans(np.where(labels > 4, labels - 3, labels))
    config = TrainConfig(slice_loss=0.0)
    torch.manual_seed(0)
    model = ScanModel(ModelConfig(arch="cnn_lrn", dropout=0.0), 1, SIZE, head_width(tasks)).eval()
    features = model.encode(torch.from_numpy(batch.images).float() / 255)
    output = model.aggregate_ragged(features, batch.lengths.tolist())
    objective = TasksObjective(config, batch, tasks, CPU)
    given = torch.from_numpy(batch.labels)
    target = objective.target(np.arange(len(given)))
    loss = objective(model, output, features.learnt, target, batch.lengths.tolist())
    first = F.cross_entropy(output.logits[:2, :2], given[:2])
    second = F.cross_entropy(output.logits[2:, 2:4], given[2:] - 2)
    each = F.cross_entropy(output.logits[:, 4:], torch.tensor([0] * 2 + [1] * 6), reduction="none")
    router = (each[:2].mean() + each[2:].mean()) / 2
    torch.testing.assert_close(loss, ((first + second) / 2 + router) / 2)
    mean = np.mean([first.item(), second.item(), router.item()])
    assert objective.validation(output.logits.detach(), given) == pytest.approx(mean, rel=1e-5)


def test_the_auroc_is_the_mean_of_the_tasks_and_the_router() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 7, 60)
    logits = rng.normal(size=(60, 10)).astype(np.float32)

    def softmax(columns: slice) -> np.ndarray:
        powers = np.exp(logits[:, columns])
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))

    a, b, c = (np.flatnonzero(task_numbers(labels, TASKS) == number) for number in range(3))
    areas = [
        roc_auc_score(task_numbers(labels, TASKS), softmax(slice(7, 10)), multi_class="ovr"),
        roc_auc_score(labels[a] == 1, softmax(slice(0, 2))[a, 1]),
        roc_auc_score(labels[b] - 2, softmax(slice(2, 5))[b], multi_class="ovr"),
        roc_auc_score(labels[c] == 6, softmax(slice(5, 7))[c, 1]),
    ]
    found = mean_auroc(labels, torch.from_numpy(logits), TASKS)
    assert found == pytest.approx(np.mean(areas))


def test_tasks_are_drawn_by_their_shares_and_classes_alike() -> None:
    plain = TrainConfig(imbalance="sampler")
    for config, expected in (
        (plain, [1, 1, 1]),
        (replace(plain, task_shares=(1.0, 4.0, 2.0)), [1, 4, 2]),
    ):
        chances = TasksObjective(config, scans(), TASKS, CPU).chances
        assert chances is not None
        totals = [float(chances[np.array(NUMBERS) == task].sum()) for task in range(3)]
        assert [total / totals[0] for total in totals] == pytest.approx(expected)
        assert float(chances[0]) == pytest.approx(float(chances[[1, 7]].sum()))  # x and y of a


def test_a_step_sees_some_slices_of_a_stack_in_their_order_and_others_next_time() -> None:
    stack = scans(np.array([0, 1, 0]))  # of 1, 2 and 3 slices
    generator = torch.Generator().manual_seed(0)
    rows = np.array([2, 0, 1])
    seen = set()
    for _ in range(30):
        drawn, lengths = draw_slices(stack, rows, 2, generator)
        assert lengths == [2, 1, 2]
        assert drawn[2:].tolist() == [0, 1, 2]
        seen.add(tuple(drawn[:2].tolist()))
    assert seen == {(3, 4), (3, 5), (4, 5)}
    whole, _ = draw_slices(stack, rows)
    np.testing.assert_array_equal(stack.images[whole], stack.select(rows).images)
    assert len(list(batches(stack, 2, None))) == 1  # of two scans at least
    many = scans(np.zeros(12, dtype=np.int64))  # 24 slices, 12 of them with one of each
    assert [len(list(batches(many, 4, None, step_slices=most))) for most in (None, 1)] == [6, 3]


def test_each_task_is_augmented_in_its_own_way() -> None:
    config = TrainConfig(augmentation="grey")
    assert augmentation_of(config, LABELS, TASKS) == "grey"
    config = replace(config, augmentations=("ct", "radiograph", "none"))
    kinds = augmentation_of(config, LABELS, TASKS)
    assert kinds == [("ct", "radiograph", "none")[number] for number in NUMBERS]


def test_separable_tasks_and_their_router_are_learnt() -> None:
    """Dark and bright pictures are two tasks; a corner tells the classes of each."""
    labels = np.tile([0, 1, 2, 3], 6)
    given = scans(labels)
    given.images[np.repeat(labels % 2, given.lengths) == 1, :, :6, :6] += 90
    given.images[np.repeat(labels > 1, given.lengths)] += 80
    tasks = (TASKS[0], TASKS[2])
    torch.manual_seed(0)
    model = ScanModel(
        ModelConfig(arch="cnn_lrn", aggregator="mean", embedding_dim=16, dropout=0.0),
        *(1, SIZE, head_width(tasks)),
    )
    settings = PreprocessConfig(size=SIZE, mean=(0.3,), std=(0.2,))
    config = TrainConfig(
        augmentation="none", ema=0.9, epochs=25, patience=25, batch_slices=12, learning_rate=3e-3
    )
    fitted = fit(model, given, given, settings, config, device=CPU, tasks=tasks)
    logits = predict_logits(fitted.model, given, settings, 64, CPU).numpy()
    assert logits[:, 4:].argmax(axis=1).tolist() == (labels > 1).tolist()
    for number, columns in enumerate(column_ranges(tasks)):
        rows = labels // 2 == number
        assert logits[rows][:, columns].argmax(axis=1).tolist() == (labels[rows] % 2).tolist()
