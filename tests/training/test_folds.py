"""Cross-validation against what its folds held."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import recall_score, roc_auc_score

from medcli.errors import ManifestError, OutputExistsError
from medcli.models.held_out import read_held_out
from medcli.models.package import CARD, ModelPackage, load_package
from medcli.training import folds, writing
from medcli.training.folds import CV_JSON, FOLDS_CSV, cross_validate
from medcli.training.request import TrainEvents, TrainRequest

PATIENTS = [f"p{number // 4 * 2 + number % 2}" for number in range(48)]  # 2 scans each, one class


def write_manifest(folder: Path, parts: str = "") -> Path:
    """48 pictures of 24 patients, dark or bright; `parts` is a column more, a letter a scan."""
    lines = ["path,label,patient_id" + (",split" if parts else "")]
    for number, patient in enumerate(PATIENTS):
        noise = np.random.default_rng(number).integers(0, 100, (16, 16)) + 60 * (number % 2)
        Image.fromarray(noise.astype(np.uint8)).save(folder / f"{number:02d}.png")
        part = f",{'test' if parts[number] == 't' else ''}" if parts else ""
        lines.append(f"{number:02d}.png,{'ab'[number % 2]},{patient}{part}")
    (folder / "manifest.csv").write_text("\n".join(lines))
    return folder / "manifest.csv"


def request_of(folder: Path, **parts: str) -> TrainRequest:
    inputs = (str(write_manifest(folder, **parts)),)
    return TrainRequest(inputs, output=folder / "run", size=16, epochs=1, device="cpu")


@pytest.fixture(scope="module")
def validated(tmp_path_factory: pytest.TempPathFactory) -> tuple[ModelPackage, dict[str, Any]]:
    """Three folds and the model of all, and what was told on the way."""
    told: dict[str, list[Any]] = {"notes": [], "read": []}
    events = TrainEvents(
        note=told["notes"].append, reading=lambda *counts: told["read"].append(counts)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "export_onnx", lambda _, path, *__: path.write_bytes(b"a graph"))
        patch.setattr(writing, "check_onnx", lambda *_: 0.0)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        package = cross_validate(request_of(tmp_path_factory.mktemp("folds")), 3, events)
        torch.set_num_threads(threads)
    return package, told


def test_every_scan_is_answered_once_and_the_numbers_are_those_of_the_answers(
    validated: tuple[ModelPackage, dict[str, Any]],
) -> None:
    package, _ = validated
    answers = read_held_out(package)
    assert answers is not None
    metrics = package.metrics
    assert (metrics["split"], metrics["n"], metrics["n_patients"]) == ("cross-validation", 48, 24)
    assert np.bincount(answers.folds).tolist()[0] == 0
    positive = package.task.classes.index(str(package.task.positive))
    truth, scores = answers.labels == positive, answers.probabilities[:, positive]
    assert metrics["auroc"] == pytest.approx(roc_auc_score(truth, scores))
    decided = scores >= answers.thresholds
    assert metrics["sensitivity"] == pytest.approx(recall_score(truth, decided))
    assert metrics["threshold"] is None
    assert package.task.threshold == metrics["operating_point"]["threshold"]
    for row in metrics["folds"]:
        own = answers.folds == row["fold"]
        assert row["n"] == own.sum()
        assert row["auroc"] == pytest.approx(roc_auc_score(truth[own], scores[own]))
    patients = {(group, fold) for group, fold in zip(answers.groups, answers.folds, strict=True)}
    assert len(patients) == 24


def test_what_is_kept_learnt_from_all_patients_and_says_how_it_was_measured(
    validated: tuple[ModelPackage, dict[str, Any]],
) -> None:
    package, _ = validated
    split = {row["part"]: row for row in package.provenance["split"]}
    assert split["test"]["scans"] == 0
    assert split["train"]["patients"] + split["val"]["patients"] == 24
    assert load_package(package.path).metrics == package.metrics
    summary = json.loads((package.path / CV_JSON).read_text())
    assert summary["folds"] == 3
    values = [row["auroc"] for row in package.metrics["folds"]]
    assert summary["mean"]["auroc"]["mean"] == pytest.approx(np.mean(values))
    assert summary["mean"]["auroc"]["sd"] == pytest.approx(np.std(values, ddof=1))
    with (package.path / FOLDS_CSV).open(newline="") as stream:
        lines = list(csv.DictReader(stream))
    assert [line["fold"] for line in lines] == ["1", "2", "3"]
    card = (package.path / CARD).read_text()
    assert "Cross-validated" in card
    assert "3 folds by patient" in card
    assert not [name for name in PATIENTS if name.encode() in (package.path / CV_JSON).read_bytes()]


def test_scans_are_read_once(validated: tuple[ModelPackage, dict[str, Any]]) -> None:
    _, told = validated
    assert told["read"] == [(done, 48) for done in range(1, 49)]
    assert len(told["notes"]) == len(set(told["notes"]))


def test_the_minutes_are_for_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 600.0, 900.0])
    monkeypatch.setattr(folds.time, "monotonic", lambda: next(clock))
    shares = [folds._share(20.0, 0.0, left) for left in (4, 3, 2)]
    assert shares == [pytest.approx(5), pytest.approx(10 / 3), pytest.approx(2.5)]
    assert folds._share(None, 0.0, 2) is None


def test_given_parts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="name their part"):
        cross_validate(request_of(tmp_path, parts="t---" * 12), 3)
    assert not (tmp_path / "run").exists()


def test_a_taken_name_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("")
    with pytest.raises(OutputExistsError):
        cross_validate(TrainRequest(("nowhere.csv",), output=tmp_path / "run"), 3)
