from __future__ import annotations

import copy
import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from medcli.config import ModelConfig, PreprocessConfig, TrainConfig
from medcli.data.arrays import ScanArrays
from medcli.errors import MedcliError
from medcli.models.scan_model import ScanModel
from medcli.training import loop
from medcli.training.batches import batches
from medcli.training.loop import Fit, fit
from medcli.training.optimizers import parameter_groups
from medcli.training.prediction import macro_auroc, predict_logits

pytestmark = pytest.mark.usefixtures("one_thread")
SIZE = 16
CPU = torch.device("cpu")
PREPROCESS = PreprocessConfig(size=SIZE, mean=(0.3,), std=(0.2,))
CONFIG = TrainConfig(epochs=3, augmentation="none", batch_slices=8, learning_rate=3e-3)


def toy_scans(lengths: list[int], seed: int = 0) -> ScanArrays:
    """Noise, with a bright corner in every slice of the scans of odd number, class 1."""
    rng = np.random.default_rng(seed)
    labels = np.arange(len(lengths)) % 2
    images = rng.integers(0, 80, (sum(lengths), 1, SIZE, SIZE), dtype=np.uint8)
    images[np.repeat(labels, lengths) == 1, :, :6, :6] += 150
    return ScanArrays(images, np.array(lengths), labels)


def small_model(dropout: float = 0.0) -> ScanModel:
    torch.manual_seed(0)
    config = ModelConfig(embedding_dim=8, dropout=dropout)
    return ScanModel(config, channels=1, size=SIZE, num_classes=2)


def fit_toy(config: TrainConfig = CONFIG, scans: ScanArrays | None = None, **more: Any) -> Fit:
    scans = scans or toy_scans([1, 2, 3, 2] * 2)
    model = more.pop("model", None) or small_model()
    preprocess = more.pop("preprocess", PREPROCESS)
    return fit(model, scans, scans, preprocess, config, device=CPU, **more)


def test_eight_scans_are_learnt_by_heart() -> None:
    config = replace(CONFIG, epochs=20, patience=20, batch_slices=20, ema=0.9)
    fitted = fit_toy(config)
    assert fitted.history[-1].train_loss < 0.1
    assert max(line.val_auroc or 0 for line in fitted.history) == 1
    scans = toy_scans([1, 2, 3, 2] * 2)
    logits = predict_logits(fitted.model, scans, PREPROCESS, 8, CPU)
    assert logits.argmax(dim=1).tolist() == scans.labels.tolist()


def test_a_seed_repeats_the_weights_bit_by_bit_and_another_does_not() -> None:
    config = replace(CONFIG, epochs=2, augmentation="ct")
    states = [
        fit_toy(replace(config, seed=seed), model=small_model(dropout=0.5)).model.state_dict()
        for seed in (3, 3, 4)
    ]
    first, again, other = states
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_the_hooks_hear_of_every_batch_and_epoch() -> None:
    heard: list[tuple[int, float, float]] = []
    lines: list[object] = []
    fitted = fit_toy(on_batch=lambda *told: heard.append(told), on_epoch=lines.append)
    assert tuple(lines) == fitted.history
    assert [line.epoch for line in fitted.history] == [1, 2, 3]
    each = len(heard) // 3
    assert [epoch for epoch, _, _ in heard] == [1] * each + [2] * each + [3] * each
    assert [done for _, done, _ in heard[:each]] == [(i + 1) / each for i in range(each)]
    losses = [loss for epoch, _, loss in heard if epoch == 1]
    assert fitted.history[0].train_loss == pytest.approx(np.mean(losses))


# ---- what goes wrong ----


def test_a_loss_that_is_no_number_names_epoch_and_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0

    def spoil(images: Tensor, *_: object) -> Tensor:
        nonlocal calls
        calls += 1
        return images * (math.nan if calls == 4 else 1)

    monkeypatch.setattr(loop, "augment", spoil)
    assert len(list(batches(toy_scans([1, 2, 3, 2] * 2), CONFIG.batch_slices, None))) == 2
    with pytest.raises(MedcliError, match="not a number in epoch 2, batch 2"):
        fit_toy()


def test_weights_that_spoil_after_the_last_batch_are_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loop, "predict_logits", lambda *_: torch.full((8, 2), math.nan))
    with pytest.raises(MedcliError, match="not a number on validation after epoch 1"):
        fit_toy()


# ---- which weights are kept, and when it ends ----


