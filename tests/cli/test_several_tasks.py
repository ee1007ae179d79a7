"""One model of three tasks, from the manifest to the answer: the router picks, or the user."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from medcli.data.sources import load_cases
from medcli.data.synthetic import TASKS, write_sample_data
from medcli.imaging.batch import read_all
from medcli.inference.predictor import Predictor
from medcli.models.heads import head_width
from medcli.models.package import CARD, SPLITS, WEIGHTS, load_package, load_references
from medcli.models.scan_model import build_model
from medcli.records import Prediction, Scan
from medcli.training.request import TrainRequest
from medcli.training.run import train

pytestmark = pytest.mark.usefixtures("one_thread")
Run = Callable[..., Any]
CLASSES = {"nodule": "benign", "lung": "pneumonia", "gi": "polyp"}


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generated scans of the three tasks, twelve patients each."""
    return write_sample_data(tmp_path_factory.mktemp("samples"), patients=12).parent


@pytest.fixture(scope="module")
def shared(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the three tasks, just long enough that the router knows them apart."""
    from medcli.config import ModelConfig

    request = TrainRequest(
        inputs=(str(samples / "manifest.csv"),),
        task=",".join(TASKS),
        output=tmp_path_factory.mktemp("runs") / "shared",
        size=16,
        epochs=120,
        model=ModelConfig(arch="cnn_lrn", aggregator="mean"),
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return train(request).path
    finally:
        torch.set_num_threads(threads)


def test_the_package_has_the_numbers_of_each_task_and_of_the_router(shared: Path) -> None:
    package = load_package(shared)
    assert [task.name for task in package.tasks] == list(TASKS)
    assert set(package.metrics["tasks"]) == set(TASKS)
    assert set(load_references(shared)) == set(TASKS)
    assert package.router is not None
    confusion = np.array(package.metrics["router"]["confusion"])
    assert confusion.sum() == sum(own["n"] for own in package.metrics["tasks"].values())
    assert package.metrics["router"]["accuracy"] == np.trace(confusion) / confusion.sum() > 0.8
    assert package.preprocess.channels == 3
    assert package.preprocess.pictures == "full_range"
    assert package.provenance["train"]["augmentations"] == ["ct", "radiograph", "colour"]
    card = (shared / CARD).read_text()
    assert all(f"Numbers of {task} on" in card for task in TASKS)
    assert "The router on the held-out test part" in card


def test_the_graph_gives_what_torch_gives_for_all_heads(shared: Path, samples: Path) -> None:
    package = load_package(shared)
    predictor = Predictor(package)
    settings = package.preprocess
    model = build_model(package.model, settings.channels, settings.size, head_width(package.tasks))
    model.load_state_dict(load_file(shared / WEIGHTS))
    for task in TASKS:
        case = load_cases([str(samples / f"{task}.csv")]).cases[0]
        ((_, scan),) = read_all([case])
        assert isinstance(scan, Scan)
        images = torch.from_numpy(predictor.preprocessor.model_input(scan))[None]
        with torch.inference_mode():
            logits = model.eval()(images, torch.ones(images.shape[:2], dtype=torch.bool)).logits[0]
        np.testing.assert_allclose(predictor.embed(scan).logits, logits, atol=1e-4)
        routed = torch.softmax(logits[6:] / package.router.temperature, dim=0)  # type: ignore[union-attr]
        for number, name in enumerate(TASKS):
            head = package.heads[number]
            offsets = torch.tensor(head.calibration.offsets)
            own = torch.softmax(logits[head.columns] / head.calibration.temperature + offsets, 0)
            (answer,) = predictor.for_task(name).predict([scan])
            assert isinstance(answer, Prediction)
            found = list(answer.probabilities.values())
            np.testing.assert_allclose(found, own.tolist(), atol=1e-4)
            shares = list((answer.task_probabilities or {}).values())
            np.testing.assert_allclose(shares, routed.tolist(), atol=1e-4)


def test_the_router_gives_scans_to_their_tasks(medcli: Run, shared: Path, samples: Path) -> None:
    for task in TASKS:
        done = medcli("classify", samples / f"{task}.csv", "-m", shared, "--json")
        assert done.status == 0
        assert np.mean([answer["task"] == task for answer in done.json]) > 0.8
        for answer in done.json:
            shares = answer["task_probabilities"]
            assert answer["task"] == max(shares, key=shares.get)
            assert CLASSES[answer["task"]] in answer["probabilities"]
            assert sum(shares.values()) == pytest.approx(1)
    assert "tasks nodule, lung, gi (the router picks" in done.err


def test_the_user_picks_before_the_router(medcli: Run, shared: Path, samples: Path) -> None:
    scan = samples / "scan.dcm"
    (answer,) = medcli("classify", scan, "-m", shared, "--task", "gi", "--json").json
    assert answer["task"] == "gi"
    assert set(answer["probabilities"]) == {"normal", "polyp"}
    assert answer["out_of_distribution"]  # a CT is none of the pictures of that task
    assert set(answer["task_probabilities"]) == set(TASKS)
    wrong = medcli("classify", scan, "-m", shared, "--task", "liver")
    assert wrong.status == 2
    assert "not for 'liver'" in wrong.errors[0]


def test_a_table_of_several_tasks_has_a_column_for_each_class(
    medcli: Run, shared: Path, samples: Path, tmp_path: Path
) -> None:
    done = medcli("classify", samples / "manifest.csv", "-m", shared, "--csv", tmp_path / "all.csv")
    assert {"task", "label", "probability"} <= set(done.out.splitlines()[0].split())
    with (tmp_path / "all.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows:
        filled = {name for name in row if name.startswith("p_") and row[name]}
        assert filled == {name for name in row if name.startswith(f"p_{row['task']}_")}
        assert 1 / 3 < float(row["task_probability"]) <= 1
    assert {row["task"] for row in rows} == set(TASKS)


def test_each_task_is_evaluated_by_its_name_or_by_its_classes(
    medcli: Run, shared: Path, samples: Path, tmp_path: Path
) -> None:
    package = load_package(shared)
    for task in TASKS:
        (found,) = medcli("evaluate", shared, samples / f"{task}.csv", "--json").json
        known = package.metrics["tasks"][task]
        assert found["task"] == task
        number = TASKS.index(task)
        counts = package.metrics["router"]["confusion"][number]
        assert found["router_accuracy"] == counts[number] / sum(counts)
        for name in ("n", "split", "auroc", "accuracy", "confusion", "out_of_distribution"):
            expected = known[name] if name != "split" else "held-out"
            assert found[name] == expected, name
    several = medcli("evaluate", shared, samples / "manifest.csv")
    assert several.status == 2
    assert "several tasks" in several.errors[0]
    asked = medcli("evaluate", shared, samples / "manifest.csv", "--task", "lung", "--json")
    assert asked.json[0]["task"] == "lung"
    with (samples / "gi.csv").open(newline="") as stream:
        rows = [{k: row[k] for k in ("path", "label")} for row in csv.DictReader(stream)]
    with (samples / "unnamed.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, ["path", "label"])
        writer.writeheader()
        writer.writerows(rows)
    (found,) = medcli("evaluate", shared, samples / "unnamed.csv", "--allow-overlap", "--json").json
    assert found["task"] == "gi"


def test_one_gallery_holds_the_scans_of_all_tasks(
    medcli: Run, shared: Path, samples: Path, tmp_path: Path
) -> None:
    gallery = tmp_path / "gallery"
    built = medcli("index", "build", samples / "manifest.csv", "-m", shared, "-g", gallery)
    assert built.status == 0
    for task in TASKS:
        query = load_cases([str(samples / f"{task}.csv")]).cases[0].path
        done = medcli("search", query, "-g", gallery, "--json", "--html", tmp_path / f"{task}.html")
        assert done.status == 0
        assert len(done.json[0]["hits"]) == 5
        assert "Task: " in (tmp_path / f"{task}.html").read_text()
    found = medcli("evaluate", shared, samples / "gi.csv", "-g", gallery, "--json")
    assert found.json[0]["task"] == "gi"


def test_a_run_of_several_tasks_is_found_by_any_of_them(
    medcli: Run, home: Path, shared: Path, samples: Path
) -> None:
    import shutil

    shutil.copytree(shared, home / "runs" / "shared")
    (answer,) = medcli("classify", samples / "scan.dcm", "--task", "nodule", "--json").json
    assert answer["task"] == "nodule"
    assert medcli("classify", samples / "scan.dcm", "--task", "liver").status == 2


def test_patients_numbered_by_each_task_are_kept_apart(
    samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Equal numbers in two inputs are two people; what a task's own number was in is known."""
    from medcli.models.memory import run_memory
    from medcli.training import writing

    monkeypatch.setattr(
        writing, "export_onnx", lambda model, path, *_: path.write_bytes(b"a graph")
    )
    monkeypatch.setattr(writing, "check_onnx", lambda *_: 0.0)
    for task in ("lung", "gi"):
        with (samples / f"{task}.csv").open(newline="") as stream:
            rows = list(csv.DictReader(stream))
        numbers = {name: str(i) for i, name in enumerate(sorted({r["patient_id"] for r in rows}))}
        with (tmp_path / f"{task}.csv").open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["path", "label", "patient_id"])
            for row in rows:
                patient = numbers[row["patient_id"]]
                writer.writerow([samples / row["path"], row["label"], patient])
    inputs = tuple(f"{task}={tmp_path / task}.csv" for task in ("lung", "gi"))
    package = train(TrainRequest(inputs, output=tmp_path / "run", size=16, epochs=1))
    memory = run_memory(package)
    assert memory is not None
    with (package.path / SPLITS).open(newline="") as stream:
        patients = {line["patient"] for line in csv.DictReader(stream)}
    assert len(patients) == len(memory.by_patient)
    parts = {task: memory.part("0", "", task) for task in ("lung", "gi")}
    assert None not in parts.values()
    assert memory.part("0", "", "nodule") is None
