"""A model that was exported answers as the model does."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from medcli.config import Calibration
from medcli.errors import DamagedError, OutputExistsError, UsageError
from medcli.models.heads import make_heads, make_router
from medcli.models.package import GRAPH, HELD_OUT, SPLITS, ModelPackage, load_package, seal
from medcli.records import Task
from medcli.workflows.exporting import export_model, graph_metadata

Make = Callable[..., ModelPackage]


@pytest.fixture
def package(make_package: Make, tmp_path: Path) -> ModelPackage:
    calibration = Calibration(temperature=2.5, offsets=(0.5, -0.5))
    folder = make_package(tmp_path / "run", calibration=calibration).path
    for name in (SPLITS, HELD_OUT):
        (folder / name).write_text("patient\nhash\n")
    seal(folder)
    return load_package(folder)


def test_the_graph_carries_what_it_takes_to_use_it(package: ModelPackage, tmp_path: Path) -> None:
    export_model(package, tmp_path / "graph.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "graph.onnx")
    found = session.get_modelmeta().custom_metadata_map
    (task,) = json.loads(found["tasks"])
    assert task["classes"] == ["benign", "malignant"]
    assert task["columns"] == [0, 2]
    assert json.loads(found["router"]) is None
    assert json.loads(found["preprocess"]) == package.preprocess.to_json()
    assert (task["temperature"], task["offsets"]) == (2.5, [0.5, -0.5])
    assert task["reading"] == "probabilities = softmax(logits / temperature + offsets)"
    assert found["fingerprint"] == package.fingerprint
    assert "not a medical device" in found["notice"]
    feed = {
        "images": np.random.default_rng(0).normal(size=(2, 3, 1, 32, 32)).astype(np.float32),
        "mask": np.ones((2, 3), dtype=bool),
    }
    own = onnxruntime.InferenceSession(package.path / GRAPH)
    np.testing.assert_array_equal(session.run(["logits"], feed)[0], own.run(["logits"], feed)[0])


def test_of_several_tasks_and_of_findings_each_has_its_reading(package: ModelPackage) -> None:
    lung = Task("lung", ("effusion", "mass"), multi_label=True, thresholds=(0.2, 0.3))
    heads = make_heads(
        [package.task, lung], [package.calibration, Calibration(platt=((1.0, 0.0), (2.0, -1.0)))]
    )
    both = replace(package, heads=heads, router=make_router([package.task, lung], 1.5))
    found = graph_metadata(both)
    nodule, films = json.loads(found["tasks"])
    assert (nodule["name"], nodule["columns"], films["columns"]) == ("nodule", [0, 2], [2, 4])
    assert films["reading"].startswith("probabilities = sigmoid(scale * logits + offset)")
    assert films["platt"] == [[1.0, 0.0], [2.0, -1.0]]
    assert films["thresholds"] == [0.2, 0.3]
    router = json.loads(found["router"])
    assert router["columns"] == [4, 6]
    assert router["temperature"] == 1.5


def test_a_folder_is_a_package_with_the_same_fingerprint(
    package: ModelPackage, tmp_path: Path
) -> None:
    export_model(package, tmp_path / "whole")
    export_model(package, tmp_path / "bare", without_splits=True)
    names = {path.name for path in package.path.iterdir()}
    assert {path.name for path in (tmp_path / "whole").iterdir()} == names
    assert {path.name for path in (tmp_path / "bare").iterdir()} == names - {SPLITS, HELD_OUT}
    assert load_package(tmp_path / "bare").fingerprint == package.fingerprint


def test_an_archive_unpacks_to_a_package_and_is_the_same_twice(
    package: ModelPackage, tmp_path: Path
) -> None:
    for name in ("a.zip", "b.zip"):
        export_model(package, tmp_path / name, without_splits=True)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        archive.extractall(tmp_path / "out")
    (unpacked,) = (tmp_path / "out").iterdir()
    assert load_package(unpacked).fingerprint == package.fingerprint
    assert not (unpacked / SPLITS).exists()


def test_what_exists_stays_unless_told(package: ModelPackage, tmp_path: Path) -> None:
    for name in ("graph.onnx", "a.zip"):
        (tmp_path / name).write_bytes(b"mine")
        with pytest.raises(OutputExistsError):
            export_model(package, tmp_path / name)
        assert (tmp_path / name).read_bytes() == b"mine"
    export_model(package, tmp_path / "a.zip", overwrite=True)
    with pytest.raises(UsageError, match="the model itself"):
        export_model(package, package.path, overwrite=True)


def test_a_graph_that_answers_otherwise_is_not_written(
    package: ModelPackage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def changed(model: onnx.ModelProto, metadata: object) -> None:
        for tensor in model.graph.initializer:
            if tensor.name == "weights":
                values = onnx.numpy_helper.to_array(tensor) + 1
                tensor.CopyFrom(onnx.numpy_helper.from_array(values, "weights"))

    monkeypatch.setattr(onnx.helper, "set_model_props", changed)
    with pytest.raises(DamagedError, match="answers otherwise"):
        export_model(package, tmp_path / "graph.onnx")
    assert not (tmp_path / "graph.onnx").exists()
