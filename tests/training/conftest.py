"""Small data sets, and training without the seconds of the export."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medcli.training import writing
from medcli.training.request import TrainEvents


@pytest.fixture
def without_export(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs get a graph that nothing reads; export has tests of its own."""

    def export(model: Any, path: Path, channels: int, size: int) -> None:
        path.write_bytes(b"a graph")

    monkeypatch.setattr(writing, "export_onnx", export)
    monkeypatch.setattr(writing, "check_onnx", lambda *_: 0.0)


@dataclass
class Told:
    """What a run said on its way."""

    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    read: list[tuple[int, int]] = field(default_factory=list)
    epochs: list[Any] = field(default_factory=list)

    @property
    def events(self) -> TrainEvents:
        return TrainEvents(
            note=self.notes.append,
            warn=self.warnings.append,
            reading=lambda done, total: self.read.append((done, total)),
            epoch=self.epochs.append,
        )


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def picture_manifest(tmp_path: Path) -> Callable[..., Path]:
    """A manifest over 16 px pictures: dark ones labelled "a", bright ones "b".

    `patients` names one a picture, "" where unknown; None leaves the column out. The
    pictures numbered in `broken` are no pictures, those in `copies` repeat the first.
    """

    def write(
        count: int,
        patients: Sequence[str] | None = None,
        broken: Sequence[int] = (),
        copies: Sequence[int] = (),
    ) -> Path:
        rows = []
        for number in range(count):
            seed = 0 if number in copies else number
            label = "ab"[seed % 2]
            noise = np.random.default_rng(seed).integers(0, 60, (16, 16))
            path = tmp_path / f"{number:03d}.png"
            Image.fromarray((noise + 150 * (label == "b")).astype(np.uint8)).save(path)
            if number in broken:
                path.write_bytes(path.read_bytes()[:50])
            row = {"path": path.name, "label": label}
            rows.append(row | ({"patient_id": patients[number]} if patients else {}))
        with (tmp_path / "manifest.csv").open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        return tmp_path / "manifest.csv"

    return write
