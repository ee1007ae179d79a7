"""Networks that learn: a few scans by heart, and what only the order of the slices tells."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from medcli.config import ModelConfig, PreprocessConfig, TrainConfig
from medcli.data.arrays import ScanArrays
from medcli.models.scan_model import build_model
from medcli.training.loop import Fit, fit
from medcli.training.prediction import predict_logits

pytestmark = pytest.mark.usefixtures("one_thread")
SIZE = 16
CPU = torch.device("cpu")
PREPROCESS = PreprocessConfig(size=SIZE, mean=(0.3,), std=(0.2,))
CONFIG = TrainConfig(augmentation="none", ema=0.9)


def noise(lengths: list[int], seed: int = 0) -> ScanArrays:
    """Scans without a finding, of class 0 and 1 in turn."""
    images = np.random.default_rng(seed).integers(0, 80, (sum(lengths), 1, SIZE, SIZE))
    return ScanArrays(
        images.astype(np.uint8), np.array(lengths), np.arange(len(lengths), dtype=np.int64) % 2
    )


def with_a_corner() -> ScanArrays:
    """Eight scans with a bright corner in every slice of class 1."""
    scans = noise([1, 2, 3, 2, 4, 3, 2, 1])
    scans.images[np.repeat(scans.labels, scans.lengths) == 1, :, :6, :6] += 150
    return scans


def first_or_last(seed: int) -> ScanArrays:
    """Stacks with a bright corner in one slice: the first of class 0, the last of class 1."""
    scans = noise([2, 3, 4, 5, 3, 2, 5, 4] * 3, seed)
    starts, ends = scans.offsets[:-1], scans.offsets[1:] - 1
    scans.images[np.where(scans.labels == 1, ends, starts), :, :6, :6] += 150
    return scans


def fitted(
    arch: str, aggregator: str, config: TrainConfig, train: ScanArrays, val: ScanArrays
) -> Fit:
    torch.manual_seed(0)
    model = build_model(
        ModelConfig(arch=arch, aggregator=aggregator, embedding_dim=16, dropout=0.0), 1, SIZE, 2
    )
    return fit(model, train, val, PREPROCESS, config, device=CPU)


@pytest.mark.parametrize(
    ("arch", "aggregator"),
    [
        ("cnn_lrn", "max"),
        ("cnn_lrn_average", "sum"),
        ("cnn_lrn_sum", "mean"),
        ("perceptron", "attention"),
    ],
)
def test_eight_scans_are_learnt_by_heart(arch: str, aggregator: str) -> None:
    scans = with_a_corner()
    config = replace(CONFIG, epochs=40, patience=40, batch_slices=9)
    model = fitted(arch, aggregator, config, scans, scans).model
    logits = predict_logits(model, scans, PREPROCESS, 64, CPU)
    assert logits.argmax(dim=1).tolist() == scans.labels.tolist()


@pytest.mark.parametrize("arch", ["region_cnn", "region_measures"])
def test_a_region_network_learns_which_nodules_are_larger(arch: str) -> None:
    scans = noise([1, 2, 3, 2, 4, 3, 2, 1] * 3)
    sides = np.where(np.repeat(scans.labels, scans.lengths) == 1, 5, 3)
    middle = np.abs(np.arange(SIZE) - SIZE // 2)
    rows = middle[None] < sides[:, None] / 2 + 0.1
    scans.images[:] = np.where(rows[:, :, None] & rows[:, None], 150, 0)[:, None]
    torch.manual_seed(0)
    shape = ModelConfig(arch=arch, embedding_dim=16, dropout=0.0)
    model = build_model(shape, 1, SIZE, 2)
    model.prepare(torch.from_numpy(scans.images).float() / 255, scans.lengths.tolist())
    unit = PreprocessConfig(size=SIZE, mean=(0.0,), std=(1.0,))
    config = replace(CONFIG, epochs=15, patience=15, batch_slices=12)
    kept = fit(model, scans, scans, unit, config, device=CPU).model
    assert predict_logits(kept, scans, unit, 64, CPU).argmax(dim=1).tolist() == (
        scans.labels.tolist()
    )


@pytest.mark.slow
def test_a_3d_network_reads_the_order_of_the_slices() -> None:
    config = replace(CONFIG, epochs=14, patience=14, batch_slices=20)
    history = fitted("r3d_18_half", "none", config, first_or_last(0), first_or_last(1)).history
    assert max(line.val_auroc or 0 for line in history) > 0.99


@pytest.mark.slow
@pytest.mark.parametrize(
    "arch", ["mobilenet_v3_large", "resnet50", "densenet121", "efficientnet_b0", "convnext_tiny"]
)
def test_large_networks_bring_the_loss_of_eight_scans_to_nothing(arch: str) -> None:
    """Their batch statistics need more batches than that, so their answers are not asked."""
    scans = with_a_corner()
    config = replace(CONFIG, epochs=25, patience=25, batch_slices=9)
    history = fitted(arch, "attention", config, scans, scans).history
    assert min(line.train_loss for line in history) < 0.05


@pytest.mark.parametrize(
    ("aggregator", "learns"),
    [
        ("rnn_bidirectional", True),
        ("lstm", True),
        ("transformer", True),
        ("attention", False),
        pytest.param("rnn", True, marks=pytest.mark.slow),
        pytest.param("lstm_bidirectional", True, marks=pytest.mark.slow),
    ],
)
def test_what_lies_in_the_order_of_the_slices_is_learnt_by_those_that_read_it(
    aggregator: str, learns: bool
) -> None:
    # No slice by itself knows the class, so none is asked.
    config = replace(CONFIG, epochs=14, patience=14, batch_slices=20, slice_loss=0.0)
    history = fitted("cnn_lrn", aggregator, config, first_or_last(0), first_or_last(1)).history
    best = max(line.val_auroc or 0 for line in history)
    assert best > 0.99 if learns else best < 0.8
