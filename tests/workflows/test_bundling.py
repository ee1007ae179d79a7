"""What a bundled package holds, and that its files agree."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from safetensors.numpy import load_file

from medcli.errors import LeakageError, UsageError
from medcli.inference.predictor import Predictor
from medcli.models.export import check_onnx
from medcli.models.package import (
    CARD,
    GRAPH,
    MODEL_JSON,
    SPLITS,
    WEIGHTS,
    ModelPackage,
    load_package,
    load_references,
    peek,
)
from medcli.models.weights import find_start, load_model, start_from
from medcli.training.card_bundled import Source
from medcli.workflows import bundling
from medcli.workflows.evaluating import evaluate
from medcli.workflows.recalibrating import recalibrate

SOURCE = Source("nodule", "drawn nodules", "CC BY 3.0", "Who drew them, 2026", "nobody at all")


@pytest.fixture(scope="module")
def settle(sample_folder: Path) -> Callable[[ModelPackage], ModelPackage]:
    return partial(recalibrate, data={"nodule": str(sample_folder / "nodule.csv")})


@pytest.fixture(scope="module")
def bundled(
    tiny_run: Path,
    settle: Callable[[ModelPackage], ModelPackage],
    tmp_path_factory: pytest.TempPathFactory,
) -> ModelPackage:
    target = tmp_path_factory.mktemp("zoo") / "nodule"
    return bundling.bundle(load_package(tiny_run), target, [SOURCE], region_mm=50.0, settle=settle)


def test_it_holds_what_a_bundled_package_holds(bundled: ModelPackage, tiny_run: Path) -> None:
    assert sorted(path.name for path in bundled.path.iterdir()) == [
        "MODEL_CARD.md",
        "graph.onnx",
        "manifest.json",
        "model.json",
        "reference.safetensors",
        "splits.csv",
        "weights.safetensors",
    ]
    for name in (WEIGHTS, GRAPH):
        assert (bundled.path / name).stat().st_size < 0.55 * (tiny_run / name).stat().st_size
    assert (bundled.path / SPLITS).read_bytes() == (tiny_run / SPLITS).read_bytes()
    assert load_references(bundled.path).keys() == {"nodule"}
    assert bundled.preprocess.region_mm == 50.0
    assert bundled.fingerprint != peek(tiny_run).fingerprint
    assert bundled.provenance["bundled"]["from"] == peek(tiny_run).fingerprint


def test_graph_and_weights_hold_the_same_numbers(bundled: ModelPackage) -> None:
    weights = load_file(bundled.path / WEIGHTS)
    for name, tensor in weights.items():
        if tensor.dtype != np.int64:
            assert tensor.dtype == (np.float16 if tensor.ndim > 1 else np.float32), name
    stored = onnx.load(str(bundled.path / GRAPH)).graph.initializer
    initializers = {each.name.removesuffix("_float16"): each for each in stored}
    compared = 0
    for name, tensor in weights.items():
        if name in initializers:
            own = numpy_helper.to_array(initializers[name])
            assert own.dtype == tensor.dtype
            np.testing.assert_array_equal(own, tensor)
            compared += tensor.size
    assert compared > 0.9 * sum(tensor.size for tensor in weights.values())


def test_the_graph_answers_in_float32_as_torch_does(bundled: ModelPackage, tiny_run: Path) -> None:
    model, settings = load_model(bundled), bundled.preprocess
    assert {tensor.dtype for tensor in model.parameters()} == {torch.float32}
    graph = bundled.path / GRAPH
    assert check_onnx(model, graph, settings.channels, settings.size, seed=3) < 1e-3
    assert bundled.provenance["onnx_difference"] < 1e-3
    rng = np.random.default_rng(0)
    shape = (4, 3, settings.channels, settings.size, settings.size)
    feed = {
        "images": rng.standard_normal(shape).astype(np.float32),
        "mask": np.ones(shape[:2], dtype=bool),
    }
    own, whole = (
        onnxruntime.InferenceSession(folder / GRAPH).run(["logits"], feed)[0]
        for folder in (bundled.path, tiny_run)
    )
    assert own.dtype == np.float32
    np.testing.assert_allclose(own, whole, atol=0.02)
    assert not np.array_equal(own, whole)


def test_the_card_says_whose_data_they_are(bundled: ModelPackage) -> None:
    card = (bundled.path / CARD).read_text()
    own = bundled.metrics
    error = f"{own['ece']:.3f} ({own['ece_by_chance']:.3f})"
    for words in (
        "# nodule: a bundled model of medcli",
        "Research use, not a medical device",
        "CC BY 3.0",
        "Who drew them, 2026",
        "nobody at all",
        "the run. Measured with them",
        f"| nodule | {own['n']} | {own['n_patients']} | {own['auroc']:.3f} ",
        f" | {error} |",
        "| licence of this model | Apache-2.0",
    ):
        assert words in card
    assert "licence and attribution | *not known" not in card
    (source,) = bundled.provenance["bundled"]["sources"]
    assert source["attribution"] == "Who drew them, 2026"


def test_nothing_in_it_names_a_place_or_a_patient(
    bundled: ModelPackage, sample_folder: Path
) -> None:
    with (sample_folder / "nodule.csv").open() as stream:
        patients = {line["patient_id"] for line in csv.DictReader(stream)}
    for name in (MODEL_JSON, CARD, SPLITS):
        text = (bundled.path / name).read_text()
        assert str(sample_folder.parent) not in text
        assert not any(patient in text for patient in patients)


def test_patients_of_the_training_are_refused(
    bundled: ModelPackage, sample_folder: Path, tmp_path: Path
) -> None:
    predictor = Predictor(bundled)
    found = evaluate(predictor, [str(sample_folder / "nodule.csv")])
    assert found.metrics["split"] == "held-out"
    rows = (sample_folder / "nodule.csv").read_text().splitlines()
    table = tmp_path / "all.csv"
    lines = [f"{sample_folder}/{line}" for line in rows[1:]]
    header, split = rows[0].split(","), "test"
    if "split" not in header:
        rows[0], lines = f"{rows[0]},split", [f"{line},{split}" for line in lines]
    table.write_text("\n".join([rows[0], *lines]) + "\n")
    with pytest.raises(LeakageError):
        evaluate(predictor, [str(table)])


def test_another_training_can_start_from_it(bundled: ModelPackage) -> None:
    start = find_start(str(bundled.path), bundled.model.arch)
    model = load_model(bundled)
    with torch.no_grad():
        for tensor in model.backbone.parameters():
            tensor.zero_()
    assert start_from(model, start) == ["backbone", "aggregator"]
    assert all(
        torch.equal(own, other)
        for own, other in zip(model.parameters(), load_model(bundled).parameters(), strict=True)
    )


def test_a_task_without_a_source_is_not_bundled(tiny_run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no source is known for the task nodule"):
        bundling.bundle(load_package(tiny_run), tmp_path / "nodule", [])
    assert not (tmp_path / "nodule").exists()


@pytest.fixture
def quick_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights and graph are copied, not made."""

    def write(run: ModelPackage, folder: Path) -> float:
        for name in (WEIGHTS, GRAPH):
            (folder / name).write_bytes((run.path / name).read_bytes())
        return 0.0

    monkeypatch.setattr(bundling, "_write_numbers", write)


@pytest.mark.usefixtures("quick_numbers")
def test_a_file_that_is_too_large_is_refused(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundling, "MOST_BYTES", 1_000_000)
    with pytest.raises(UsageError, match="a bundled file may have 1"):
        bundling.bundle(load_package(tiny_run), tmp_path / "nodule", [SOURCE])
    assert not (tmp_path / "nodule").exists()


@pytest.mark.slow
def test_the_same_run_gives_the_same_files(
    bundled: ModelPackage,
    tiny_run: Path,
    settle: Callable[[ModelPackage], ModelPackage],
    tmp_path: Path,
) -> None:
    again = bundling.bundle(
        load_package(tiny_run), tmp_path / "nodule", [SOURCE], region_mm=50.0, settle=settle
    )
    assert again.fingerprint == bundled.fingerprint
    files = (json.loads((p.path / "manifest.json").read_text())["files"] for p in (again, bundled))
    assert next(files) == next(files)
