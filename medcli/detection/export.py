"""A detector as two ONNX graphs, checked against torch: what proposes, and what judges.

Between the two stands the choice of proposals (`medcli.inference.regions`), in NumPy.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from medcli.config import DetectionConfig
from medcli.detection.network import DetectionModel
from medcli.errors import MedcliError
from medcli.inference.engine import open_graph
from medcli.inference.regions import choose_proposals
from medcli.models.export import write_graph
from medcli.models.package import GRAPH, REGIONS_GRAPH

TOLERANCE = 1e-2  # pixels and logits


class _Propose(nn.Module):
    def __init__(self, model: DetectionModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features, objectness, boxes, _ = self.model.propose(images)
        return features, objectness, boxes


class _Judge(nn.Module):
    def __init__(self, model: DetectionModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, features: Tensor, regions: Tensor) -> tuple[Tensor, Tensor]:
        logits, boxes, _ = self.model.judge(features, regions)
        return logits, boxes


def export_detector(model: DetectionModel, folder: Path, channels: int) -> None:
    """Write `graph.onnx` and `regions.onnx`, for any number of slices and of regions."""
    model = model.eval().to("cpu").to(memory_format=torch.contiguous_format)
    images = torch.zeros(2, channels, model.size, model.size)
    slices, count = torch.export.Dim("slices"), torch.export.Dim("regions")
    write_graph(
        _Propose(model),
        (images,),
        folder / GRAPH,
        inputs=["images"],
        outputs=["features", "objectness", "boxes"],
        dynamic=({0: slices},),
    )
    with torch.inference_mode():
        features = model.propose(images).features.clone()
    regions = torch.tensor([[0.0, 2, 2, 20, 20], [1, 3, 3, 30, 18], [1, 0, 0, 9, 9]])
    write_graph(
        _Judge(model),
        (features.detach(), regions),
        folder / REGIONS_GRAPH,
        inputs=["features", "regions"],
        outputs=["logits", "boxes"],
        dynamic=({0: slices}, {0: count}),
    )


def check_detector(
    model: DetectionModel, folder: Path, channels: int, config: DetectionConfig, seed: int = 0
) -> float:
    """The largest difference between the graphs and torch on one and on three random slices.

    Raises
    ------
    MedcliError : an output differs by more than `TOLERANCE`, so the graphs must not be used
    """
    propose, judge = open_graph(folder / GRAPH), open_graph(folder / REGIONS_GRAPH)
    rng = np.random.default_rng(seed)
    worst = 0.0
    for count in (1, 3):
        images = rng.standard_normal((count, channels, model.size, model.size)).astype(np.float32)
        first = propose.run(["features", "objectness", "boxes"], {"images": images})
        regions = choose_proposals(first[1], first[2], config)
        second = judge.run(["logits", "boxes"], {"features": first[0], "regions": regions})
        with torch.inference_mode():
            proposed = model.eval().propose(torch.from_numpy(images))
            judged = model.judge(torch.from_numpy(first[0]), torch.from_numpy(regions))
        expected = [*proposed[:3], *judged[:2]]
        for wanted, got in zip(expected, [*first, *second], strict=True):
            worst = max(worst, float(np.abs(wanted.numpy() - got).max()))
    if not worst < TOLERANCE:
        raise MedcliError(
            f"the exported graphs differ from the trained detector by {worst:.1e}",
            "Train again; if it stays, report it with the output of `pip list`",
        )
    return worst
