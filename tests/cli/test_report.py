"""`medcli report` and `medcli evaluate --report`, and what they refuse."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from medcli.models.package import ModelPackage, fingerprint, seal, sha256_file

Run = Callable[..., Any]


def manifest(sample: Path, where: Path, **changes: Callable[[dict[str, str]], str]) -> Path:
    """The sample manifest with other values in some columns."""
    with (sample / "nodule.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows:
        row["path"] = str(sample / row["path"])
        row |= {name: change(row) for name, change in changes.items()}
    with where.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return where


def test_a_run_becomes_a_page(medcli: Run, tiny_run: Path) -> None:
    done = medcli("report", tiny_run)
    assert (done.status, done.out) == (0, "report.html\n")
    assert "<svg" in Path("report.html").read_text()
    again = medcli("report", tiny_run)
    assert again.status == 2
    assert "report.html exists" in again.errors[0]
    assert medcli("report", tiny_run, "--overwrite").status == 0


def test_a_package_without_numbers_and_no_model_are_refused(
    medcli: Run, model: ModelPackage
) -> None:
    assert medcli("report", model.path).status == 2
    assert medcli("report", "nothing").status == 2
    assert not Path("report.html").exists()


def test_an_evaluation_becomes_a_page_and_its_json_stays_one_object(
    medcli: Run, model: ModelPackage, sample_folder: Path
) -> None:
    data = sample_folder / "nodule.csv"
    done = medcli("evaluate", model.path, data, "--report", "out.html", "--json")
    assert done.status == 0
    (metrics,) = done.json
    page = Path("out.html").read_text()
    assert f"{metrics['auroc']:.3f}" in page
    assert metrics["data_fingerprint"] in page
    wrong = metrics["per_class"]["malignant"]
    assert "data:image/jpeg;base64" in page or wrong["sensitivity"] == wrong["specificity"] == 1
    assert str(sample_folder) not in page
    assert medcli("evaluate", model.path, data, "--report", "out.html").status == 2
    assert medcli("evaluate", model.path, data, "--report", "no/where.html").status == 2
    assert medcli("evaluate", model.path, data, "-g", "x", "--report", "o.html").status == 2


def test_a_part_with_one_class_has_no_auroc_and_a_page_that_says_so(
    medcli: Run, model: ModelPackage, sample_folder: Path, tmp_path: Path
) -> None:
    data = manifest(sample_folder, tmp_path / "one.csv", label=lambda _: "benign")
    done = medcli("evaluate", model.path, data, "--json", "--report", "one.html")
    assert done.status == 0
    (metrics,) = done.json
    assert metrics["auroc"] is metrics["auroc_ci"] is metrics["sensitivity"] is None
    assert "only benign occurs" in done.err
    assert "only benign occurs" in Path("one.html").read_text()


def test_labels_that_the_model_does_not_know_are_named(
    medcli: Run, model: ModelPackage, sample_folder: Path, tmp_path: Path
) -> None:
    data = manifest(sample_folder, tmp_path / "other.csv", label=lambda _: "cyst")
    done = medcli("evaluate", model.path, data)
    assert done.status == 2
    assert "'cyst'" in done.errors[0]


def test_numbers_that_are_no_probabilities_are_damage(
    medcli: Run, make_package: Callable[..., ModelPackage], sample_folder: Path, tmp_path: Path
) -> None:
    package = make_package(tmp_path / "run")
    graph = onnx.load(package.path / "graph.onnx")
    (weights,) = (each for each in graph.graph.initializer if each.name == "weights")
    broken = np.full((64, 2), np.nan, dtype=np.float32)
    weights.CopyFrom(onnx.numpy_helper.from_array(broken, "weights"))
    onnx.save(graph, package.path / "graph.onnx")
    values = json.loads((package.path / "model.json").read_text())
    digests = [sha256_file(package.path / name) for name in ("weights.safetensors", "graph.onnx")]
    values["fingerprint"] = fingerprint(*digests, package.preprocess)
    (package.path / "model.json").write_text(json.dumps(values))
    seal(package.path)
    done = medcli("evaluate", package.path, sample_folder / "nodule.csv")
    assert done.status == 4
    assert "do not sum to 1" in done.errors[0]


def test_data_without_a_test_part_are_told(
    medcli: Run, model: ModelPackage, sample_folder: Path, tmp_path: Path
) -> None:
    data = manifest(sample_folder, tmp_path / "parts.csv", split=lambda _: "train")
    done = medcli("evaluate", model.path, data, "--json")
    assert done.status == 0
    n = done.json[0]["n"]
    assert f"no test part: all {n} scans are evaluated, {n} of them marked" in done.err


def test_patients_of_the_training_are_refused_and_counted(
    medcli: Run, tiny_run: Path, sample_folder: Path, tmp_path: Path
) -> None:
    data = manifest(sample_folder, tmp_path / "leak.csv", split=lambda _: "test")
    done = medcli("evaluate", tiny_run, data, "--report", "leak.html")
    assert done.status == 2
    assert "that the model was trained on: " in done.errors[0]
    assert "SYN-" in done.errors[0]
    assert "--allow-overlap" in done.err
    hidden = medcli("evaluate", tiny_run, data, "--hide-paths")
    assert hidden.status == 2
    assert "that the model was trained on" in hidden.errors[0]
    assert "SYN-" not in hidden.err
    assert not Path("leak.html").exists()


@pytest.mark.parametrize("text", ["path,label\n", ""])
def test_an_empty_set_is_refused(
    medcli: Run, model: ModelPackage, tmp_path: Path, text: str
) -> None:
    (tmp_path / "empty.csv").write_text(text)
    done = medcli("evaluate", model.path, tmp_path / "empty.csv")
    assert done.status == 2
    assert len(done.errors) == 1


def test_numbers_of_a_damaged_run_are_not_reported(medcli: Run, tiny_run: Path) -> None:
    folder = shutil.copytree(tiny_run, "copy")
    (Path(folder) / "held_out.csv").write_text("patient\n1\n")
    assert medcli("report", folder).status == 4