def script_auroc(monkeypatch: pytest.MonkeyPatch, *values: float | None) -> list[dict[str, Tensor]]:
    """Let validation report these AUROCs, and note the weights it looked at."""
    seen: list[dict[str, Tensor]] = []
    answers = iter(values)

    def look(model: ScanModel, *rest: Any) -> Tensor:
        seen.append(copy.deepcopy(model.state_dict()))
        return predict_logits(model, *rest)

    monkeypatch.setattr(loop, "predict_logits", look)
    monkeypatch.setattr(loop, "mean_auroc", lambda *_: next(answers))
    return seen


def kept_epoch(fitted: Fit, seen: list[dict[str, Tensor]]) -> int:
    """The epoch whose validated weights are those of the fitted model."""
    kept = fitted.model.state_dict()
    same = [all(torch.equal(kept[name], state[name]) for name in kept) for state in seen]
    assert same.count(True) == 1
    return same.index(True) + 1


def test_the_weights_of_the_best_epoch_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = script_auroc(monkeypatch, 0.6, 0.9, 0.7, 0.8)
    fitted = fit_toy(replace(CONFIG, epochs=4))
    assert kept_epoch(fitted, seen) == 2
    assert [line.best for line in fitted.history] == [True, True, False, False]
    assert fitted.stopped == "epochs"


@pytest.mark.parametrize("auroc", [0.75, None])
def test_where_the_auroc_ties_the_lower_validation_loss_wins(
    monkeypatch: pytest.MonkeyPatch, auroc: float | None
) -> None:
    seen = script_auroc(monkeypatch, *[auroc] * 5)
    fitted = fit_toy(replace(CONFIG, epochs=5, learning_rate=0.05))
    losses = [line.val_loss for line in fitted.history]
    assert kept_epoch(fitted, seen) == int(np.argmin(losses)) + 1


def test_patience_counts_epochs_without_a_better_one(monkeypatch: pytest.MonkeyPatch) -> None:
    script_auroc(monkeypatch, 0.6, 0.5, 0.7, 0.6, 0.6, 0.99)
    fitted = fit_toy(replace(CONFIG, epochs=6, patience=2))
    assert len(fitted.history) == 5
    assert fitted.stopped == "patience"


class Clock:
    """A clock that each look at it moves on by `step` seconds."""

    def __init__(self, step: float) -> None:
        self.now, self.step = 0.0, step

    def monotonic(self) -> float:
        self.now += self.step
        return self.now


def with_clock(monkeypatch: pytest.MonkeyPatch, step: float) -> None:
    clock = Clock(step)
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=clock.monotonic))


def test_the_epoch_that_would_pass_the_minutes_is_not_begun(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with_clock(monkeypatch, 60)  # one look at the clock an epoch: a minute each
    fitted = fit_toy(replace(CONFIG, epochs=10, minutes=3.0, patience=10))
    assert len(fitted.history) == 3
    assert fitted.stopped == "minutes"


def test_minutes_too_short_for_an_epoch_still_give_a_model() -> None:
    fitted = fit_toy(replace(CONFIG, minutes=1e-6))
    assert len(fitted.history) == 1
    assert fitted.stopped == "minutes"


# ---- the schedule and the averaged weights ----


def rates(config: TrainConfig) -> list[float]:
    """The learning rate of each epoch of one batch."""
    return [line.learning_rate for line in fit_toy(replace(config, batch_slices=1000)).history]


def test_the_rate_warms_up_linearly_and_falls_as_a_cosine() -> None:
    config = replace(CONFIG, epochs=8, warmup=0.25, learning_rate=1e-3, patience=8)
    half_cosine = [0.5 * (1 + math.cos(math.pi * step / 6)) for step in range(6)]
    by_hand = [0.01, 0.5, *half_cosine]  # warm-up ends where step 2 of 8 begins
    assert rates(config) == pytest.approx([1e-3 * factor for factor in by_hand])


def test_without_warmup_the_rate_starts_at_its_peak() -> None:
    assert rates(replace(CONFIG, warmup=0.0))[0] == pytest.approx(CONFIG.learning_rate)


def test_a_rate_that_follows_the_clock_is_low_when_the_minutes_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with_clock(monkeypatch, 60)  # two looks an epoch
    config = replace(CONFIG, epochs=50, minutes=10.0, patience=50, warmup=0.1)
    followed = rates(replace(config, follow_clock=True))
    assert len(followed) < 8
    assert followed[-1] < 0.1 * CONFIG.learning_rate
    assert rates(config)[-1] > 0.9 * CONFIG.learning_rate


@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_averaged_weights_by_hand(decay: float) -> None:
    average, current = (nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)) for _ in range(2))
    with torch.no_grad():
        current[1].running_mean.fill_(3.0)  # type: ignore[union-attr,operator]
        current[1].num_batches_tracked.fill_(7)  # type: ignore[union-attr,operator]
    before = copy.deepcopy(average.state_dict())
    loop.MovingAverage(average, current).update(decay)  # type: ignore[arg-type]
    after = average.state_dict()
    for name in ("0.weight", "0.bias", "1.running_mean"):
        expected = decay * before[name] + (1 - decay) * current.state_dict()[name]
        torch.testing.assert_close(after[name], expected)
    assert after["1.num_batches_tracked"] == 7


