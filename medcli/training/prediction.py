"""What a model says of scans in memory, by torch; `medcli.inference` does it without."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from medcli.config import PreprocessConfig
from medcli.data.arrays import ScanArrays
from medcli.evaluation.ranking import auroc
from medcli.models.scan_model import ScanModel
from medcli.training.batches import Pixels, batches, draw_slices, standardise


def predict_logits(
    model: ScanModel,
    scans: ScanArrays,
    preprocess: PreprocessConfig,
    batch_slices: int,
    device: torch.device,
    bf16: bool = False,
    pixels: Pixels | None = None,
) -> Tensor:
    """(N, K) float32 logits of all scans, in their order, on the CPU.

    `pixels` are those of `scans`, where they are held already.
    """
    return _predict("logits", model, scans, preprocess, batch_slices, device, bf16, pixels)


def predict_embeddings(
    model: ScanModel,
    scans: ScanArrays,
    preprocess: PreprocessConfig,
    batch_slices: int,
    device: torch.device,
    bf16: bool = False,
) -> Tensor:
    """(N, V) float32 embeddings of all scans, of unit length, in their order, on the CPU."""
    return _predict("embedding", model, scans, preprocess, batch_slices, device, bf16)


@torch.inference_mode()
def _predict(
    output_name: str,
    model: ScanModel,
    scans: ScanArrays,
    preprocess: PreprocessConfig,
    batch_slices: int,
    device: torch.device,
    bf16: bool,
    pixels: Pixels | None = None,
) -> Tensor:
    """One of the model's outputs for all scans, in their order, on the CPU."""
    model.eval()
    pixels = pixels or Pixels(scans.images, device)
    parts = []
    for batch in batches(scans, batch_slices, None):
        rows, lengths = draw_slices(scans, batch)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            features = model.encode(standardise(pixels.take(rows), preprocess))
        output = model.aggregate_ragged(features, lengths)
        parts.append(getattr(output, output_name))
    return torch.cat(parts).cpu()  # at the end: a GPU is waited for once


def macro_auroc(labels: np.ndarray, probabilities: np.ndarray) -> float | None:
    """AUROC of (N, K) probabilities: of the second of two classes, else the one-vs-rest mean."""
    columns = [1] if probabilities.shape[1] == 2 else range(probabilities.shape[1])
    areas = [auroc(labels == column, probabilities[:, column]) for column in columns]
    defined = [area for area in areas if area is not None]
    return float(np.mean(defined)) if defined else None
