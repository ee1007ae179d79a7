from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medcli.data.arrays import ScanArrays
from medcli.models.package import CARD, load_package
from medcli.training import baselines
from medcli.training.baselines import mean_pictures, perceptron_baselines, sample

pytestmark = pytest.mark.usefixtures("one_thread")


def scans(count: int, lengths: int = 2, side: int = 8, seed: int = 0) -> ScanArrays:
    """Noise, brighter on the left in the scans of odd number, class 1."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    images = rng.integers(0, 200, (count * lengths, 1, side, side), dtype=np.uint8)
    images[np.repeat(labels, lengths) == 1, :, :, : side // 2] += 50
    return ScanArrays(images, np.full(count, lengths), labels)


def told_apart(scans: ScanArrays) -> np.ndarray:
    """Embeddings that hold the label in one of their numbers."""
    return np.stack([scans.labels * 1.0, np.ones(len(scans.labels))], axis=1)


def blind(scans: ScanArrays) -> np.ndarray:
    """Embeddings that hold nothing."""
    return np.ones((len(scans.labels), 3))


def both(embed: Any, labels: np.ndarray | None = None) -> dict[str, Any]:
    held_out = scans(30, seed=1)
    if labels is not None:
        held_out = ScanArrays(held_out.images, held_out.lengths, labels)
    return perceptron_baselines(
        scans(60), held_out, 2, embed=embed, patients=[str(n) for n in range(30)], seed=0
    )


def test_what_pixels_and_embeddings_hold_is_told() -> None:
    found = both(told_apart)
    assert found["perceptron_pixels"]["auroc"] > 0.9
    low, high = found["perceptron_pixels"]["auroc_ci"]
    assert low <= found["perceptron_pixels"]["auroc"] <= high
    assert found["perceptron_embedding"]["auroc"] == 1
    assert both(blind)["perceptron_embedding"]["auroc"] == 0.5


def test_one_class_held_out_has_no_auroc() -> None:
    found = both(told_apart, labels=np.zeros(30, int))
    assert found["perceptron_pixels"] == {"auroc": None, "auroc_ci": None}


def test_the_perceptron_sees_the_mean_slice_in_fields() -> None:
    stack = scans(3, lengths=4, side=64)
    pictures = mean_pictures(stack)
    means = stack.images.reshape(3, 4, 64, 64).mean(axis=1)
    expected = means.reshape(3, 32, 2, 32, 2).mean(axis=(2, 4)).reshape(3, -1)
    np.testing.assert_allclose(pictures, expected)
    assert mean_pictures(scans(3, side=20)).shape == (3, 20 * 20)


def test_large_sets_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "MAX_SLICES", 21)
    chosen = sample(scans(100), seed=0)
    assert chosen.lengths.sum() == 20
    assert 0 < chosen.labels.sum() < 10
    assert len(sample(scans(5), seed=0).labels) == 5


def test_a_run_stores_the_baselines_and_its_card_shows_them(tiny_run: Path) -> None:
    found = load_package(tiny_run).metrics["baselines"]
    assert {"perceptron_pixels", "perceptron_embedding"} <= set(found)
    assert "| perceptron on pixels | " in (tiny_run / CARD).read_text()
