"""What a user would write without medcli: the same network in eager torch, pydicom, Pillow, FAISS.

    python benchmarks/plain.py classify MODEL SCAN
    python benchmarks/plain.py search MODEL SCAN VECTORS.npy
    python benchmarks/plain.py embed MODEL FOLDER INDEX [WORKERS]

MODEL is a model package. No checks, no calibration, no other windows of a CT, no metadata: the
least that gives an answer. Called by cold_start.py and bulk.py as whole processes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

# pydicom loads every decoder it finds, and medcli brings one that a plain script would not have.
sys.modules["gdcm"] = None  # type: ignore[assignment]

import numpy as np
import torch
import torchvision  # noqa: F401  # such a script imports it
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from medcli.models.package import ModelPackage, peek
from medcli.models.weights import load_model

BATCH = 32


class Files(Dataset[Tensor]):
    """Files → (1, C, H, W) model inputs."""

    def __init__(self, paths: list[Path], package: ModelPackage) -> None:
        self.paths, self.settings = paths, package.preprocess

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        settings = self.settings
        image = torch.from_numpy(_unit(self.paths[index], settings.ct_window))
        size = (settings.size, settings.size)
        image = F.interpolate(image[None], size=size, mode="bilinear", antialias=True)
        image = image.expand(1, settings.channels, *size)
        mean, std = (torch.tensor(each).reshape(-1, 1, 1) for each in (settings.mean, settings.std))
        return (image - mean) / std


def _unit(path: Path, window: tuple[float, float]) -> np.ndarray:
    """(C, H, W) float32 in 0–1."""
    if path.suffix == ".dcm":
        import pydicom

        dataset = pydicom.dcmread(path)
        slope, intercept = float(dataset.RescaleSlope), float(dataset.RescaleIntercept)
        hu = dataset.pixel_array * slope + intercept
        return np.clip((hu - window[0]) / window[1] + 0.5, 0, 1).astype(np.float32)[np.newaxis]
    from PIL import Image

    pixels = np.asarray(Image.open(path), np.float32) / 255
    return pixels[np.newaxis] if pixels.ndim == 2 else np.moveaxis(pixels, 2, 0)


def outputs(package: ModelPackage, images: Tensor) -> tuple[Tensor, Tensor]:
    """(N, 1, C, H, W) pictures → logits and embeddings."""
    model = load_model(package)
    with torch.inference_mode():
        found = model(images, torch.ones(len(images), 1, dtype=torch.bool))
    return found.logits, found.embedding


def classify(model: str, scan: str) -> None:
    """One file → the probabilities of the first task."""
    package = peek(Path(model))
    logits, _ = outputs(package, Files([Path(scan)], package)[0][None])
    head = package.heads[0]
    shares = torch.softmax(logits[0][: len(head.task.classes)], 0).tolist()
    print(dict(zip(head.task.classes, shares, strict=True)))


def search(model: str, scan: str, vectors: str) -> None:
    """One file → the numbers of the nearest vectors of a saved array."""
    import faiss

    package = peek(Path(model))
    _, embedding = outputs(package, Files([Path(scan)], package)[0][None])
    stored = np.load(vectors).astype(np.float32)
    index = faiss.IndexFlatIP(stored.shape[1])
    index.add(stored)
    print(index.search(embedding.numpy(), 5))


def embed(model: str, folder: str, index_file: str, workers: str = "2") -> None:
    """A folder → a FAISS index of its vectors, with workers that load."""
    import faiss

    package = peek(Path(model))
    network = load_model(package)
    files = Files(sorted(path for path in Path(folder).rglob("*") if path.is_file()), package)
    index = faiss.IndexFlatIP(package.model.vector_dim)
    with torch.inference_mode():
        for images in DataLoader(files, batch_size=BATCH, num_workers=int(workers)):
            found = network(images, torch.ones(len(images), 1, dtype=torch.bool))
            index.add(found.embedding.numpy())
    faiss.write_index(index, index_file)
    print(index.ntotal)


COMMANDS: dict[str, Callable[..., None]] = {"classify": classify, "search": search, "embed": embed}

if __name__ == "__main__":
    COMMANDS[sys.argv[1]](*sys.argv[2:])
