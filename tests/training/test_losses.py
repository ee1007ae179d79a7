from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from medcli.config import ModelConfig, TrainConfig
from medcli.models.scan_model import ScanModel, ScanOutput
from medcli.training.losses import (
    Target,
    class_losses,
    contrastive_loss,
    proxy_loss,
    scan_and_slice_loss,
)

pytestmark = pytest.mark.usefixtures("one_thread")
LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 0.0, 0.0], [-3.0, 4.0, 1.0]])


def target_of(labels: list[int], weights: list[float]) -> Target:
    """Scans of these classes; (K,) weights of the classes."""
    tensor = torch.tensor(labels)
    one_hot = F.one_hot(tensor, len(weights)).float()
    return Target(tensor, one_hot * torch.tensor(weights)[tensor][:, None])


# ---- the loss of each class, by hand ----


def probabilities() -> np.ndarray:
    exponents = np.exp(LOGITS.numpy().astype(np.float64))
    return np.asarray(exponents / exponents.sum(axis=1, keepdims=True))


@pytest.mark.parametrize(
    ("settings", "by_hand"),
    [
        ({}, lambda p: -np.log(p)),
        ({"imbalance": "focal"}, lambda p: -((1 - p) ** 2) * np.log(p)),
        ({"robust_loss": "gce"}, lambda p: (1 - p**0.7) / 0.7),
        ({"robust_loss": "symmetric"}, lambda p: -0.1 * np.log(p) + 4 * (1 - p)),
    ],
)
def test_the_loss_of_each_class_is_the_published_formula(
    settings: dict[str, Any], by_hand: Any
) -> None:
    losses = class_losses(LOGITS, replace(TrainConfig(), **settings))
    np.testing.assert_allclose(losses.numpy(), by_hand(probabilities()), rtol=1e-5, atol=1e-6)


def test_label_smoothing_is_torchs() -> None:
    labels = torch.tensor([2, 0, 1])
    losses = class_losses(LOGITS, replace(TrainConfig(), label_smoothing=0.1))
    expected = F.cross_entropy(LOGITS, labels, label_smoothing=0.1, reduction="none")
    torch.testing.assert_close(losses[torch.arange(3), labels], expected)


@pytest.mark.parametrize("settings", [{}, {"imbalance": "focal"}, {"robust_loss": "gce"}])
def test_a_sure_answer_costs_nothing_and_its_gradient_is_a_number(
    settings: dict[str, Any],
) -> None:
    logits = torch.tensor([[60.0, -60.0]], requires_grad=True)
    losses = class_losses(logits, replace(TrainConfig(), **settings))
    assert float(losses[0, 0].detach()) == pytest.approx(0, abs=1e-6)
    losses.sum().backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("name", ["gce", "symmetric"])
def test_a_wrong_label_pulls_less_with_a_robust_loss(name: Any) -> None:
    pulls = []
    for loss in ("none", name):
        logits = torch.tensor([[6.0, -6.0]], requires_grad=True)  # sure, and told otherwise
        losses = class_losses(logits, replace(TrainConfig(), robust_loss=loss))
        losses[0, 1].backward()  # type: ignore[no-untyped-call]
        assert logits.grad is not None
        pulls.append(float(logits.grad.abs().max()))
    assert pulls[1] < 0.2 * pulls[0]


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
    labels, weights = [1, 0], [0.5, 2.0]
    for share in (0.0, 0.5):
        settings = replace(TrainConfig(), slice_loss=share)
        loss = scan_and_slice_loss(
            model, output, features.learnt, target_of(labels, weights), [1, 3], settings
        )
        by_hand = loss_by_hand(model, output, features.learnt, labels, weights, share)
        assert float(loss) == pytest.approx(by_hand, rel=1e-5)


@torch.no_grad()
def test_pictures_have_no_slices_to_ask_alone() -> None:
    model = ScanModel(ModelConfig(embedding_dim=8, dropout=0.0), 1, 16, 2).eval()
    features = model.encode(torch.randn(3, 1, 16, 16))
    output = model.aggregate_ragged(features, [1, 1, 1])
    target = target_of([1, 0, 1], [1.0, 1.0])
    loss = scan_and_slice_loss(model, output, features.learnt, target, [1, 1, 1], TrainConfig())
    torch.testing.assert_close(loss, F.cross_entropy(output.logits, target.labels))


