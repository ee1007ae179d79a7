"""An archive whose parts share a picture is evaluated whole, and the copy is told of."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medcli.config import ModelConfig
from medcli.inference.predictor import Predictor
from medcli.training.run import TrainRequest, train
from medcli.workflows.evaluating import evaluate


def test_a_copied_picture_in_a_published_part_is_told_of(tmp_path: Path) -> None:
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
    result = evaluate(Predictor(train(request)), [str(archive)])
    assert (result.metrics["split"], result.metrics["n"]) == ("val", 6)
    assert any("1 of 6 pictures" in note for note in result.notes)
