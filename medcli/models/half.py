"""Models at half the size: float16 numbers in the files, float32 arithmetic.

Kernels and matrices are rounded to float16. Vectors (biases, statistics of normalisations)
are few and stay float32. Weights and graph hold the same rounded numbers: the graph is made
from the rounded network, and a number of the graph becomes float16 only where that changes
nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from medcli.errors import UsageError
from medcli.models.scan_model import ScanModel

_SUFFIX = "_float16"


def round_to_half(model: ScanModel) -> dict[str, Tensor]:
    """Round the kernels and matrices of `model`, in place; its state as it is to be stored.

    Raises
    ------
    UsageError : a weight is too large for float16
    """
    stored = {}
    for name, tensor in model.state_dict().items():
        whole = tensor.detach().cpu().contiguous()
        halved = tensor.is_floating_point() and tensor.ndim > 1
        stored[name] = whole.half() if halved else whole
        if not stored[name].isfinite().all():
            raise UsageError(
                f"{name} holds numbers that float16 cannot", "Train with more weight decay"
            )
    model.load_state_dict(stored)
    return stored


def halve_graph(path: Path) -> None:
    """Store the kernels and matrices of a graph as float16 where they lose nothing by it.

    A Cast before the first use makes them float32 again, once, when the engine loads.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load(str(path))
    casts: list[Any] = []
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if not _is_lossless(values):
            continue
        name = tensor.name
        half = numpy_helper.from_array(values.astype(np.float16), name + _SUFFIX)
        tensor.CopyFrom(half)
        casts.append(helper.make_node("Cast", [half.name], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


def _is_lossless(values: np.ndarray) -> bool:
    """Whether a kernel or matrix is made of float16 numbers."""
    if values.dtype != np.float32 or values.ndim < 2:
        return False
    with np.errstate(over="ignore"):
        return bool((values.astype(np.float16).astype(np.float32) == values).all())
