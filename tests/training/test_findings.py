"""Findings: their loss, and how their answers are read after training."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score, roc_curve
from torch.nn import functional as F

from medcli.config import ModelConfig, PreprocessConfig, TrainConfig
from medcli.data.arrays import ScanArrays
from medcli.evaluation.calibration import sigmoid
from medcli.models.scan_model import ScanModel
from medcli.records import Task
from medcli.training.by_task import mean_auroc, own_scans
from medcli.training.findings import HEAVIEST, FindingsObjective, calibrate_findings
from medcli.training.loop import fit
from medcli.training.prediction import predict_logits

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")
SIZE = 16
TASK = Task("chest", ("left", "right"), multi_label=True)
PREPROCESS = PreprocessConfig(size=SIZE, mean=(0.3,), std=(0.2,))


def scans(count: int, seed: int = 0) -> ScanArrays:
    """Stacks with a bright corner for each finding; left in every second, right in every third."""
    lengths = np.arange(count, dtype=np.int64) % 3 + 1
    labels = np.column_stack([np.arange(count) % 2 == 0, np.arange(count) % 3 == 0])
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 80, (lengths.sum(), 1, SIZE, SIZE))
    each = np.repeat(labels, lengths, axis=0)
    images[each[:, 0], :, :6, :6] += 150
    images[each[:, 1], :, -6:, -6:] += 150
    return ScanArrays(images.astype(np.uint8), lengths, labels.astype(np.uint8))


def small_model() -> ScanModel:
    torch.manual_seed(0)
    config = ModelConfig(arch="cnn_lrn", aggregator="mean", embedding_dim=16, dropout=0.0)
    return ScanModel(config, 1, SIZE, 2)


@pytest.mark.parametrize("slice_loss", [0.0, 0.5])
def test_the_loss_is_torchs_with_the_weights_of_the_training_part(slice_loss: float) -> None:
    batch = scans(12)
    objective = FindingsObjective(TrainConfig(slice_loss=slice_loss), batch, CPU)
    model = small_model().eval()
    features = model.encode(torch.from_numpy(batch.images).float() / 255)
    lengths = batch.lengths.tolist()
    output = model.aggregate_ragged(features, lengths)
    labels = torch.from_numpy(batch.labels)
    target = objective.target(np.arange(12))
    loss = objective(model, output, features.learnt, target, lengths)
    weights = torch.tensor([6 / 6, 8 / 4])
    expected = F.binary_cross_entropy_with_logits(output.logits, labels.float(), pos_weight=weights)
    assert objective.validation(output.logits.detach(), labels) == pytest.approx(expected.item())
    single = model.classify(model.project(features.learnt))
    start = 0
    for scan, length in enumerate(lengths):
        part = single[start : start + length]
        target = labels[scan].float().expand(length, 2)
        own = F.binary_cross_entropy_with_logits(part, target, pos_weight=weights)
        expected = expected + slice_loss * own / len(lengths)
        start += length
    torch.testing.assert_close(loss, expected)


def test_the_weight_of_a_rare_finding_has_a_limit() -> None:
    few = scans(200)
    few.labels[:, 1] = 0
    few.labels[3, 1] = 1
    objective = FindingsObjective(TrainConfig(), few, CPU)
    assert objective._weights.tolist() == [1.0, HEAVIEST]


def test_findings_are_learnt_each_by_itself() -> None:
    given = scans(24)
    config = TrainConfig(
        augmentation="none", ema=0.9, epochs=25, patience=25, batch_slices=16, learning_rate=3e-3
    )
    fitted = fit(small_model(), given, given, PREPROCESS, config, device=CPU, tasks=[TASK])
    other = scans(18, seed=1)
    logits = predict_logits(fitted.model, other, PREPROCESS, 64, CPU)
    expected = roc_auc_score(other.labels, logits.numpy(), average="macro")
    assert mean_auroc(other.labels, logits, [TASK]) == pytest.approx(expected)
    assert expected > 0.95
    assert own_scans(other, slice(0, 2))[1] is other


def test_each_finding_gets_its_threshold_and_its_scale() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random((400, 2)) < [0.4, 0.1]).astype(np.uint8)
    logits = 2 * labels + rng.normal(size=(400, 2)) + 3  # too high, as weighted losses make them
    task, calibration = calibrate_findings(TASK, labels, logits)
    assert calibration.platt is not None
    assert task.thresholds is not None
    probabilities = sigmoid(logits, calibration.platt)
    for f, threshold in enumerate(task.thresholds):
        assert probabilities[:, f].mean() == pytest.approx(labels[:, f].mean(), abs=0.02)
        there = probabilities[:, f] >= threshold
        reached = there[labels[:, f] == 1].mean() - there[labels[:, f] == 0].mean()
        false, true, _ = roc_curve(labels[:, f], logits[:, f])
        assert reached == pytest.approx((true - false).max())


def test_a_finding_that_all_or_none_have_keeps_the_middle() -> None:
    labels = np.column_stack([np.zeros(20), np.arange(20) % 2]).astype(np.uint8)
    task, _ = calibrate_findings(TASK, labels, np.random.default_rng(0).normal(size=(20, 2)))
    assert task.thresholds is not None
    assert task.thresholds[0] == 0.5
