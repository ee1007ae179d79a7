"""An archive whose parts share a picture: its training copy goes, the later part stays whole."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import numpy as np

from medcli.config import ModelConfig
from medcli.inference.predictor import Predictor
from medcli.models.package import SPLITS
from medcli.training.request import TrainRequest
from medcli.training.run import train
from medcli.workflows.evaluating import evaluate


def test_what_a_published_part_repeats_of_a_later_one_is_not_learnt(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    train_images = rng.integers(0, 255, (12, 16, 16), dtype=np.uint8)
    val_images = rng.integers(0, 255, (6, 16, 16), dtype=np.uint8)
    val_images[0] = train_images[0]
    archive = tmp_path / "pneumoniamnist.npz"
    np.savez(
        archive,
        train_images=train_images,
        train_labels=np.arange(12)[:, None] % 2,
        val_images=val_images,
        val_labels=np.arange(6)[:, None] % 2,
    )
    request = TrainRequest(
        inputs=(str(archive),),
        output=tmp_path / "run",
        epochs=1,
        model=ModelConfig(embedding_dim=8),
    )
    package = train(request)
    with (package.path / SPLITS).open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert Counter(row["split"] for row in rows) == {"train": 11, "val": 6}
    assert len({row["pixel_sha256"] for row in rows}) == 17
    result = evaluate(Predictor(package), [str(archive)])
    assert (result.metrics["split"], result.metrics["n"]) == ("val", 6)
    assert not any("pictures" in note for note in result.notes)
