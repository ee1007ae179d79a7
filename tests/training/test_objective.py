"""The objective as a whole: modes of imbalance, mixing, domains, noise; what is trained by it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from torch.nn import functional as F

from medcli.config import ModelConfig, PreprocessConfig, TrainConfig
from medcli.data.arrays import ScanArrays
from medcli.data.mixing import mix
from medcli.models.scan_model import ScanModel
from medcli.training.batches import batches
from medcli.training.loop import Fit, fit
from medcli.training.objective import Objective, learnt_part
from medcli.training.prediction import predict_embeddings, predict_logits

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")
SIZE = 16
PREPROCESS = PreprocessConfig(size=SIZE, mean=(0.3,), std=(0.2,))
MODES: list[Any] = ["none", "weights", "sampler", "focal", "logit-adjust"]


def spots(counts: tuple[int, ...], seed: int, *, contrast: int = 40, slices: int = 1) -> ScanArrays:
    """Noise, with a brighter field at a place of its own in every class but the first."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    lengths = np.full(len(labels), slices)
    images = rng.integers(0, 120, (len(labels) * slices, 1, SIZE, SIZE), dtype=np.uint8)
    of_slices = np.repeat(labels, slices)
    for k in range(1, len(counts)):
        images[of_slices == k, :, 5 * k - 3 : 5 * k + 1, 5 * k - 3 : 5 * k + 1] += contrast
    return ScanArrays(images, lengths, labels)


def small_model(classes: int = 2, seed: int = 0) -> ScanModel:
    torch.manual_seed(seed)
    config = ModelConfig(arch="cnn_lrn", embedding_dim=8, dropout=0.0)
    return ScanModel(config, channels=1, size=SIZE, num_classes=classes)


def trained(train: ScanArrays, val: ScanArrays, **settings: Any) -> Fit:
    config = TrainConfig(epochs=6, patience=6, batch_slices=32, augmentation="none", ema=0.9)
    classes = int(train.labels.max()) + 1
    model = small_model(classes)
    return fit(model, train, val, PREPROCESS, replace(config, **settings), device=CPU)


def objective_of(train: ScanArrays, **settings: Any) -> Objective:
    config = replace(TrainConfig(slice_loss=0.0), **settings)
    return Objective(config, train, int(train.labels.max()) + 1, CPU)


def loss_of(
    objective: Objective, logits: torch.Tensor, batch: list[int], model: ScanModel | None = None
) -> float:
    """The loss of single pictures with these logits."""
    model = model or small_model(logits.shape[1])
    features = torch.zeros(len(batch), 128)
    output = model.aggregate_ragged(model.encode(torch.zeros(len(batch), 1, SIZE, SIZE)),
                                    [1] * len(batch))  # fmt: skip
    target = objective.target(np.array(batch))
    lengths = [1] * len(batch)
    return float(objective(model, output._replace(logits=logits), features, target, lengths))


# ---- what each mode asks for ----

TRAIN = spots((9, 3), 0)
LOGITS = torch.tensor([[1.0, -0.5], [0.3, 0.1], [-1.0, 2.0]])
BATCH, LABELS = [0, 8, 10], torch.tensor([0, 0, 1])


@torch.no_grad()
def test_none_and_weights_are_torchs_cross_entropy() -> None:
    plain = loss_of(objective_of(TRAIN, imbalance="none"), LOGITS, BATCH)
    assert plain == pytest.approx(float(F.cross_entropy(LOGITS, LABELS)))
    weights = torch.tensor([12 / 18, 12 / 6])
    weighted = loss_of(objective_of(TRAIN, imbalance="weights"), LOGITS, BATCH)
    assert weighted == pytest.approx(float(F.cross_entropy(LOGITS, LABELS, weights)))


@torch.no_grad()
def test_logits_are_adjusted_by_the_log_shares_and_only_in_training() -> None:
    objective = objective_of(TRAIN, imbalance="logit-adjust")
    adjusted = LOGITS + torch.tensor([0.75, 0.25]).log()
    assert loss_of(objective, LOGITS, BATCH) == pytest.approx(
        float(F.cross_entropy(adjusted, LABELS))
    )
    even = torch.tensor([12 / 18, 12 / 6])
    assert objective.validation(LOGITS, LABELS) == pytest.approx(
        float(F.cross_entropy(LOGITS, LABELS, even))
    )


