"""Fixtures shared by all tests."""

from __future__ import annotations

import csv
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Several test processes share the cores: with more threads they would wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest

from medcli.config import Calibration, ModelConfig, PreprocessConfig
from medcli.evaluation.out_of_distribution import Reference
from medcli.models.heads import head_width, make_heads, make_router
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

if TYPE_CHECKING:
    from medcli.detection.arrays import BoxArrays

# A shell's background job has SIGINT ignored, and so would have the tests of interruptions.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Workers of pytest-xdist have it set, and a pipe would be taken for a terminal.
os.environ.pop("COLUMNS", None)

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
    All `tasks` have the same `classes`; without them there is one `task`.
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
        tasks: Sequence[str] = (),
        region_mm: float | None = None,
        region_task: str | None = None,
    ) -> ModelPackage:
        folder.mkdir(parents=True)
        positive = classes[-1] if len(classes) == 2 else None
        known = [Task(name, tuple(classes), positive, 0.5) for name in tasks or [task]]
        weights = np.random.default_rng(seed).normal(size=(DIM, head_width(known)))
        (folder / GRAPH).write_bytes(cell_graph(weights.astype(np.float32)))
        (folder / WEIGHTS).write_bytes(weights.tobytes())
        (folder / CARD).write_text("Made for a test.\n")
        package = finish_package(
            folder,
            heads=make_heads(known, [calibration or Calibration()] * len(known)),
            router=make_router(known),
            preprocess=PreprocessConfig(size=SIDE, region_mm=region_mm, region_task=region_task),
            model=ModelConfig(embedding_dim=DIM, layout_grid=0),
            synthetic=synthetic,
            created=created,
            patient_salt="00" * 16,
            provenance={"source": "none", "split": []},
            metrics={"split": "test", "auroc": None, "accuracy": None},
        )
        if reference is not None:
            save_references(folder, {each.name: reference for each in known})
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


DISCS = 64  # pixels


def draw_discs(count: int, seed: int) -> BoxArrays:
    """Noise with none, one or two bright discs in each of `count` pictures."""
    from medcli.detection.arrays import BoxArrays

    rng = np.random.default_rng(seed)
    images = rng.normal(90, 12, (count, 1, DISCS, DISCS))
    rows, columns = np.mgrid[:DISCS, :DISCS] + 0.5
    boxes, labels = [], []
    for number in range(count):
        own = []
        for _ in range(number % 3):
            wide, high = rng.integers(12, 24, 2)
            x, y = rng.integers(0, DISCS - wide), rng.integers(0, DISCS - high)
            across = ((columns - x - wide / 2) * 2 / wide) ** 2
            images[number, 0][across + ((rows - y - high / 2) * 2 / high) ** 2 <= 1] += 60
            own.append([x, y, x + wide, y + high])
        boxes.append(np.array(own, np.float32).reshape(-1, 4))
        labels.append(np.ones(len(own), np.int64))
    return BoxArrays(images.clip(0, 255).astype(np.uint8), tuple(boxes), tuple(labels))


@pytest.fixture(scope="session")
def drawn_discs() -> Callable[[int, int], BoxArrays]:
    return draw_discs


