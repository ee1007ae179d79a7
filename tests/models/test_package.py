from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save

from medcli.config import Calibration, PreprocessConfig
from medcli.errors import DamagedError, StorageError, UsageError
from medcli.evaluation.out_of_distribution import Reference
from medcli.models.heads import Router
from medcli.models.package import (
    CARD,
    GRAPH,
    HELD_OUT,
    HISTORY,
    MANIFEST,
    MODEL_JSON,
    REFERENCE,
    SPLITS,
    WEIGHTS,
    fingerprint,
    load_package,
    load_references,
    peek,
    salted_patient,
    save_references,
    seal,
)

FILES = (MODEL_JSON, WEIGHTS, GRAPH, CARD, HISTORY, SPLITS, REFERENCE)
Edit = Callable[..., None]


def flip_middle_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", FILES)
def test_one_altered_bit_is_damage(package_folder: Path, name: str) -> None:
    flip_middle_byte(package_folder / name)
    with pytest.raises(DamagedError, match=name) as caught:
        load_package(package_folder)
    assert caught.value.exit_status == 4
    assert caught.value.hint


@pytest.mark.parametrize("field", ["size", "sha256"])
@pytest.mark.parametrize("name", FILES)
def test_an_altered_line_of_the_manifest_is_damage(
    package_folder: Path, name: str, field: str
) -> None:
    path = package_folder / MANIFEST
    manifest = json.loads(path.read_text())
    entry = manifest["files"][name]
    entry[field] = entry[field] + 1 if field == "size" else entry[field][::-1]
    path.write_text(json.dumps(manifest))
    with pytest.raises(DamagedError, match=name):
        load_package(package_folder)


@pytest.mark.parametrize("name", [WEIGHTS, GRAPH, CARD, HISTORY, SPLITS, REFERENCE, MANIFEST])
def test_a_missing_file_is_damage(package_folder: Path, name: str) -> None:
    (package_folder / name).unlink()
    with pytest.raises(DamagedError, match=f"{name} is missing"):
        load_package(package_folder)