@torch.no_grad()
def test_the_focal_loss_is_that_of_weighted_hard_scans() -> None:
    log_p = F.log_softmax(LOGITS, dim=1)[torch.arange(3), LABELS]
    weights = torch.tensor([12 / 18, 12 / 18, 12 / 6])
    expected = (weights * (1 - log_p.exp()) ** 2 * -log_p).sum() / weights.sum()
    loss = loss_of(objective_of(TRAIN, imbalance="focal"), LOGITS, BATCH)
    assert loss == pytest.approx(float(expected))


def test_the_sampler_draws_classes_alike_whole_scans_and_by_the_seed() -> None:
    train = spots((190, 10), 0, slices=3)
    objective = objective_of(train, imbalance="sampler")

    def drawn(seed: int) -> list[np.ndarray]:
        generator = torch.Generator().manual_seed(seed)
        return list(batches(train, 30, generator, objective.chances))

    every = np.concatenate([batch for seed in range(10) for batch in drawn(seed)])
    assert 0.45 < train.labels[every].mean() < 0.55
    assert np.bincount(every, minlength=200)[:190].max() < 30  # not always the same
    first, again = drawn(1), drawn(1)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert len(first) == len(list(batches(train, 30, None)))
    assert sum(map(len, first)) == 200
    assert all(len(train.select(batch).images) == 3 * len(batch) for batch in first)
    assert objective_of(train, imbalance="weights").chances is None


@torch.no_grad()
def test_the_sampler_leaves_the_loss_unweighted() -> None:
    loss = loss_of(objective_of(TRAIN, imbalance="sampler"), LOGITS, BATCH)
    assert loss == pytest.approx(float(F.cross_entropy(LOGITS, LABELS)))


# ---- domains ----


def test_domains_enter_loss_sampler_and_shares() -> None:
    train = replace(TRAIN, domains=np.array([0] * 6 + [1] * 3 + [1] * 3))
    plain = objective_of(train, imbalance="none").target(np.arange(12)).shares.sum(dim=1)
    assert plain[:6].sum() == pytest.approx(float(plain[6:].sum()))
    chances = objective_of(train, imbalance="sampler").chances
    assert chances is not None
    assert float(chances[:6].sum()) == pytest.approx(float(chances[6:].sum()))
    assert float(chances[6:9].sum()) == pytest.approx(float(chances[9:].sum()))


# ---- mixing ----


@torch.no_grad()
def test_a_mixed_scan_costs_the_blend_of_both_labels_with_both_weights() -> None:
    objective = objective_of(TRAIN, imbalance="weights")
    _, mixing = mix(torch.rand(3, 1, 4, 4), [1, 1, 1], 0.4, torch.Generator().manual_seed(2))
    assert mixing is not None
    target = objective.target(np.array(BATCH), mixing)
    weights, logs = torch.tensor([12 / 18, 12 / 6]), F.log_softmax(LOGITS, dim=1)
    above = below = 0.0
    for i in range(3):
        for share, label in (
            (mixing.shares[i], LABELS[i]),
            (1 - mixing.shares[i], LABELS[mixing.partners[i]]),
        ):
            above -= float(share * weights[label] * logs[i, label])
            below += float(share * weights[label])
    model = small_model()
    output = model.aggregate_ragged(model.encode(torch.zeros(3, 1, SIZE, SIZE)), [1, 1, 1])
    loss = objective(model, output._replace(logits=LOGITS), output.logits, target, [1, 1, 1])
    assert float(loss) == pytest.approx(above / below)
    assert target.labels.tolist() == LABELS.tolist()


# ---- the metric loss ----


@torch.no_grad()
def test_the_learnt_part_is_what_the_projection_gave() -> None:
    model = small_model().eval()
    features = model.encode(torch.rand(4, 1, SIZE, SIZE))
    output = model.aggregate_ragged(features, [1, 1, 1, 1])
    scan_features, _ = model.aggregator(
        features.learnt[:, None], torch.ones(4, 1, dtype=torch.bool)
    )
    torch.testing.assert_close(learnt_part(model, output), model.project(scan_features))


