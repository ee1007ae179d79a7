"""Calibration anew on a run's own validation patients."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from medcli.config import Calibration
from medcli.data.synthetic import write_sample_data
from medcli.errors import UsageError
from medcli.models.package import ModelPackage, load_package
from medcli.workflows.recalibrating import recalibrate


@pytest.fixture(scope="module")
def run(tiny_run: Path) -> ModelPackage:
    return load_package(tiny_run)


@pytest.fixture(scope="module")
def spoilt(run: ModelPackage) -> ModelPackage:
    """The run with a calibration, a threshold and numbers that are none of its own."""
    (head,) = run.heads
    task = dataclasses.replace(head.task, threshold=0.999)
    calibration = Calibration(temperature=9.0, label_set_levels=(0.9, 0.9))
    wrong = {**run.metrics, "ece": 0.9, "accuracy": 0.0, "sensitivity": 0.0, "label_sets": None}
    heads = (dataclasses.replace(head, task=task, calibration=calibration),)
    return dataclasses.replace(run, heads=heads, metrics=wrong)


def test_it_finds_what_the_training_found(
    run: ModelPackage, spoilt: ModelPackage, sample_folder: Path
) -> None:
    found = recalibrate(spoilt, {"nodule": str(sample_folder / "nodule.csv")})
    assert found.task.threshold == pytest.approx(run.task.threshold, abs=1e-3)
    assert found.calibration.temperature == pytest.approx(run.calibration.temperature, rel=1e-2)
    assert found.calibration.offsets == pytest.approx(run.calibration.offsets, abs=1e-2)
    levels = run.calibration.label_set_levels
    assert found.calibration.label_set_levels == pytest.approx(levels, abs=1e-3)
    for name in ("n", "auroc", "accuracy", "sensitivity", "specificity", "ece", "ece_by_chance"):
        assert found.metrics[name] == pytest.approx(run.metrics[name], abs=1e-3), name
    assert found.metrics["operating_point"] == pytest.approx(
        run.metrics["operating_point"], abs=1e-3
    )
    assert found.metrics["label_sets"]["per_class"] == run.metrics["label_sets"]["per_class"]
    assert found.metrics["baselines"] == run.metrics["baselines"]
    assert found.metrics["split"] == run.metrics["split"]


def test_data_of_other_patients_are_refused(spoilt: ModelPackage, tmp_path: Path) -> None:
    write_sample_data(tmp_path, patients=4, seed=9)
    table = tmp_path / "nodule.csv"
    table.write_text(table.read_text().replace(",SYN-", ",OTHER-"))
    with pytest.raises(UsageError, match="no scan of the validation patients"):
        recalibrate(spoilt, {"nodule": str(table)})