def test_a_folder_without_model_json_is_no_package(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a model package") as caught:
        load_package(tmp_path)
    assert caught.value.exit_status == 2


def test_a_manifest_that_leaves_a_file_out_is_damage(package_folder: Path) -> None:
    (package_folder / GRAPH).unlink()
    seal(package_folder)
    with pytest.raises(DamagedError, match="does not list the files"):
        load_package(package_folder)


@pytest.mark.parametrize("content", ["{", "[1]", '{"files": {"model.json": 3}}', "\udcff"])
def test_a_manifest_that_is_no_manifest_is_damage(package_folder: Path, content: str) -> None:
    (package_folder / MANIFEST).write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(DamagedError, match=MANIFEST):
        load_package(package_folder)


@pytest.mark.parametrize("content", ["not JSON", "[]", "{}", '{"task": 3}'])
def test_a_model_json_that_says_nothing_is_damage(package_folder: Path, content: str) -> None:
    (package_folder / MODEL_JSON).write_text(content)
    manifest = json.loads((package_folder / MANIFEST).read_text())
    digest = hashlib.sha256(content.encode()).hexdigest()
    manifest["files"][MODEL_JSON] = {"size": len(content), "sha256": digest}
    (package_folder / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(DamagedError, match=MODEL_JSON):
        load_package(package_folder)


@pytest.mark.parametrize(
    "change",
    [
        {"tasks": "nodule"},
        {"tasks": []},
        {"tasks": [{"name": "nodule", "classes": ["a", "b"]}]},
        {"preprocess": {"size": "large"}},
        {"preprocess": {"colour_of_the_sky": 1}},
        {"model": None},
        {"provenance": 3},
    ],
)
def test_a_field_of_the_wrong_kind_is_damage(
    package_folder: Path, edit_json: Edit, change: dict[str, object]
) -> None:
    edit_json(package_folder, **change)
    with pytest.raises(DamagedError, match="a field is missing or has the wrong kind"):
        load_package(package_folder)


@pytest.mark.parametrize(
    "calibration",
    [
        *(3, {"temperature": 0}, {"label_set_levels": [0.5]}, {"label_set_levels": [0.5, 2]}),
        *(
            {"offsets": [0.5]},
            {"offsets": [0, "much"]},
            {"platt": [[1, 0]]},
            {"platt": [[1], [1]]},
            {"platt": [[-1, 0], [1, 0]]},
        ),
    ],
)
def test_a_calibration_that_cannot_be_one_is_damage(
    package_folder: Path, edit_json: Edit, calibration: object
) -> None:
    task = json.loads((package_folder / MODEL_JSON).read_text())["tasks"][0]
    edit_json(package_folder, tasks=[{**task, "calibration": calibration}])
    with pytest.raises(DamagedError, match="a field is missing or has the wrong kind"):
        load_package(package_folder)


def test_a_file_that_cannot_be_read_is_no_damage(package_folder: Path) -> None:
    (package_folder / MANIFEST).unlink()
    (package_folder / MANIFEST).mkdir()
    with pytest.raises(StorageError, match="cannot read"):
        load_package(package_folder)


def test_a_newer_format_asks_for_an_update_whatever_its_files(
    package_folder: Path, edit_json: Edit
) -> None:
    edit_json(package_folder, format_version=99)
    with pytest.raises(UsageError, match="has format 99"):
        load_package(package_folder)
    (package_folder / MANIFEST).write_text('{"format_version": 99, "parts": []}')
    with pytest.raises(UsageError, match="has format 99") as caught:
        load_package(package_folder)
    assert "Update medcli" in caught.value.hint


def test_reading_model_json_alone_needs_no_other_file(package_folder: Path) -> None:
    whole = load_package(package_folder)
    (package_folder / WEIGHTS).unlink()
    assert peek(package_folder) == whole


def test_a_package_may_be_moved(tiny_run: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(tiny_run, tmp_path / "elsewhere"))
    assert replace(load_package(moved), path=tiny_run) == load_package(tiny_run)


def test_the_fingerprint_depends_on_weights_graph_and_preprocessing() -> None:
    settings = PreprocessConfig()
    same = fingerprint("weights", "graph", settings)
    assert same == fingerprint("weights", "graph", PreprocessConfig())
    others = {
        fingerprint("other", "graph", settings),
        fingerprint("weights", "other", settings),
        fingerprint("weights", "graph", replace(settings, ct_window=(40.0, 400.0))),
        fingerprint("weights", "graph", replace(settings, mean=(0.51,))),
    }
    assert len(others | {same}) == 5


def test_the_fingerprint_depends_on_nothing_else(package_folder: Path, edit_json: Edit) -> None:
    before = load_package(package_folder).fingerprint
    (package_folder / CARD).write_text("# Another card\n")
    edit_json(package_folder, metrics={}, synthetic=False, created="2020-01-01")
    assert load_package(package_folder).fingerprint == before


def test_other_preprocessing_under_the_same_fingerprint_is_damage(
    package_folder: Path, edit_json: Edit
) -> None:
    settings = load_package(package_folder).preprocess
    edit_json(package_folder, preprocess=replace(settings, ct_window=(40.0, 400.0)).to_json())
    with pytest.raises(DamagedError, match="fingerprint does not fit"):
        load_package(package_folder)


def test_nothing_in_a_package_is_a_pickle(tiny_run: Path) -> None:
    assert {path.name for path in tiny_run.iterdir()} == {*FILES, HELD_OUT, MANIFEST}
    for path in tiny_run.iterdir():
        assert not zipfile.is_zipfile(path), path.name  # what torch.save writes
        assert path.read_bytes()[:1] != b"\x80", path.name  # a pickle's first opcode


def test_a_patient_has_one_pseudonym_in_a_run_and_another_in_the_next() -> None:
    assert salted_patient("P1", "a") == salted_patient("P1", "a")
    assert len({salted_patient(*pair) for pair in (("P1", "a"), ("P1", "b"), ("P2", "a"))}) == 3
    assert salted_patient(None, "a") == salted_patient("", "a") == ""


def test_a_package_of_the_first_format_has_temperature_one(package_folder: Path) -> None:
    as_format(package_folder, 1)
    package = load_package(package_folder)
    assert package.calibration == Calibration()
    assert package.task.classes == ("benign", "malignant")


def test_a_package_of_the_second_format_has_one_task(package_folder: Path) -> None:
    now = load_package(package_folder)
    reference = load_references(package_folder)["nodule"]
    as_format(package_folder, 2)
    old = load_package(package_folder)
    (head,) = now.heads
    without = replace(head, calibration=replace(head.calibration, offsets=None))
    assert old == replace(now, heads=(without,))
    assert old.router is None
    found = load_references(package_folder)[""]
    for view, mean in reference.means.items():
        np.testing.assert_array_equal(found.means[view], mean)
        np.testing.assert_array_equal(found.whitenings[view], reference.whitenings[view])


def test_a_package_of_the_third_format_has_no_offsets(
    package_folder: Path, edit_json: Edit
) -> None:
    (task,) = json.loads((package_folder / MODEL_JSON).read_text())["tasks"]
    del task["calibration"]["offsets"]
    task["calibration"]["temperature"] = 2.5
    edit_json(package_folder, tasks=[task], format_version=3)
    (head,) = load_package(package_folder).heads
    logits = np.array([[1.0, 3.5]])
    expected = np.exp(logits / 2.5) / np.exp(logits / 2.5).sum()
    np.testing.assert_allclose(head.probabilities(logits), expected)


def as_format(folder: Path, version: int) -> None:
    """Bring a package of one task to the shape that an older medcli wrote."""
    path = folder / MODEL_JSON
    values = json.loads(path.read_text())
    (task,) = values.pop("tasks")
    del values["router"], task["multi_label"], task["thresholds"]
    calibration = task.pop("calibration")
    del calibration["platt"], calibration["offsets"]
    values |= {"format_version": version, "task": task}
    if version == 2:
        values["calibration"] = calibration
    path.write_text(json.dumps(values))
    arrays = {name.split("/")[1]: array for name, array in load_file(folder / REFERENCE).items()}
    (folder / REFERENCE).write_bytes(save(arrays))
    seal(folder)


def test_findings_with_their_thresholds_come_back(package_folder: Path, edit_json: Edit) -> None:
    (task,) = json.loads((package_folder / MODEL_JSON).read_text())["tasks"]
    task |= {"multi_label": True, "positive": None, "thresholds": [0.25, 1]}
    task["calibration"] = {"platt": [[1.5, -2], [1, 0]]}
    edit_json(package_folder, tasks=[task])
    package = load_package(package_folder)
    assert package.task.multi_label
    assert package.task.thresholds == (0.25, 1.0)
    assert package.calibration.platt == ((1.5, -2), (1, 0))
    edit_json(package_folder, tasks=[{**task, "thresholds": [0.25]}])
    with pytest.raises(DamagedError, match="1 thresholds for 2 classes"):
        load_package(package_folder)


def test_several_tasks_and_their_router_come_back(package_folder: Path, edit_json: Edit) -> None:
    tasks = json.loads((package_folder / MODEL_JSON).read_text())["tasks"]
    second = {**tasks[0], "name": "lung", "classes": ["a", "b", "c"], "positive": None}
    second["calibration"] = {"temperature": 3.0}
    metrics = {"split": "test", "tasks": {"nodule": {"n": 1}, "lung": {"n": 2}}}
    edit_json(package_folder, tasks=[*tasks, second], router={"temperature": 2.0}, metrics=metrics)
    package = load_package(package_folder)
    assert [head.columns for head in package.heads] == [slice(0, 2), slice(2, 5)]
    assert package.heads[1].calibration.temperature == 3
    assert package.router == Router(("nodule", "lung"), 5, 2.0)
    assert package.router.columns == slice(5, 7)
    lung = package.only("lung")
    assert lung.task == package.tasks[1]
    assert lung.heads[0].columns == slice(2, 5)
    assert lung.metrics == {"n": 2}
    with pytest.raises(UsageError, match="knows several tasks: nodule, lung"):
        _ = package.task
    with pytest.raises(UsageError, match="for the tasks 'nodule', 'lung', not for 'gi'"):
        package.only("gi")


@pytest.mark.parametrize("router", [None, {}, {"temperature": 0}])
def test_several_tasks_without_a_router_are_damage(
    package_folder: Path, edit_json: Edit, router: object
) -> None:
    tasks = json.loads((package_folder / MODEL_JSON).read_text())["tasks"]
    edit_json(package_folder, tasks=[*tasks, {**tasks[0], "name": "lung"}], router=router)
    with pytest.raises(DamagedError, match="a field is missing or has the wrong kind"):
        load_package(package_folder)


def test_the_reference_comes_back_as_it_was(package_folder: Path) -> None:
    rng = np.random.default_rng(0)
    means = {"tone": rng.normal(size=3).astype(np.float32), "b": np.ones(2, np.float32)}
    matrices = {"tone": rng.normal(size=(3, 3)).astype(np.float32), "b": np.eye(2, dtype="f4").T}
    other = Reference({"b": np.zeros(2, np.float32)}, {"b": np.eye(2, dtype="f4")})
    given = {"left lung/a": Reference(means, matrices), "gi": other}
    save_references(package_folder, given)
    seal(package_folder)
    both = load_references(package_folder)
    assert set(both) == set(given)
    np.testing.assert_array_equal(both["gi"].means["b"], np.zeros(2))
    found = both["left lung/a"]
    for name, mean in means.items():
        np.testing.assert_array_equal(found.means[name], mean)
        np.testing.assert_array_equal(found.whitenings[name], matrices[name])


def test_a_package_without_a_reference_has_none(package_folder: Path) -> None:
    (package_folder / REFERENCE).rename(package_folder.parent / "moved")
    seal(package_folder)
    assert load_references(package_folder) == {}
    (package_folder.parent / "moved").rename(package_folder / REFERENCE)
    assert load_references(package_folder) == {}  # the manifest does not know it


def test_a_reference_that_is_none_is_damage(package_folder: Path) -> None:
    (package_folder / REFERENCE).write_bytes(b"not tensors")
    seal(package_folder)
    with pytest.raises(DamagedError, match=REFERENCE):
        load_references(package_folder)
    (package_folder / REFERENCE).write_bytes(save({"nodule/tone.mean": np.ones(3, np.float32)}))
    seal(package_folder)
    with pytest.raises(DamagedError, match=REFERENCE):
        load_references(package_folder)