@pytest.mark.parametrize("name", ["supcon", "proxy"])
@torch.no_grad()
def test_the_metric_loss_is_added_with_its_weight(name: Any) -> None:
    model = small_model()
    with_it = [
        loss_of(objective_of(TRAIN, metric_loss=name, metric_weight=w), LOGITS, BATCH, model)
        for w in (0.0, 0.5, 1.0)
    ]
    assert with_it[0] == pytest.approx(loss_of(objective_of(TRAIN), LOGITS, BATCH, model))
    assert with_it[1] - with_it[0] > 0.01
    assert with_it[2] - with_it[0] == pytest.approx(2 * (with_it[1] - with_it[0]), rel=1e-4)


# ---- what comes of it ----


def auroc_and_balance(fitted: Fit, held_out: ScanArrays) -> tuple[float, float]:
    logits = predict_logits(fitted.model, held_out, PREPROCESS, 256, CPU)
    scores = (logits[:, 1] - logits[:, 0]).numpy()
    decided = logits.argmax(dim=1).numpy()
    return (
        float(roc_auc_score(held_out.labels, scores)),
        float(balanced_accuracy_score(held_out.labels, decided)),
    )


@pytest.fixture(scope="module")
def one_to_twenty() -> dict[str, tuple[float, float]]:
    """AUROC and balanced accuracy of each mode, on classes of 240 and 12 scans."""
    train, val = spots((240, 12), 1), spots((60, 60), 2)
    held_out = spots((200, 200), 3)
    return {
        mode: auroc_and_balance(trained(train, val, imbalance=mode, epochs=5), held_out)
        for mode in MODES
    }


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES[1:])
def test_every_mode_helps_the_rare_class_and_keeps_the_ranking(
    one_to_twenty: dict[str, tuple[float, float]], mode: str
) -> None:
    area, balance = one_to_twenty[mode]
    plain_area, plain_balance = one_to_twenty["none"]
    assert balance > plain_balance + 0.05, one_to_twenty
    assert area > plain_area - 0.03, one_to_twenty


@pytest.mark.slow
def test_with_thirty_percent_wrong_labels_the_symmetric_loss_ends_better() -> None:
    areas: dict[str, list[float]] = {"none": [], "symmetric": []}
    for seed in (0, 1):
        clean, val, held_out = (
            spots(counts, start + seed, contrast=22)
            for counts, start in (((100, 100), 1), ((30, 30), 20), ((300, 300), 30))
        )
        rng = np.random.default_rng(seed)
        wrong, wrong_too = rng.random(200) < 0.3, rng.random(60) < 0.3
        noisy = replace(clean, labels=np.where(wrong, 1 - clean.labels, clean.labels))
        noisy_val = replace(val, labels=np.where(wrong_too, 1 - val.labels, val.labels))
        for loss, found in areas.items():
            fitted = trained(noisy, noisy_val, robust_loss=loss, epochs=15, patience=15)
            found.append(auroc_and_balance(fitted, held_out)[0])
    assert np.mean(areas["symmetric"]) > np.mean(areas["none"]) + 0.015, areas


def test_every_option_together_trains_stacks_of_mixed_lengths() -> None:
    train = replace(spots((8, 8), 0), lengths=np.array([1, 3] * 4 + [1] * 8))
    images = np.repeat(train.images, train.lengths, axis=0)
    train = replace(train, images=images, domains=np.arange(16) % 3)
    for settings in (
        {"imbalance": "sampler", "metric_loss": "supcon", "metric_weight": 0.5},
        {"robust_loss": "gce", "metric_loss": "proxy", "metric_weight": 0.1},
        {"imbalance": "logit-adjust", "optimizer": "sgd", "learning_rate": 0.01},
    ):
        fitted = trained(train, train, epochs=1, mixup=0.2, label_smoothing=0.1, **settings)
        assert np.isfinite(fitted.history[0].train_loss)
        embeddings = predict_embeddings(fitted.model, train, PREPROCESS, 256, CPU)
        torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(16))


def test_a_seed_repeats_sampler_and_mixing_bit_by_bit() -> None:
    train = spots((12, 4), 0)
    states = [
        trained(
            train, train, epochs=1, imbalance="sampler", mixup=0.3, seed=seed
        ).model.state_dict()
        for seed in (1, 1, 2)
    ]
    first, again, other = states
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)
