"""Linear classifiers beside the model: a perceptron on pixels, and one on its embeddings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from medcli.data.arrays import ScanArrays
from medcli.evaluation.baselines import score_baseline
from medcli.layers.perceptron import fit_perceptron

MAX_SLICES = 5_000  # of the training part, drawn at random: the baselines cost seconds
MAX_SHOWN = 50_000  # inputs that a perceptron is shown in all
FIELDS = 32  # a side of the picture that the perceptron sees


def perceptron_baselines(
    train: ScanArrays,
    held_out: ScanArrays,
    num_classes: int,
    *,
    embed: Callable[[ScanArrays], np.ndarray],
    patients: Sequence[str | None],
    seed: int,
) -> dict[str, Any]:
    """AUROC on the held-out part of a perceptron on pixels, and of one on embeddings.

    What the pixels give by themselves is what the network has to beat; what a line through
    its embeddings gives says how far they hold the classes apart (a linear probe).

    Parameters
    ----------
    embed : scans → (N, V) embeddings by the trained model
    patients : of the held-out part, one a scan
    """
    train = sample(train, seed)
    baselines = {}
    for name, describe in (("perceptron_pixels", mean_pictures), ("perceptron_embedding", embed)):
        known, asked = _standardise(describe(train), describe(held_out))
        epochs = max(1, MAX_SHOWN // len(known))
        perceptron = fit_perceptron(
            known, train.labels, num_classes, epochs=epochs, margin=1.0, seed=seed
        )
        leads = _leads(perceptron.scores(asked))
        baselines[name] = score_baseline(held_out.labels, leads, patients=patients, seed=seed)
    return baselines


def sample(scans: ScanArrays, seed: int) -> ScanArrays:
    """Scans drawn at random, as many as have `MAX_SLICES` slices together."""
    order = np.random.default_rng(seed).permutation(len(scans.lengths))
    count = int(np.searchsorted(np.cumsum(scans.lengths[order]), MAX_SLICES, side="right"))
    return scans.select(np.sort(order[: max(1, count)]))


def mean_pictures(scans: ScanArrays) -> np.ndarray:
    """(N, D) the mean over the slices of each scan, in at most `FIELDS` × `FIELDS` fields."""
    ends = zip(scans.offsets, scans.offsets[1:], strict=False)
    means = np.stack([scans.images[start:end].mean(axis=0) for start, end in ends])
    side = min(FIELDS, means.shape[-1])
    fields = F.adaptive_avg_pool2d(torch.from_numpy(means), side).flatten(1)
    return np.asarray(fields.numpy())


def _standardise(known: np.ndarray, asked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both (·, D) by mean and deviation of `known`, and of length about 1, as the margin is."""
    mean, std = known.mean(axis=0), known.std(axis=0)
    scale = np.where(std > 1e-6, std, 1) * np.sqrt(known.shape[1])
    return (known - mean) / scale, (asked - mean) / scale


def _leads(scores: np.ndarray) -> np.ndarray:
    """(N, K) scores → by how much each class leads the best of the others."""
    leads = np.empty_like(scores)
    for k in range(scores.shape[1]):
        leads[:, k] = scores[:, k] - np.delete(scores, k, axis=1).max(axis=1)
    return leads
