"""AUROC before and after `medcli adapt` on pictures of another detector; prints Markdown.

    python benchmarks/adaptation.py DATA [--epochs 8] [--seeds 0,1]

DATA is medmnist/pneumoniamnist_train_val.npz. 600 pictures, each a patient of its own: 60 %
teach a network of 28 px, 15 % choose the epoch, 25 % are measured. The other site is made from
those: each shift below is applied to the measured pictures (for the numbers) and to 400 further
pictures, without their labels (for the statistics). "one class" adapts to pictures of pneumonia
only, which the method cannot tell from another detector. Intervals: bootstrap over pictures, of
the mean over the seeds.
"""

from __future__ import annotations

import argparse
import copy
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from sklearn.metrics import roc_auc_score

from medcli.config import ModelConfig, PreprocessConfig, TrainConfig
from medcli.data.arrays import ScanArrays
from medcli.models.scan_model import ScanModel
from medcli.training.adapting import adapt_statistics
from medcli.training.loop import fit
from medcli.training.prediction import predict_logits

CPU = torch.device("cpu")
PICTURES, ADAPTED_TO = 600, 400
RESAMPLES = 500

Shift = Callable[[np.ndarray, np.random.Generator], np.ndarray]
SHIFTS: dict[str, Shift] = {
    "none": lambda x, rng: x,
    "gamma 2": lambda x, rng: x**2,
    "gamma 0.5": lambda x, rng: x**0.5,
    "half the contrast, brighter": lambda x, rng: 0.5 * x + 0.4,
    "noise 0.1": lambda x, rng: x + rng.normal(0, 0.1, x.shape),
    "blur 1 px": lambda x, rng: gaussian_filter(x, (0, 0, 1, 1)),
    "gamma 2, blur 1 px, noise 0.1": lambda x, rng: (
        gaussian_filter(x**2, (0, 0, 1, 1)) + rng.normal(0, 0.1, x.shape)
    ),
}


def main() -> None:
    """Train once a seed, then shift, measure, adapt, measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seeds", default="0,1")
    options = parser.parse_args()
    seeds = [int(seed) for seed in options.seeds.split(",")]
    with np.load(options.data) as archive:
        images, labels = archive["train_images"], archive["train_labels"].ravel().astype(np.int64)
    print(f"{date.today()}, {os.cpu_count()} cores, seeds {options.seeds}, ", end="")
    print(f"{options.epochs} epochs, medcli {version('medcli')}, torch {version('torch')}\n")
    found: dict[str, list[list[np.ndarray]]] = {name: [] for name in SHIFTS}
    truth, kinds = [], ("before", "adapted", "one class")
    for seed in seeds:
        order = np.random.default_rng(seed).permutation(len(images))
        chosen = ScanArrays(images[order][:, None], np.ones(len(order), np.int64), labels[order])
        rows = np.split(np.arange(PICTURES + ADAPTED_TO), [360, 450, PICTURES])
        train, val, test, further = (chosen.select(part) for part in rows)
        model, preprocess = trained(train, val, seed, options.epochs)
        truth.append(test.labels)
        for name, shift in SHIFTS.items():
            here, there = shifted(test, shift, seed), shifted(further, shift, seed + 1)
            sick = there.select(np.flatnonzero(there.labels == 1))
            models = [model, adapted(model, there, preprocess), adapted(model, sick, preprocess)]
            logits = [predict_logits(m, here, preprocess, 128, CPU).numpy() for m in models]
            found[name].append([each[:, 1] - each[:, 0] for each in logits])
    print(f"| shift | {' | '.join(kinds)} | gain |")
    print("|---|---|---|---|---|")
    for name, each in found.items():
        print(f"| {name} | {' | '.join(row(truth, each))} |")


def trained(
    train: ScanArrays, val: ScanArrays, seed: int, epochs: int
) -> tuple[ScanModel, PreprocessConfig]:
    """A network that has seen one detector."""
    mean, std = train.statistics()
    preprocess = PreprocessConfig(size=28, mean=mean, std=std)
    config = TrainConfig(
        seed=seed, epochs=epochs, patience=epochs, batch_slices=32, augmentation="radiograph"
    )
    torch.manual_seed(seed)
    model = ScanModel(ModelConfig(), channels=1, size=28, num_classes=2)
    return fit(model, train, val, preprocess, config, device=CPU).model, preprocess


def adapted(model: ScanModel, scans: ScanArrays, preprocess: PreprocessConfig) -> ScanModel:
    """A copy of `model` with the statistics of `scans`."""
    other = copy.deepcopy(model)
    adapt_statistics(other, scans, preprocess)
    return other


def shifted(scans: ScanArrays, shift: Shift, seed: int) -> ScanArrays:
    """The scans as the other detector would show them."""
    changed = shift(scans.images / 255, np.random.default_rng(seed))
    return replace(scans, images=np.rint(changed.clip(0, 1) * 255).astype(np.uint8))


def row(truth: list[np.ndarray], scores: list[list[np.ndarray]]) -> list[str]:
    """AUROC of each model with its interval, and what adapting gained."""
    cells, drawn, values = [], [], []
    for kind in range(len(scores[0])):
        own = [each[kind] for each in scores]
        values.append(area(truth, own, None))
        drawn.append(np.array([area(truth, own, number) for number in range(RESAMPLES)]))
        low, high = np.percentile(drawn[-1], [2.5, 97.5])
        cells.append(f"{values[-1]:.3f} ({low:.3f}–{high:.3f})")
    low, high = np.percentile(drawn[1] - drawn[0], [2.5, 97.5])
    return [*cells, f"{values[1] - values[0]:+.3f} ({low:+.3f}–{high:+.3f})"]


def area(truth: list[np.ndarray], scores: list[np.ndarray], number: int | None) -> float:
    """Mean AUROC over the seeds, of all pictures or of a numbered resample of them."""
    areas = []
    for index, (labels, own) in enumerate(zip(truth, scores, strict=True)):
        rows = np.arange(len(labels))
        if number is not None:
            rows = np.random.default_rng([index, number]).integers(0, len(labels), len(labels))
        areas.append(roc_auc_score(labels[rows], own[rows]))
    return float(np.mean(areas))


if __name__ == "__main__":
    main()
