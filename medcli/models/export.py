"""A trained model as an ONNX graph, checked against torch."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medcli.errors import MedcliError
from medcli.models.scan_model import ScanModel

INPUTS = ("images", "mask")
OUTPUTS = ("logits", "embedding", "slice_embeddings", "attention")


def export_onnx(
    model: ScanModel, path: Path, channels: int, size: int, *, fold: bool = True
) -> None:
    """Write `model` as an ONNX graph with free batch size and free number of slices.

    `fold` joins normalisations into the convolutions before them; without it the graph holds
    the weights as they are, and the engine joins them when it loads.

    The graph depends on the weights alone: where this program lies on the disk, which
    the exporter notes beside every node, is left out.
    """
    model = model.eval().to("cpu").to(memory_format=torch.contiguous_format)
    images = torch.zeros(2, 3, channels, size, size)
    mask = torch.ones(2, 3, dtype=torch.bool)
    scans, slices = torch.export.Dim("scans"), torch.export.Dim("slices")
    write_graph(
        model,
        (images, mask),
        path,
        inputs=INPUTS,
        outputs=OUTPUTS,
        dynamic=({0: scans, 1: slices}, {0: scans, 1: slices}),
        fold=fold,
    )


def write_graph(
    module: torch.nn.Module,
    examples: tuple[torch.Tensor, ...],
    path: Path,
    *,
    inputs: Sequence[str],
    outputs: Sequence[str],
    dynamic: tuple[dict[int, Any], ...],
    fold: bool = True,
) -> None:
    """Write a module as an ONNX graph in one file.

    Parameters
    ----------
    examples : an input each
    dynamic : of each input the axes of free length
    fold : as of `export_onnx`
    """
    from onnxscript import optimizer

    with _quiet():
        program = torch.onnx.export(
            module,
            examples,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=dynamic,
            dynamo=True,
            optimize=fold,
            verbose=False,
        )
        assert program is not None  # it is what the dynamo exporter returns
        if not fold:  # what does not depend on the input is computed here and now
            optimizer.fold_constants(program.model)
            optimizer.remove_unused_nodes(program.model)
        for node in program.model.graph.all_nodes():
            node.metadata_props.clear()
        program.save(path, external_data=False)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter's progress lines and its own deprecation notes, none of the user's concern."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def check_onnx(model: ScanModel, path: Path, channels: int, size: int, seed: int = 0) -> float:
    """The largest difference between graph and torch on random scans of 1 and 7 slices.

    Raises
    ------
    MedcliError : an output differs by more than 1e-3, so the graph must not be used
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(seed)
    worst = 0.0
    for scans, slices in ((1, 1), (3, 7)):
        images = rng.standard_normal((scans, slices, channels, size, size)).astype(np.float32)
        mask = np.ones((scans, slices), dtype=bool)
        mask[-1, slices // 2 + 1 :] = False
        with torch.inference_mode():
            expected = model.eval()(torch.from_numpy(images), torch.from_numpy(mask))
        actual = session.run(list(OUTPUTS), {"images": images, "mask": mask})
        for wanted, got in zip(expected, actual, strict=True):
            worst = max(worst, float(np.abs(wanted.numpy() - got).max()))
    if not worst < 1e-3:
        raise MedcliError(
            f"the exported graph differs from the trained model by {worst:.1e}",
            "Train again; if it stays, report it with the output of `pip list`",
        )
    return worst
