"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medcli.config import Calibration, ModelConfig, PreprocessConfig
from medcli.evaluation.out_of_distribution import Reference
from medcli.models.heads import Head
from medcli.models.package import (
    CARD,
    GRAPH,
    WEIGHTS,
    ModelPackage,
    finish_package,
    save_references,
    seal,
)
from medcli.records import Task

# A shell's background job has SIGINT ignored, and so would have the tests of interruptions.
signal.signal(signal.SIGINT, signal.default_int_handler)

SIDE, CELLS = 32, 8
DIM = CELLS * CELLS


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data named by MEDCLI_TEST_DATA; the test skips without it."""
    folder = os.environ.get("MEDCLI_TEST_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("MEDCLI_TEST_DATA does not name a folder of real data")
    return Path(folder).resolve()


@pytest.fixture(scope="session", autouse=True)
def _home_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or fills the medcli home of who runs it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDCLI_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(autouse=True)
def zoo(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in the place of the bundled models, so that no test hangs on them."""
    from medcli import home

    folder = tmp_path_factory.getbasetemp() / "no-bundled-models"
    monkeypatch.setattr(home, "ZOO", folder)
    return folder


@contextmanager
def _one_torch_thread() -> Iterator[None]:
    """Tiny tensors are several times faster on one thread where cores are shared."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Torch computes on one thread in this module's tests."""
    with _one_torch_thread():
        yield


@pytest.fixture(scope="session")
def sample_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generated CT of six patients, `nodule.csv` over them, `scan.dcm` and `query.png`."""
    from medcli.data.synthetic import write_sample_data

    return write_sample_data(
        tmp_path_factory.mktemp("sample"), patients=6, tasks=("nodule",)
    ).parent


@pytest.fixture(scope="session")
def tiny_run(sample_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder: one epoch on `sample_folder`. Shared by all tests, so copy it to change it."""
    from medcli.training.request import TrainRequest
    from medcli.training.run import train

    output = tmp_path_factory.mktemp("runs") / "tiny"
    request = TrainRequest((str(sample_folder / "nodule.csv"),), output=output, size=32, epochs=1)
    with _one_torch_thread():
        return train(request).path


@pytest.fixture
def open_in_browser(tmp_path: Path) -> Callable[[str], str]:
    """Open a page in headless Chromium, which may log no error and ask for nothing → its DOM.

    The test skips where there is no Chromium.
    """
    names = ("chromium", "chromium-browser", "google-chrome")
    chromium = next(filter(None, map(shutil.which, names)), None)
    if chromium is None:
        pytest.skip("no Chromium here to open the page with")

    def opened(html: str) -> str:
        (tmp_path / "page.html").write_text(html, encoding="utf-8")
        log = tmp_path / "net.json"
        arguments = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
        places = [f"--user-data-dir={tmp_path / 'profile'}", f"--log-net-log={log}"]
        page = (tmp_path / "page.html").as_uri()
        done = subprocess.run(
            [chromium, *arguments, "--v=0", *places, "--dump-dom", page],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        assert "CONSOLE" not in done.stderr
        requested = re.findall(r'"url":"([^"]+)"', log.read_text())
        assert [url for url in requested if not _own_traffic(url)] == []
        return done.stdout

    return opened


def _own_traffic(url: str) -> bool:
    """Whether the browser asks this of its maker for itself, whatever page it shows."""
    return any(name in url for name in ("google", "gvt1.com", "chrome:", "devtools:", "data:"))


@pytest.fixture(scope="session")
def make_package() -> Callable[..., ModelPackage]:
    """Write a model package in no time: grey levels of 8 × 8 cells are its embedding.

    Alike pictures lie close to each other, as with a trained model; its classes are drawn.
    """

    def make(
        folder: Path,
        *,
        task: str = "nodule",
        classes: Sequence[str] = ("benign", "malignant"),
        synthetic: bool = False,
        seed: int = 0,
        created: str = "2026-01-01T00:00:00+00:00",
        calibration: Calibration | None = None,
        reference: Reference | None = None,
    ) -> ModelPackage:
        folder.mkdir(parents=True)
        weights = np.random.default_rng(seed).normal(size=(DIM, len(classes)))
        (folder / GRAPH).write_bytes(cell_graph(weights.astype(np.float32)))
        (folder / WEIGHTS).write_bytes(weights.tobytes())
        (folder / CARD).write_text("Made for a test.\n")
        known = Task(task, tuple(classes), classes[-1] if len(classes) == 2 else None, 0.5)
        package = finish_package(
            folder,
            heads=[Head(known, calibration or Calibration())],
            preprocess=PreprocessConfig(size=SIDE),
            model=ModelConfig(embedding_dim=DIM, layout_grid=0),
            synthetic=synthetic,
            created=created,
            patient_salt="00" * 16,
            provenance={"source": "none", "split": []},
            metrics={"split": "test", "auroc": None, "accuracy": None},
        )
        if reference is not None:
            save_references(folder, {task: reference})
        seal(folder)
        return package

    return make


def cell_graph(weights: np.ndarray) -> bytes:
    """An ONNX graph with the inputs and outputs of a trained one; `weights` are (D, K)."""
    from onnx import TensorProto, checker, helper, numpy_helper

    def node(kind: str, inputs: str, output: str, **attributes: Any) -> Any:
        return helper.make_node(kind, inputs.split(), [output], **attributes)

    def unit(name: str, output: str) -> list[Any]:
        """`name` divided by its length over the last axis."""
        return [
            node("ReduceL2", name, f"{output}_length", axes=[-1], keepdims=1),
            node("Max", f"{output}_length tiny", f"{output}_safe"),
            node("Div", f"{name} {output}_safe", output),
        ]

    nodes = [
        node("Reshape", "images flat_shape", "flat"),
        node("AveragePool", "flat", "pooled", kernel_shape=[4, 4], strides=[4, 4]),
        node("Shape", "mask", "scans_slices"),
        node("Concat", "scans_slices dim", "cells_shape", axis=0),
        node("Reshape", "pooled cells_shape", "cells"),
        *unit("cells", "slice_embeddings"),
        node("Cast", "mask", "mask_float", to=TensorProto.FLOAT),
        node("Unsqueeze", "mask_float last", "mask_column"),
        node("Mul", "slice_embeddings mask_column", "kept"),
        node("ReduceSum", "kept slices", "total", keepdims=0),
        *unit("total", "embedding"),
        node("MatMul", "embedding weights", "logits"),
        node("ReduceSum", "mask_float slices", "count", keepdims=1),
        node("Div", "mask_float count", "attention"),
    ]
    constants = {
        "flat_shape": np.array([-1, 1, SIDE, SIDE], np.int64),
        "dim": np.array([DIM], np.int64),
        "last": np.array([2], np.int64),
        "slices": np.array([1], np.int64),
        "tiny": np.array(1e-6, np.float32),
        "weights": weights,
    }
    shapes = {
        "logits": ["n", weights.shape[1]],
        "embedding": ["n", DIM],
        "slice_embeddings": ["n", "s", DIM],
        "attention": ["n", "s"],
    }
    float_value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "cells",
        [
            float_value("images", TensorProto.FLOAT, ["n", "s", 1, SIDE, SIDE]),
            float_value("mask", TensorProto.BOOL, ["n", "s"]),
        ],
        [float_value(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())
