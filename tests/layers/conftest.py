"""Padded scans to aggregate, and layers as ONNX graphs."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

FEATURES = 6
LENGTHS = (1, 3, 5)
Answer = tuple[np.ndarray, np.ndarray]


@pytest.fixture
def bag() -> tuple[Tensor, Tensor]:
    """(3, 5, 6) features of scans of 1, 3 and 5 slices, padded to five, and their mask."""
    generator = torch.Generator().manual_seed(0)
    mask = torch.arange(max(LENGTHS))[None] < torch.tensor(LENGTHS)[:, None]
    return torch.randn(*mask.shape, FEATURES, generator=generator), mask


@pytest.fixture
def in_onnx(tmp_path: Path) -> Callable[[nn.Module], Callable[[Tensor, Tensor], Answer]]:
    """An aggregator as a graph with free numbers of scans and slices, in ONNX Runtime."""

    def export(layer: nn.Module) -> Callable[[Tensor, Tensor], Answer]:
        scans, slices = torch.export.Dim("scans"), torch.export.Dim("slices")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                layer.eval(),
                (torch.zeros(2, 3, FEATURES), torch.ones(2, 3, dtype=torch.bool)),
                input_names=["features", "mask"],
                dynamic_shapes=({0: scans, 1: slices}, {0: scans, 1: slices}),
                dynamo=True,
                verbose=False,
            )
        assert program is not None
        program.save(tmp_path / "layer.onnx")
        session = onnxruntime.InferenceSession(str(tmp_path / "layer.onnx"))

        def answer(features: Tensor, mask: Tensor) -> Answer:
            pooled, weights = session.run(
                None, {"features": features.numpy(), "mask": mask.numpy()}
            )
            return pooled, weights

        return answer

    return export