@torch.no_grad()
def test_offsets_are_added_to_the_logits_of_scans_and_slices() -> None:
    torch.manual_seed(0)
    model = ScanModel(ModelConfig(embedding_dim=8, dropout=0.0), 1, 16, 2).eval()
    features = model.encode(torch.randn(4, 1, 16, 16))
    output = model.aggregate_ragged(features, [1, 3])
    target, offsets = target_of([1, 0], [0.5, 2.0]), torch.tensor([-3.0, -0.05])
    arguments = (features.learnt, target, [1, 3], TrainConfig())
    loss = scan_and_slice_loss(model, output, *arguments, offsets)
    model.head.bias += offsets
    shifted = model.aggregate_ragged(features, [1, 3])
    torch.testing.assert_close(loss, scan_and_slice_loss(model, shifted, *arguments))


# ---- embeddings ----


def unit_vectors(count: int, seed: int = 0) -> torch.Tensor:
    vectors = torch.randn(count, 5, generator=torch.Generator().manual_seed(seed))
    return F.normalize(vectors, dim=1)


def contrastive_by_hand(
    vectors: np.ndarray, labels: list[int], weights: list[float]
) -> tuple[float, float]:
    """Khosla et al., eq. 2: the weighted mean over anchors with a positive."""
    total = weight = 0.0
    for i, anchor in enumerate(vectors):
        others = [a for a in range(len(labels)) if a != i]
        positives = [p for p in others if labels[p] == labels[i]]
        if positives:
            below = sum(math.exp(anchor @ vectors[a] / 0.1) for a in others)
            shares = [math.exp(anchor @ vectors[p] / 0.1) / below for p in positives]
            total -= weights[i] * sum(map(math.log, shares)) / len(positives)
            weight += weights[i]
    return total, weight


def test_the_contrastive_loss_is_that_of_a_loop() -> None:
    labels, weights = [0, 1, 0, 2, 1, 1], [1.0, 2.0, 1.0, 5.0, 2.0, 0.5]
    vectors = unit_vectors(6)
    total, weight = contrastive_by_hand(vectors.double().numpy(), labels, weights)
    loss = contrastive_loss(vectors, torch.tensor(labels), torch.tensor(weights))
    assert float(loss) == pytest.approx(total / weight, rel=1e-5)


def test_scans_without_a_like_ask_for_nothing() -> None:
    vectors = unit_vectors(3).requires_grad_()
    loss = contrastive_loss(vectors, torch.tensor([0, 1, 2]), torch.ones(3))
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(loss.detach()) == 0
    assert vectors.grad is not None
    assert vectors.grad.isfinite().all()


def proxy_by_hand(vectors: np.ndarray, labels: list[int], proxies: np.ndarray) -> float:
    """Kim et al., eq. 4, with alpha 32 and delta 0.1."""
    proxies = proxies / np.linalg.norm(proxies, axis=1, keepdims=True)
    pull, push = [], []
    for k, proxy in enumerate(proxies):
        own = [v @ proxy for v, label in zip(vectors, labels, strict=True) if label == k]
        other = [v @ proxy for v, label in zip(vectors, labels, strict=True) if label != k]
        if own:
            pull.append(math.log1p(sum(math.exp(-32 * (s - 0.1)) for s in own)))
        push.append(math.log1p(sum(math.exp(32 * (s + 0.1)) for s in other)))
    return float(np.mean(pull) + np.mean(push))


@pytest.mark.parametrize("labels", [[0, 1, 0, 2, 1, 1], [0, 1, 0, 1, 1, 1], [2, 2, 2, 2, 2, 2]])
def test_the_proxy_loss_is_that_of_a_loop(labels: list[int]) -> None:
    vectors, proxies = unit_vectors(6), 3 * torch.randn(3, 5)
    by_hand = proxy_by_hand(vectors.double().numpy(), labels, proxies.double().numpy())
    loss = proxy_loss(vectors, torch.tensor(labels), proxies)
    assert float(loss) == pytest.approx(by_hand, rel=1e-4)


@pytest.mark.parametrize("proxy", [False, True])
def test_descent_brings_a_class_together(proxy: bool) -> None:
    labels, free = torch.tensor([0, 1] * 6), unit_vectors(12).requires_grad_()
    proxies = unit_vectors(2, seed=1)

    def gap() -> float:
        """Mean cosine inside a class less that between classes."""
        cosines = F.normalize(free.detach(), dim=1) @ F.normalize(free.detach(), dim=1).T
        alike = labels[:, None] == labels[None]
        return float(cosines[alike].mean() - cosines[~alike].mean())

    before = gap()
    optimizer = torch.optim.SGD([free], lr=0.5)
    for _ in range(40):
        unit = F.normalize(free, dim=1)
        loss = (
            proxy_loss(unit, labels, proxies)
            if proxy
            else contrastive_loss(unit, labels, torch.ones(12))
        )
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert gap() > before + 0.5