@pytest.fixture(scope="session")
def disc_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`boxes.csv` over 18 pictures of 18 patients, a third of them without a box."""
    from medcli.imaging.png_writer import write_png

    folder = tmp_path_factory.mktemp("discs")
    slices = draw_discs(18, 0)
    with (folder / "boxes.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "label", "patient_id", "x0", "y0", "x1", "y1"])
        for number, (image, boxes) in enumerate(zip(slices.images, slices.boxes, strict=True)):
            name = f"{number}.png"
            write_png(folder / name, image[0])
            for box in boxes.tolist() or [[""] * 4]:
                writer.writerow([name, "disc", f"P{number}", *box])
    return folder


@pytest.fixture(scope="session")
def detector_run(disc_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of a detector made by hand, which finds what is bright in `disc_folder`.

    The first nine patients count as its training part, the last six as its test part.
    """
    from medcli.config import DetectionConfig
    from medcli.data.boxes import load_boxes
    from medcli.detection.measuring import box_metrics, measure_scans
    from medcli.imaging.hashing import pixel_sha256
    from medcli.imaging.reader import read_scan
    from medcli.inference.detector import Detector
    from medcli.models.heads import Head
    from medcli.models.package import REGIONS_GRAPH, SPLITS, salted_patient

    folder = tmp_path_factory.mktemp("detectors") / "discs"
    folder.mkdir()
    propose, judge = bright_graphs()
    (folder / GRAPH).write_bytes(propose)
    (folder / REGIONS_GRAPH).write_bytes(judge)
    (folder / WEIGHTS).write_bytes(b"none")
    (folder / CARD).write_text("AP50 of a detector made for a test.\n")
    data, salt = load_boxes([str(disc_folder / "boxes.csv")]), "00" * 16
    lines = ["pixel_sha256,patient,split"]
    for number, case in enumerate(data.cases):
        part = "train" if number < 9 else "val" if number < 12 else "test"
        patient = salted_patient(case.patient_id, salt)
        lines.append(f"{pixel_sha256(read_scan(case))},{patient},{part}")
    (folder / SPLITS).write_text("\n".join(lines) + "\n")

    def finish(metrics: dict[str, Any]) -> ModelPackage:
        return finish_package(
            folder,
            heads=[Head(Task("disc-detection", ("disc",), threshold=0.5), Calibration())],
            preprocess=PreprocessConfig(size=DISCS),
            model=ModelConfig(arch="cnn_lrn", aggregator="none", layout_grid=0),
            synthetic=False,
            created="2026-01-01T00:00:00+00:00",
            patient_salt=salt,
            provenance={"source": "none", "split": []},
            metrics=metrics,
            detection=DetectionConfig(stride=4, width=1, anchor_sizes=(16.0,)),
        )

    rows, _ = measure_scans(Detector(finish({})), data.cases[12:], data.boxes[12:])
    finish({"split": "test", **box_metrics(rows, 1)})
    seal(folder)
    return folder


def bright_graphs() -> tuple[bytes, bytes]:
    """Both graphs of a detector: squares of 16 px every 8 px, judged by how bright they are."""
    from onnx import TensorProto, checker, helper, numpy_helper

    def graph(
        nodes: list[Any],
        inputs: dict[str, list[Any]],
        outputs: dict[str, list[Any]],
        **constants: Any,
    ) -> bytes:
        value = helper.make_tensor_value_info
        made = helper.make_graph(
            nodes,
            "bright",
            [value(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
            [value(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
            [numpy_helper.from_array(array, name) for name, array in constants.items()],
        )
        model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        checker.check_model(model, full_check=True)
        return bytes(model.SerializeToString())

    node = helper.make_node
    corners = 8 * np.stack(np.meshgrid(np.arange(7), np.arange(7)), axis=-1).reshape(49, 2)
    anchors = np.concatenate([corners, corners + 16], axis=1).astype(np.float32)
    propose = graph(
        [
            node("AveragePool", ["images"], ["features"], kernel_shape=[4, 4], strides=[4, 4]),
            node("AveragePool", ["images"], ["pooled"], kernel_shape=[16, 16], strides=[8, 8]),
            node("Reshape", ["pooled", "by_anchor"], ["objectness"]),
            node("Unsqueeze", ["objectness", "last"], ["column"]),
            node("Mul", ["column", "zero"], ["nothing"]),
            node("Add", ["nothing", "anchors"], ["boxes"]),
        ],
        {"images": ["n", 1, DISCS, DISCS]},
        {"features": ["n", 1, 16, 16], "objectness": ["n", 49], "boxes": ["n", 49, 4]},
        by_anchor=np.array([0, 49], np.int64),
        last=np.array([2], np.int64),
        zero=np.array(0, np.float32),
        anchors=anchors[None],
    )
    judge = graph(
        [
            node("Split", ["regions", "parts"], ["number", "boxes"], axis=1),
            node("Reshape", ["number", "flat"], ["row"]),
            node("Cast", ["row"], ["slice"], to=TensorProto.INT64),
            node(
                "RoiAlign",
                ["features", "boxes", "slice"],
                ["inside"],
                output_height=1,
                output_width=1,
                sampling_ratio=4,
                spatial_scale=0.25,
            ),
            node("Reshape", ["inside", "column"], ["bright"]),
            node("Mul", ["bright", "slope"], ["scaled"]),
            node("Add", ["scaled", "offset"], ["logits"]),
        ],
        {"features": ["n", 1, 16, 16], "regions": ["r", 5]},
        {"logits": ["r", 2], "boxes": ["r", 4]},
        parts=np.array([1, 4], np.int64),
        flat=np.array([-1], np.int64),
        column=np.array([-1, 1], np.int64),
        slope=np.array([[0, 10]], np.float32),
        offset=np.array([[0, 2]], np.float32),
    )
    return propose, judge
