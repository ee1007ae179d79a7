"""OpenVINO, an optional engine: a second longer to load, and then often faster.

References
----------
https://docs.openvino.ai, "Precision Control" and "CPU Device"
"""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medcli.errors import DamagedError, UsageError
from medcli.inference.engine import EngineOutput

if TYPE_CHECKING:
    from openvino import Core


class OpenVinoEngine:
    """Runs the graph of a model package on the CPU.

    Parameters
    ----------
    threads : 0: as many as there are cores
    bfloat16 : multiply in bfloat16, which moves vectors by about 1e-5 (1 - cos); where the
        processor has no such arithmetic nothing is faster, so it is refused

    Raises
    ------
    UsageError : no bfloat16 here
    DamagedError : OpenVINO cannot read the graph
    """

    def __init__(self, graph: Path, threads: int = 0, *, bfloat16: bool = False) -> None:
        if bfloat16 and not has_bfloat16():
            raise UsageError(
                "this processor cannot multiply in bfloat16", "Ask for --engine openvino"
            )
        settings = {
            "INFERENCE_PRECISION_HINT": "bf16" if bfloat16 else "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
        }
        try:
            self._request = _core().compile_model(graph, "CPU", settings).create_infer_request()
        except RuntimeError as error:
            raise DamagedError(
                f"{graph}: OpenVINO cannot load the graph",
                "Ask for --engine onnxruntime, restore the model folder from a backup or "
                "train again",
            ) from error

    def run(self, images: np.ndarray, mask: np.ndarray) -> EngineOutput:
        """(N, S, C, H, W) float32 images, (N, S) bool mask of real slices → outputs."""
        found = self._request.infer({"images": images, "mask": mask})
        return EngineOutput(*(found[name] for name in EngineOutput._fields))


def has_bfloat16() -> bool:
    """Whether OpenVINO multiplies in bfloat16 on this processor."""
    return "BF16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@cache
def _core() -> Core:
    """OpenVINO, one for the life of the process, without its telemetry.

    Its plugin for processors gives the thread that loads it another stack for signals, and frees
    that in the thread that lets go of it last: an interrupt of the first would then be a
    segmentation fault. Its telemetry writes an identifier into the user's home on import.
    """
    hidden = "openvino_telemetry"
    modules: dict[str, object] = sys.modules  # type: ignore[assignment]
    before = hidden in modules
    modules.setdefault(hidden, None)  # as Python documents: it is not found
    try:
        from openvino import Core
    finally:
        if not before:
            del modules[hidden]
    return Core()
