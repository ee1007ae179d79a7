"""The answers behind a run's numbers, written and read again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from medcli.errors import DamagedError
from medcli.models.held_out import HeldOut, join_folds, read_held_out, write_held_out
from medcli.models.package import HELD_OUT, MODEL_JSON, load_package, peek


def answers(n: int, seed: int, threshold: float = 0.25) -> HeldOut:
    rng = np.random.default_rng(seed)
    return HeldOut(
        groups=np.arange(n) // 2,
        folds=np.zeros(n, dtype=np.intp),
        labels=rng.integers(2, size=n),
        probabilities=rng.dirichlet([1, 1], size=n),
        thresholds=np.full(n, threshold),
    )


@pytest.mark.parametrize("threshold", [0.1 + 0.2, float("nan")])
def test_what_is_read_is_what_was_written(stored: Path, threshold: float) -> None:
    written = answers(7, 0, threshold)
    write_held_out(stored, written, ("benign", "malignant"))
    found = read_held_out(load_package(stored))
    assert found is not None
    for name in ("groups", "folds", "labels", "probabilities", "thresholds"):
        np.testing.assert_array_equal(getattr(found, name), getattr(written, name))


def test_of_findings_every_one_comes_back_with_its_threshold(
    package_folder: Path, edit_json: Callable[..., None]
) -> None:
    (task,) = json.loads((package_folder / MODEL_JSON).read_text())["tasks"]
    task |= {"multi_label": True, "positive": None, "thresholds": [0.25, 1], "calibration": {}}
    edit_json(package_folder, tasks=[task])
    rng = np.random.default_rng(0)
    written = HeldOut(
        groups=np.arange(4),
        folds=np.zeros(4, dtype=np.intp),
        labels=np.array([[0, 0], [1, 0], [0, 1], [1, 1]], dtype=np.uint8),
        probabilities=rng.random((4, 2)),
        thresholds=np.tile([0.25, 1.0], (4, 1)),
    )
    write_held_out(package_folder, written, ("benign", "malignant"))
    found = read_held_out(peek(package_folder))
    assert found is not None
    assert found.of_findings
    for name in ("groups", "folds", "labels", "probabilities", "thresholds"):
        np.testing.assert_array_equal(getattr(found, name), getattr(written, name))


def test_older_packages_have_none(stored: Path) -> None:
    assert read_held_out(load_package(stored)) is None


def test_another_file_of_that_name_is_damage(stored: Path) -> None:
    package = load_package(stored)
    (stored / HELD_OUT).write_text("patient,fold\n1,x\n")
    with pytest.raises(DamagedError):
        read_held_out(package)


def test_patients_of_different_folds_are_different() -> None:
    joined = join_folds([answers(4, 0), answers(6, 1)])
    assert joined.groups.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert joined.folds.tolist() == [1] * 4 + [2] * 6
    assert joined.patients[-1] == "patient 5"


@pytest.fixture
def stored(tmp_path: Path, make_package: object) -> Path:
    return make_package(tmp_path / "run").path  # type: ignore[operator]
