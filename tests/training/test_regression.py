"""The regression on measures that is put beside a trained network."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from medcli.config import ModelConfig, PreprocessConfig
from medcli.data.arrays import ScanArrays
from medcli.errors import UsageError
from medcli.models.scan_model import build_model
from medcli.records import Task
from medcli.training.prediction import predict_embeddings, predict_logits
from medcli.training.regression import choose_measured, with_measures

pytestmark = pytest.mark.usefixtures("one_thread")
SIZE, CPU = 32, torch.device("cpu")
CONFIG = ModelConfig(arch="cnn_lrn", embedding_dim=8, layout_grid=4, dropout=0.0)
PREPROCESS = PreprocessConfig(size=SIZE, mean=(0.2,), std=(0.3,))
NODULE = Task("nodule", ("benign", "malignant"), "malignant")
LUNG = Task("lung", ("normal", "pneumonia"), "pneumonia")


def discs(classes: int, seed: int, count: int = 60, first: int = 0) -> ScanArrays:
    """Stacks of discs on black, as large as their class says; labels from `first`."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    lengths = rng.integers(1, 4, count)
    line = np.arange(SIZE) - (SIZE - 1) / 2
    far = np.hypot(line[:, None], line)
    radii = np.repeat(3 + 1.5 * labels + rng.uniform(-0.5, 0.5, count), lengths)
    values = np.repeat(rng.uniform(150, 220, count), lengths)
    images = (far[None] <= radii[:, None, None]) * values[:, None, None]
    return ScanArrays(images[:, None].astype(np.uint8), lengths, labels + first)


@pytest.mark.parametrize("classes", [2, 3])
def test_it_knows_sizes_that_the_network_does_not(classes: int) -> None:
    torch.manual_seed(0)
    network = build_model(CONFIG, 1, SIZE, classes).eval()
    config = replace(CONFIG, measured_columns=(0, classes))
    whole = with_measures(
        network,
        config,
        discs(classes, 0),
        discs(classes, 1),
        PREPROCESS,
        batch_slices=32,
        device=CPU,
    )
    asked = discs(classes, 2)
    guessed, known = (
        predict_logits(model, asked, PREPROCESS, 32, CPU).argmax(dim=1).numpy() == asked.labels
        for model in (network, whole)
    )
    assert guessed.mean() < 0.7
    assert known.mean() > 0.9
    one, other = (predict_embeddings(m, asked, PREPROCESS, 32, CPU) for m in (network, whole))
    assert torch.equal(one, other)


def test_of_several_tasks_it_learns_from_its_own_and_answers_for_it() -> None:
    torch.manual_seed(0)
    network = build_model(CONFIG, 1, SIZE, 6).eval()  # four classes and the router
    columns = choose_measured(None, CONFIG, (LUNG, NODULE))
    assert columns == (2, 4)
    config = replace(CONFIG, measured_columns=columns)
    whole = with_measures(
        network, config, discs(2, 0, first=2), discs(2, 1, first=2), PREPROCESS,
        batch_slices=32, device=CPU,
    )  # fmt: skip
    asked = discs(2, 2, first=2)
    before, after = (predict_logits(m, asked, PREPROCESS, 32, CPU) for m in (network, whole))
    assert torch.allclose(before[:, [0, 1, 4, 5]], after[:, [0, 1, 4, 5]])
    assert (after[:, 2:4].argmax(dim=1).numpy() + 2 == asked.labels).mean() > 0.9


def test_what_says_nothing_gets_next_to_no_say() -> None:
    """Labels that are no matter of the picture: the regression must not drown the network."""
    torch.manual_seed(0)
    network = build_model(CONFIG, 1, SIZE, 2).eval()
    rng = np.random.default_rng(0)
    train, val = (discs(2, seed, 200) for seed in (0, 1))
    told = predict_logits(network, val, PREPROCESS, 32, CPU)
    train = replace(train, labels=rng.integers(0, 2, 200))
    val = replace(
        val, labels=(told[:, 1] - told[:, 0] > (told[:, 1] - told[:, 0]).median()).numpy() * 1
    )
    config = replace(CONFIG, measured_columns=(0, 2))
    whole = with_measures(network, config, train, val, PREPROCESS, batch_slices=32, device=CPU)
    after = predict_logits(whole, val, PREPROCESS, 32, CPU)
    order = np.corrcoef(told[:, 1] - told[:, 0], after[:, 1] - after[:, 0])[0, 1]
    assert order > 0.5


@pytest.mark.parametrize(
    ("asked", "arch", "tasks", "columns"),
    [
        (None, "cnn_lrn", (NODULE,), (0, 2)),
        (None, "cnn_lrn", (LUNG,), None),
        (False, "cnn_lrn", (NODULE,), None),
        (True, "cnn_lrn", (LUNG,), (0, 2)),
        (True, "cnn_lrn", (LUNG, NODULE), (2, 4)),
        (None, "r3d_18_half", (NODULE,), None),
        (None, "region_cnn", (NODULE,), None),
        (None, "cnn_lrn", (Task("nodule", ("a", "b"), multi_label=True),), None),
    ],
)
def test_where_it_is_added(
    asked: bool | None, arch: str, tasks: tuple[Task, ...], columns: tuple[int, int] | None
) -> None:
    assert choose_measured(asked, ModelConfig(arch=arch), tasks) == columns


@pytest.mark.parametrize(
    ("arch", "tasks", "words"),
    [
        ("r3d_18_half", (NODULE,), "sees slices"),
        ("cnn_lrn", (Task("film", ("a", "b"), multi_label=True),), "sees slices"),
        ("cnn_lrn", (LUNG, Task("gi", ("a", "b"))), "which of the tasks"),
    ],
)
def test_where_it_cannot_be_added(arch: str, tasks: tuple[Task, ...], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        choose_measured(True, ModelConfig(arch=arch), tasks)
