from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight

from medcli.config import ModelConfig, TrainConfig
from medcli.models.scan_model import ScanModel, ScanOutput
from medcli.training.losses import class_weights, scan_and_slice_loss

pytestmark = pytest.mark.usefixtures("one_thread")


def test_class_weights_are_inverse_to_the_share_of_a_class() -> None:
    labels = torch.tensor([0, 0, 0, 1])
    assert class_weights(labels, 2).tolist() == pytest.approx([4 / (2 * 3), 4 / (2 * 1)])
    assert class_weights(labels, 2)[labels].mean() == pytest.approx(1)


def test_class_weights_are_scikit_learns_balanced_ones() -> None:
    labels = torch.randint(0, 4, (200,), generator=torch.Generator().manual_seed(0))
    expected = compute_class_weight("balanced", classes=np.arange(4), y=labels.numpy())
    torch.testing.assert_close(class_weights(labels, 4), torch.tensor(expected).float())


def test_the_weight_of_an_absent_class_is_finite() -> None:
    assert class_weights(torch.tensor([0, 0, 2]), 3).isfinite().all()


def loss_by_hand(
    model: ScanModel,
    output: ScanOutput,
    features: torch.Tensor,
    labels: list[int],
    weights: list[float],
    share: float,
) -> float:
    """Scans of 1 and 3 slices: weighted mean over scans, plus the mean of their slices' means."""

    def surprise(logits: torch.Tensor, label: int) -> float:
        return -float(torch.log_softmax(logits.double(), dim=0)[label])

    scans = sum(
        weights[label] * surprise(logits, label)
        for logits, label in zip(output.logits, labels, strict=True)
    ) / sum(weights[label] for label in labels)
    slices = 0.0
    for start, count, label in zip((0, 1), (1, 3), labels, strict=True):
        logits = model.classify(model.project(features[start : start + count]))
        slices += weights[label] * sum(surprise(one, label) for one in logits) / count
    return scans + share * slices / len(labels)


@torch.no_grad()
def test_the_slices_of_a_scan_count_as_one_beside_it() -> None:
    torch.manual_seed(0)
    config = ModelConfig(embedding_dim=8, dropout=0.0)
    model = ScanModel(config, channels=1, size=16, num_classes=2).eval()
    features = model.encode(torch.randn(4, 1, 16, 16))
    output = model.aggregate_ragged(features, [1, 3])
    labels, weights = torch.tensor([1, 0]), torch.tensor([0.5, 2.0])
    for share in (0.0, 0.5):
        settings = replace(TrainConfig(), slice_loss=share)
        loss = scan_and_slice_loss(
            model, output, features.learnt, labels, [1, 3], weights, settings
        )
        by_hand = loss_by_hand(
            model, output, features.learnt, labels.tolist(), weights.tolist(), share
        )
        assert float(loss) == pytest.approx(by_hand, rel=1e-5)


@torch.no_grad()
def test_pictures_have_no_slices_to_ask_alone() -> None:
    model = ScanModel(ModelConfig(embedding_dim=8, dropout=0.0), 1, 16, 2).eval()
    features = model.encode(torch.randn(3, 1, 16, 16))
    output = model.aggregate_ragged(features, [1, 1, 1])
    labels, weights = torch.tensor([1, 0, 1]), torch.ones(2)
    loss = scan_and_slice_loss(
        model, output, features.learnt, labels, [1, 1, 1], weights, TrainConfig()
    )
    expected = torch.nn.functional.cross_entropy(output.logits, labels)
    torch.testing.assert_close(loss, expected)
