"""A training that was interrupted ends with the weights it would have had."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from medcli.config import ModelConfig, PreprocessConfig, TrainConfig
from medcli.data.arrays import ScanArrays
from medcli.errors import DamagedError, MedcliError
from medcli.models.scan_model import ScanModel
from medcli.training import loop
from medcli.training.loop import Fit, fit
from medcli.training.state import TrainState, optimizer_state, restore_optimizer

pytestmark = pytest.mark.usefixtures("one_thread")
SIZE = 16
CPU = torch.device("cpu")
PREPROCESS = PreprocessConfig(size=SIZE, mean=(0.3,), std=(0.2,))
CONFIG = TrainConfig(epochs=3, patience=9, augmentation="ct", batch_slices=2, learning_rate=3e-3)
BATCHES = 7  # an epoch, of `scans`


def scans() -> ScanArrays:
    rng = np.random.default_rng(0)
    lengths = np.array([1, 2] * 7)
    images = rng.integers(0, 255, (lengths.sum(), 1, SIZE, SIZE), dtype=np.uint8)
    return ScanArrays(images, lengths, np.arange(len(lengths)) % 2)


def run(arch: str = "cnn_lrn", config: TrainConfig = CONFIG, seed: int = 0, **more: Any) -> Fit:
    torch.manual_seed(seed)
    model = ScanModel(ModelConfig(arch=arch, embedding_dim=8, dropout=0.5), 1, SIZE, 2)
    return fit(model, scans(), scans(), PREPROCESS, config, device=CPU, **more)


def through_files(state: TrainState) -> TrainState:
    """The state as it comes back from a disk."""
    return TrainState(load(save(dict(state.tensors))), json.loads(json.dumps(state.facts)))


def broken_off(batch: int, **more: Any) -> TrainState:
    """What is left of a training that ends at a batch, counted from 1 over all epochs."""
    states: list[TrainState] = []
    heard = 0

    def count(*_: object) -> None:
        nonlocal heard
        heard += 1
        if heard == batch:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(on_batch=count, on_state=states.append, **more)
    return through_files(states[-1])


def assert_same(one: Fit, other: Fit) -> None:
    first, second = one.model.state_dict(), other.model.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    timeless = [[replace(line, seconds=0) for line in each.history] for each in (one, other)]
    assert timeless[0] == timeless[1]
    assert one.stopped == other.stopped


@pytest.fixture(scope="module")
def uninterrupted() -> Fit:
    return run()


@pytest.mark.parametrize(
    "batch", np.random.default_rng(0).permutation(np.arange(1, 3 * BATCHES + 1))[:20].tolist()
)
def test_twenty_interruptions_change_no_bit(uninterrupted: Fit, batch: int) -> None:
    state = broken_off(batch)
    assert len(state.facts["history"]) == (batch - 1) // BATCHES
    torch.manual_seed(1234)  # whoever goes on comes with other random numbers and weights
    assert_same(run(seed=99, resumed=state), uninterrupted)


def test_neither_does_one_with_running_statistics_that_is_interrupted_twice() -> None:
    more: dict[str, Any] = {"arch": "resnet18_half", "config": replace(CONFIG, batch_slices=8)}
    states: list[TrainState] = [broken_off(4, **more)]  # batches an epoch: 3
    heard: list[int] = []

    def stop(epoch: int, done: float, loss: float) -> None:
        heard.append(epoch)
        if epoch == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(seed=5, resumed=states[0], on_batch=stop, on_state=states.append, **more)
    assert heard == [2] * 3 + [3]
    assert_same(run(seed=6, resumed=through_files(states[-1]), **more), run(**more))


def test_what_had_ended_is_not_trained_again(uninterrupted: Fit) -> None:
    states: list[TrainState] = []
    run(on_state=states.append)
    assert [len(state.facts["history"]) for state in states] == [0, 1, 2, 3]
    heard: list[object] = []
    again = run(seed=7, resumed=through_files(states[-1]), on_epoch=heard.append)
    assert heard == []
    assert_same(again, uninterrupted)


def test_the_time_before_an_interruption_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 60  # a minute an epoch
        return now

    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=clock))
    config = replace(CONFIG, epochs=9, minutes=4.5)
    state = broken_off(2 * BATCHES + 1, config=config)
    assert state.facts["seconds"] == 120
    resumed = run(config=config, resumed=state, spent=30.0)
    assert [line.seconds for line in resumed.history] == [60, 120, 210]
    assert resumed.stopped == "minutes"


def test_the_state_of_another_network_is_refused() -> None:
    state = broken_off(BATCHES + 1)
    with pytest.raises(DamagedError, match="another network"):
        run("cnn_lrn_sum", resumed=TrainState({}, state.facts))
    tensors = {name: t for name, t in state.tensors.items() if not name.startswith("random")}
    with pytest.raises(DamagedError, match="another training"):
        run(resumed=TrainState(tensors, state.facts))


@pytest.mark.parametrize("ahead", [1, 2, 50])
def test_a_loss_that_is_no_number_names_its_scans(
    monkeypatch: pytest.MonkeyPatch, ahead: int
) -> None:
    seen: list[list[int]] = []
    draw, change = loop.draw_slices, loop.augment

    def drawn(scans: ScanArrays, batch: np.ndarray, *more: Any) -> Any:
        seen.append(batch.tolist())
        return draw(scans, batch, *more)

    def spoil(images: Tensor, *more: Any) -> Tensor:
        return change(images, *more) * (torch.nan if len(seen) == 2 else 1)

    monkeypatch.setattr(loop, "draw_slices", drawn)
    monkeypatch.setattr(loop, "augment", spoil)
    monkeypatch.setattr(loop, "_steps_ahead", lambda device: ahead)  # as on a GPU
    names = [f"scan {number}.png" for number in range(14)]
    heard: list[float] = []
    with pytest.raises(MedcliError, match=r"epoch 1, batch 2 \(scan") as caught:
        run(names=names, on_batch=lambda epoch, done, loss: heard.append(loss))
    assert ", ".join(names[index] for index in seen[1]) in caught.value.message
    assert len(heard) == 1
    assert len(seen) == min(max(ahead, 2), BATCHES)


def test_looking_at_the_losses_later_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, uninterrupted: Fit
) -> None:
    heard: list[float] = []
    monkeypatch.setattr(loop, "_steps_ahead", lambda device: 2)
    late = run(on_batch=lambda epoch, done, loss: heard.append(done))
    assert_same(late, uninterrupted)
    assert heard == pytest.approx([number / BATCHES for number in range(1, BATCHES + 1)] * 3)


# ---- optimizers ----


def stepped(optimizer: torch.optim.Optimizer, weights: Tensor, steps: range) -> Tensor:
    for step in steps:
        weights.grad = torch.sin(weights.detach() + step)
        optimizer.step()
    return weights.detach().clone()


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.AdamW(p, lr=0.1),
        lambda p: torch.optim.Adam(p, lr=0.1, amsgrad=True),
        lambda p: torch.optim.SGD(p, lr=0.1),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
        lambda p: torch.optim.RMSprop(p, lr=0.1, momentum=0.5),
    ],
)
def test_an_optimizer_goes_on_where_it_was(make: Callable[..., torch.optim.Optimizer]) -> None:
    def fresh() -> Tensor:
        start = torch.arange(24.0).view(2, 3, 2, 2).to(memory_format=torch.channels_last)
        return start.clone().requires_grad_()

    weights = fresh()
    expected = stepped(make([weights]), weights, range(6))
    weights = fresh()
    optimizer = make([weights])
    stepped(optimizer, weights, range(3))
    optimizer.param_groups[0]["lr"] = 0.1
    moved, rest = optimizer_state(optimizer)
    tensors = load(save({name: value.contiguous() for name, value in moved.items()}))
    other = make([weights])
    restore_optimizer(other, tensors, json.loads(json.dumps(rest)))
    assert torch.equal(stepped(other, weights, range(3, 6)), expected)
    assert type(other.param_groups[0].get("betas", ())) is tuple


# ---- half precision ----


def test_a_scaled_loss_trains_as_well_and_goes_on_as_well() -> None:
    config = replace(CONFIG, epochs=2, fp16=True, augmentation="none")
    whole = run(config=config)
    assert torch.isfinite(whole.model.head.weight).all()
    state = broken_off(BATCHES + 3, config=config)
    assert state.facts["scaler"]["scale"] > 1
    assert_same(run(config=config, seed=3, resumed=state), whole)
