"""What runs the graph of a model; ONNX Runtime, the engine that is always there."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import onnxruntime

from medcli.errors import DamagedError


class EngineOutput(NamedTuple):
    """logits (N, W); embedding (N, D); slice_embeddings (N, S, D); attention (N, S): float32."""

    logits: np.ndarray
    embedding: np.ndarray
    slice_embeddings: np.ndarray
    attention: np.ndarray


class Engine(Protocol):
    """Runs the graph of a model package."""

    def run(self, images: np.ndarray, mask: np.ndarray) -> EngineOutput:
        """(N, S, C, H, W) float32 images, (N, S) bool mask of real slices → outputs."""


def open_graph(graph: Path, threads: int = 0) -> onnxruntime.InferenceSession:
    """A graph, ready to run on the CPU.

    Raises
    ------
    DamagedError : ONNX Runtime cannot read the graph
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # Threads that wait in a loop burn the time that reading needs, and a batch is no faster.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own errors share no base class
        raise DamagedError(
            f"{graph}: ONNX Runtime cannot load the graph",
            "Restore the model folder from a backup or train again",
        ) from error


class OnnxEngine:
    """Runs the graph of a model package on the CPU.

    Raises
    ------
    DamagedError : ONNX Runtime cannot read the graph
    """

    def __init__(self, graph: Path, threads: int = 0) -> None:
        self._session = open_graph(graph, threads)

    def run(self, images: np.ndarray, mask: np.ndarray) -> EngineOutput:
        """(N, S, C, H, W) float32 images, (N, S) bool mask of real slices → outputs."""
        return EngineOutput(
            *self._session.run(list(EngineOutput._fields), {"images": images, "mask": mask})
        )
