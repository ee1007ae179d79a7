"""TensorBoard reads the numbers of the history."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from medcli.training.loop import Epoch
from medcli.training.tensorboard import logged

events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


def line(epoch: int, loss: float, auroc: float | None = 0.5) -> Epoch:
    return Epoch(epoch, 9, loss, 2 * loss, auroc, 0.1, 1.0, True)


def curve(folder: Path, name: str) -> list[tuple[int, float]]:
    found = events.EventAccumulator(str(folder), purge_orphaned_data=True).Reload()
    return [(each.step, each.value) for each in found.Scalars(name)]


def test_the_numbers_of_each_epoch_are_read_back(tmp_path: Path) -> None:
    heard: list[Epoch] = []
    with logged(heard.append, tmp_path, "run", 0) as on_epoch:
        on_epoch(line(1, 0.5, None))
        on_epoch(line(2, 0.25))
    assert curve(tmp_path / "run", "loss/train") == [(1, 0.5), (2, 0.25)]
    assert curve(tmp_path / "run", "loss/val") == [(1, 1.0), (2, 0.5)]
    assert curve(tmp_path / "run", "auroc/val") == [(2, 0.5)]
    assert [each.epoch for each in heard] == [1, 2]


def test_what_an_interruption_undid_is_taken_back(tmp_path: Path) -> None:
    for epoch, losses in ((0, {1: 0.5, 2: 0.25, 3: 0.125}), (1, {2: 4.0})):
        with logged(lambda epoch: None, tmp_path, "run", epoch) as on_epoch:
            for number, loss in losses.items():
                on_epoch(line(number, loss))
    assert curve(tmp_path / "run", "loss/train") == [(1, 0.5), (2, 4.0)]


def test_without_a_folder_nothing_is_written(tmp_path: Path) -> None:
    heard: list[Epoch] = []
    with logged(heard.append, None, "run", 0) as on_epoch:
        on_epoch(line(1, 0.5))
    assert len(heard) == 1
    assert list(tmp_path.iterdir()) == []


def test_the_machine_is_named_in_the_logs_alone(tmp_path: Path) -> None:
    with logged(lambda epoch: None, tmp_path, "run", 0) as on_epoch:
        on_epoch(line(1, 0.5))
    (file,) = (tmp_path / "run").iterdir()
    assert socket.gethostname() in file.name  # so the logs are no part of a run folder
