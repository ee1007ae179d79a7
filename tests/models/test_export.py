from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file

from medcli.config import NO_AGGREGATOR, ModelConfig
from medcli.errors import MedcliError
from medcli.models.export import INPUTS, OUTPUTS, check_onnx, export_onnx
from medcli.models.package import GRAPH, WEIGHTS, load_package
from medcli.models.registry import AGGREGATORS, BACKBONES, VOLUMES
from medcli.models.scan_model import ScanModel, build_model

pytestmark = pytest.mark.usefixtures("one_thread")
SIZE = 32
# An export takes seconds. The default is exported for the run that all tests share anyway;
# each aggregator alone is exported in tests/layers.
FAST = [("cnn_lrn", "lstm_bidirectional"), ("cnn_lrn_sum", "max")]
EVERY = [
    *((arch, "attention") for arch in BACKBONES),
    *((arch, NO_AGGREGATOR) for arch in VOLUMES),
    *(("cnn_lrn", aggregator) for aggregator in AGGREGATORS),
]
SLOW = [pair for pair in dict.fromkeys(EVERY) if pair not in FAST]


def build(arch: str, aggregator: str) -> ScanModel:
    torch.manual_seed(0)
    config = ModelConfig(arch=arch, aggregator=aggregator, embedding_dim=8)
    return build_model(config, channels=1, size=SIZE, num_classes=3)


def trained(run: Path) -> tuple[ScanModel, int, int]:
    """The torch model of a run, its channels and its side."""
    package = load_package(run)
    channels, size = package.preprocess.channels, package.preprocess.size
    model = build_model(package.model, channels, size, len(package.task.classes))
    model.load_state_dict(load_file(run / WEIGHTS))
    return model.eval(), channels, size


@pytest.mark.parametrize(
    ("arch", "aggregator"), [*FAST, *(pytest.param(*pair, marks=pytest.mark.slow) for pair in SLOW)]
)
def test_the_graph_of_every_model_answers_as_torch(
    arch: str, aggregator: str, tmp_path: Path
) -> None:
    model = build(arch, aggregator)
    export_onnx(model, tmp_path / GRAPH, 1, SIZE)
    assert check_onnx(model, tmp_path / GRAPH, 1, SIZE) < 1e-4


def test_weights_and_graph_of_a_run_are_one_model(tiny_run: Path) -> None:
    assert check_onnx(*_with_graph(tiny_run)) < 1e-4


def _with_graph(run: Path) -> tuple[ScanModel, Path, int, int]:
    model, channels, size = trained(run)
    return model, run / GRAPH, channels, size


def test_a_graph_of_other_weights_is_refused(tiny_run: Path) -> None:
    model, graph, channels, size = _with_graph(tiny_run)
    with torch.no_grad():
        model.head.bias += 0.01
    with pytest.raises(MedcliError, match="differs from the trained model by"):
        check_onnx(model, graph, channels, size)


def test_the_graph_is_the_same_whatever_the_batch(tiny_run: Path) -> None:
    model, graph, channels, size = _with_graph(tiny_run)
    session = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    assert [entry.name for entry in session.get_inputs()] == list(INPUTS)
    images = np.random.default_rng(0).standard_normal((5, 4, channels, size, size))
    images, mask = images.astype(np.float32), np.arange(4) < np.array([[1], [2], [3], [4], [4]])
    together = session.run(list(OUTPUTS), {"images": images, "mask": mask})
    with torch.inference_mode():
        expected = model(torch.from_numpy(images), torch.from_numpy(mask))
    for got, wanted in zip(together, expected, strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-4)


def test_the_graph_says_nothing_about_the_machine_that_wrote_it(tiny_run: Path) -> None:
    content = (tiny_run / GRAPH).read_bytes()
    for place in (str(Path(__file__).parents[2]), "site-packages", "stack_trace"):
        assert place.encode() not in content
