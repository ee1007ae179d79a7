"""Galleries of small random vectors, with nothing read from disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from medcli.records import Embedding, GalleryEntry
from medcli.retrieval.gallery import Gallery

DIM = 8
FINGERPRINT = "f" * 64


@pytest.fixture(scope="session")
def unit() -> Callable[..., np.ndarray]:
    """Random rows of unit length, (n, D) float32, the same for the same seed."""

    def make(n: int, seed: int = 0, dim: int = DIM) -> np.ndarray:
        rows = np.random.default_rng(seed).normal(size=(n, dim))
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    return make


@pytest.fixture(scope="session")
def make_entry(unit: Callable[..., np.ndarray]) -> Callable[..., GalleryEntry]:
    """An entry of `n_slices` slices with random vectors; keywords replace its fields."""

    def make(
        name: str,
        *,
        seed: int = 0,
        n_slices: int = 1,
        vector: np.ndarray | None = None,
        slice_vectors: np.ndarray | None = None,
        dim: int = DIM,
        **fields: object,
    ) -> GalleryEntry:
        rows = unit(n_slices + 1, seed, dim)
        slices = rows[1:] if n_slices > 1 else np.empty((0, dim), np.float32)
        if slice_vectors is not None:
            slices = slice_vectors
        embedding = Embedding(
            vector=rows[0] if vector is None else vector,
            logits=np.zeros(2, np.float32),
            slice_vectors=slices,
            slice_numbers=np.arange(len(slices)),
            slice_views=("model",) * len(slices),
            attention=np.full(n_slices, 1 / n_slices, np.float32),
        )
        values: dict[str, object] = {
            "path": f"/scans/{name}",
            "scan_id": name,
            "files": (f"/scans/{name}",),
            "slice_files": tuple(f"/scans/{name}/{i}.dcm" for i in range(n_slices)),
            "pixel_sha256": f"pixels of {name}",
            "thumbnails": {0: b"jpeg of " + name.encode()},
        }
        return GalleryEntry(embedding=embedding, **{**values, **fields})  # type: ignore[arg-type]

    return make


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that stands for a model package."""
    folder = tmp_path_factory.mktemp("package")
    (folder / "model.json").write_text('{"arch": "none"}')
    (folder / "graph.onnx").write_bytes(b"graph")
    return folder


@pytest.fixture
def make_gallery(tmp_path: Path, model_dir: Path) -> Iterator[Callable[..., Gallery]]:
    """Create a gallery in the test's folder, open for writing; closed at the end."""
    opened: list[Gallery] = []

    def make(name: str = "gallery", **settings: object) -> Gallery:
        values: dict[str, object] = {
            "model_dir": model_dir,
            "fingerprint": FINGERPRINT,
            "dim": DIM,
            **settings,
        }
        with Gallery.build(tmp_path / name, **values):  # type: ignore[arg-type]
            pass
        gallery = Gallery.open(tmp_path / name, write=True)
        opened.append(gallery)
        return gallery

    yield make
    for gallery in opened:
        gallery.close()


@pytest.fixture
def gallery(make_gallery: Callable[..., Gallery]) -> Gallery:
    """An empty gallery, open for writing."""
    return make_gallery()
