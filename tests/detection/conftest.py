"""Pictures with bright discs in them, and a detector that has seen a few."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from medcli.detection.arrays import BoxArrays
from medcli.imaging.png_writer import write_png

SIDE = 64


def draw(count: int, seed: int) -> BoxArrays:
    """Noise with none, one or two bright discs in each of `count` pictures."""
    rng = np.random.default_rng(seed)
    images = rng.normal(90, 12, (count, 1, SIDE, SIDE))
    rows, columns = np.mgrid[:SIDE, :SIDE] + 0.5
    boxes, labels = [], []
    for number in range(count):
        own = []
        for _ in range(number % 3):
            wide, high = rng.integers(12, 24, 2)
            x, y = rng.integers(0, SIDE - wide), rng.integers(0, SIDE - high)
            across = ((columns - x - wide / 2) * 2 / wide) ** 2
            images[number, 0][across + ((rows - y - high / 2) * 2 / high) ** 2 <= 1] += 60
            own.append([x, y, x + wide, y + high])
        boxes.append(np.array(own, np.float32).reshape(-1, 4))
        labels.append(np.ones(len(own), np.int64))
    return BoxArrays(images.clip(0, 255).astype(np.uint8), tuple(boxes), tuple(labels))


@pytest.fixture(scope="session")
def drawn() -> Callable[[int, int], BoxArrays]:
    return draw


@pytest.fixture(scope="session")
def disc_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`boxes.csv` over 18 pictures of 18 patients, a third of them without a box."""
    folder = tmp_path_factory.mktemp("discs")
    slices = draw(18, 0)
    with (folder / "boxes.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "label", "patient_id", "x0", "y0", "x1", "y1"])
        for number, (image, boxes) in enumerate(zip(slices.images, slices.boxes, strict=True)):
            name = f"{number}.png"
            write_png(folder / name, image[0])
            for box in boxes.tolist() or [[""] * 4]:
                writer.writerow([name, "disc", f"P{number}", *box])
    return folder


@pytest.fixture(scope="session")
def detector_run(disc_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a detector after two epochs: it knows little, but is whole."""
    import torch

    from medcli.config import ModelConfig
    from medcli.detection.run import train_detector
    from medcli.training.request import TrainRequest

    request = TrainRequest(
        (str(disc_folder / "boxes.csv"),),
        task="disc-detection",
        output=tmp_path_factory.mktemp("runs") / "discs",
        size=SIDE,
        epochs=2,
        model=ModelConfig(arch="cnn_lrn"),
    )
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return train_detector(request).path
    finally:
        torch.set_num_threads(before)
