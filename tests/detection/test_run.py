"""A detector from manifest to run folder: torch trains it, ONNX answers."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from medcli.config import ModelConfig
from medcli.data.boxes import load_boxes
from medcli.detection.measuring import box_metrics, measure_scans
from medcli.detection.run import train_detector
from medcli.errors import LeakageError, UsageError
from medcli.inference.detector import Detector
from medcli.models.memory import run_memory
from medcli.models.package import HISTORY, load_package
from medcli.training.request import TrainRequest

pytestmark = pytest.mark.usefixtures("one_thread")


def request(disc_folder: Path, output: Path) -> TrainRequest:
    return TrainRequest(
        (str(disc_folder / "boxes.csv"),),
        task="disc-detection",
        output=output,
        size=64,
        epochs=2,
        model=ModelConfig(arch="cnn_lrn"),
    )


def test_a_training_leaves_a_whole_package(disc_folder: Path, tmp_path: Path) -> None:
    trained = train_detector(request(disc_folder, tmp_path / "run"))
    package = load_package(tmp_path / "run", "detection")
    assert package.fingerprint == trained.fingerprint
    assert package.task.classes == ("disc",)
    assert package.provenance["onnx_difference"] < 1e-2
    with (package.path / HISTORY).open(newline="") as stream:
        assert [row["epoch"] for row in csv.DictReader(stream)] == ["1", "2"]
    # The numbers in the package are those of its held-out patients, through the graphs.
    data, memory = load_boxes([str(disc_folder / "boxes.csv")]), run_memory(package)
    assert memory is not None
    held = [n for n, c in enumerate(data.cases) if memory.part(c.patient_id, "") == "test"]
    assert held
    rows, failures = measure_scans(
        Detector(package), [data.cases[n] for n in held], [data.boxes[n] for n in held]
    )
    assert not failures
    measured = box_metrics(rows, 1)
    assert {name: package.metrics[name] for name in measured} == measured
    assert "recall at 1 false" in (package.path / "MODEL_CARD.md").read_text()


def test_parts_that_share_a_patient_are_refused(disc_folder: Path, tmp_path: Path) -> None:
    header, *lines = (disc_folder / "boxes.csv").read_text().splitlines()
    shared = tmp_path / "shared.csv"
    rows = [
        f"{disc_folder / line}{',train' if line.startswith('1.') else ',test'}" for line in lines
    ]
    rows = [row.replace(",P2,", ",P1,") for row in rows]  # the patients 1 and 2 are one
    shared.write_text("\n".join([f"{header},split", *rows]) + "\n")
    asked = TrainRequest((str(shared),), task="x-detection", output=tmp_path / "run", size=64)
    with pytest.raises(LeakageError, match="more than one part"):
        train_detector(asked)
    assert not (tmp_path / "run").exists()


def test_a_network_for_volumes_finds_no_boxes(disc_folder: Path, tmp_path: Path) -> None:
    asked = TrainRequest(
        (str(disc_folder / "boxes.csv"),),
        task="disc-detection",
        output=tmp_path / "run",
        model=ModelConfig(arch="r3d_18", aggregator="none"),
    )
    with pytest.raises(UsageError, match="slice by slice"):
        train_detector(asked)