def test_biases_norms_and_the_scale_do_not_decay() -> None:
    model = small_model()
    decayed, plain = parameter_groups(model, replace(CONFIG, weight_decay=0.3))
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.3, 0.0)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    kept = {names[id(parameter)] for parameter in plain["params"]}  # type: ignore[attr-defined]
    assert {"scale", "head.bias", "projection.bias"} <= kept
    assert not any(name.endswith("conv1.weight") for name in kept)
    assert len(decayed["params"]) + len(kept) == len(names)  # type: ignore[arg-type]


# ---- batches and predictions ----


@pytest.mark.parametrize("lengths", [[1] * 50, [3, 1, 7, 2, 2, 5, 1, 1, 9], [32, 32], [4]])
def test_batches_hold_each_scan_once_whatever_the_order(lengths: list[int]) -> None:
    scans = toy_scans(lengths)
    in_order = list(batches(scans, 8, None))
    for seed in range(3):
        shuffled = list(batches(scans, 8, torch.Generator().manual_seed(seed)))
        assert len(shuffled) == len(in_order)
        assert sorted(np.concatenate(shuffled)) == list(range(len(lengths)))
        if len(lengths) > 1:
            assert min(map(len, shuffled)) >= 2
    assert np.concatenate(in_order).tolist() == list(range(len(lengths)))


def test_batches_hold_about_the_slices_asked_for() -> None:
    sizes = [len(batch) for batch in batches(toy_scans([1] * 100), 8, None)]
    assert max(sizes) - min(sizes) <= 1
    assert np.mean(sizes) == pytest.approx(8, abs=0.5)


def shaken(model: ScanModel) -> ScanModel:
    """Weights away from their start, so that every part of the model has a say."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return model


def test_predictions_do_not_depend_on_the_batches() -> None:
    scans = toy_scans([1, 3, 7, 2, 1, 4])
    model = shaken(small_model(dropout=0.5))
    whole = predict_logits(model, scans, PREPROCESS, 1000, CPU)
    parts = predict_logits(model, scans, PREPROCESS, 1, CPU)
    torch.testing.assert_close(parts, whole, atol=1e-5, rtol=1e-5)
    backwards = np.arange(6)[::-1].copy()
    turned = predict_logits(model, scans.select(backwards), PREPROCESS, 1, CPU)
    torch.testing.assert_close(turned.flip(0), whole, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_predictions_are_those_of_the_padded_batch() -> None:
    scans = toy_scans([1, 3, 7])
    model = shaken(small_model()).eval()
    padded, mask = torch.zeros(3, 7, 1, SIZE, SIZE), torch.zeros(3, 7, dtype=torch.bool)
    for scan, (start, end) in enumerate(zip(scans.offsets, scans.offsets[1:], strict=False)):
        values = torch.from_numpy(scans.images[start:end]).float() / 255
        padded[scan, : end - start] = (values - PREPROCESS.mean[0]) / PREPROCESS.std[0]
        mask[scan, : end - start] = True
    expected = model(padded, mask).logits
    logits = predict_logits(model, scans, PREPROCESS, 1000, CPU)
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)


# ---- AUROC ----


@pytest.mark.parametrize("classes", [2, 4])
def test_the_macro_auroc_is_scikit_learns(classes: int) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, 60)
    probabilities = rng.dirichlet(np.ones(classes), 60).round(2)  # with ties
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    if classes == 2:
        expected = roc_auc_score(labels, probabilities[:, 1])
    else:
        expected = roc_auc_score(labels, probabilities, multi_class="ovr", average="macro")
    assert macro_auroc(labels, probabilities) == pytest.approx(expected)


def test_an_absent_class_is_left_out_of_the_mean() -> None:
    rng = np.random.default_rng(1)
    labels = rng.choice([0, 1, 3], 60)
    probabilities = rng.dirichlet(np.ones(4), 60)
    expected = np.mean([roc_auc_score(labels == k, probabilities[:, k]) for k in (0, 1, 3)])
    assert macro_auroc(labels, probabilities) == pytest.approx(expected)


@pytest.mark.parametrize("classes", [2, 4])
def test_one_class_alone_has_no_auroc(classes: int) -> None:
    assert macro_auroc(np.zeros(5, int), np.full((5, classes), 1 / classes)) is None
