"""`medcli train --sensitivity`: what it asks of the data, and what happens where it is missed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from medcli.cli.train_display import (
    check_operating_point,
    show_folds,
    show_operating_point,
)
from medcli.errors import MedcliError

Run = Callable[..., Any]
POINT = {
    "threshold": 0.3,
    "rule": "sensitivity",
    "wanted": 0.95,
    "sensitivity": 0.96,
    "specificity": 0.5,
    "n_positive": 25,
    "n_negative": 40,
}
HELD_OUT = {
    "sensitivity": 0.9,
    "sensitivity_ci": [0.8, 1],
    "specificity": 0.6,
    "specificity_ci": None,
}


def class_folders(classes: str) -> Path:
    for name in classes:
        Path("data", name).mkdir(parents=True)
        for number in range(6):
            Image.new("L", (16, 16), 40 * number + ord(name)).save(f"data/{name}/{number}.png")
    return Path("data")


def test_a_threshold_of_three_classes_is_refused_with_the_reason(medcli: Run) -> None:
    done = medcli("train", class_folders("abc"), "--sensitivity", "0.9", "-o", "run")
    assert done.status == 2
    assert "has 3, and its answer is the most probable one" in done.errors[0]
    assert not Path("run").exists()


@pytest.mark.parametrize("wanted", ["0", "1.2", "-1"])
def test_what_is_no_sensitivity_is_refused(medcli: Run, wanted: str) -> None:
    done = medcli("train", class_folders("ab"), "--sensitivity", wanted, "-o", "run")
    assert done.status == 2
    assert not Path("run").exists()


def test_too_few_patients_for_the_folds_are_told_before_training(medcli: Run) -> None:
    done = medcli("train", class_folders("ab"), "--folds", "7", "-o", "run")
    assert done.status == 2
    assert "too few for 7 folds" in done.errors[0]
    assert medcli("train", "data", "--folds", "1").status == 2


def test_a_sensitivity_out_of_reach_ends_with_one_after_the_run_is_written() -> None:
    def run(rule: str, wanted: float | None) -> Any:
        return SimpleNamespace(
            metrics={"operating_point": POINT | {"rule": rule, "wanted": wanted}}
        )

    check_operating_point(run("sensitivity", 0.95))
    check_operating_point(run("youden", None))
    check_operating_point(SimpleNamespace(metrics={"operating_point": None}))  # type: ignore[arg-type]
    with pytest.raises(MedcliError, match=r"reaches a sensitivity of 0\.95") as caught:
        check_operating_point(run("youden", 0.95))
    assert caught.value.exit_status == 1
    assert "the run is written" in caught.value.message


def test_the_threshold_is_told_with_its_rule(capsys: pytest.CaptureFixture[str]) -> None:
    show_operating_point({"operating_point": POINT, **HELD_OUT})
    said = capsys.readouterr().err
    assert "threshold 0.300, for a sensitivity of 0.95" in said
    assert "0.900 (0.800–1.000)" in said
    show_operating_point({"operating_point": None})
    assert capsys.readouterr().err == ""


def test_a_kept_model_that_does_worse_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    row = {"fold": 1, "auroc": 0.9, "auroc_ci": None}
    kept = {"validation_auroc": 0.5, "validation_auroc_ci": None}
    show_folds({"folds": [row], "kept": kept, "auroc_ci": [0.8, 0.95]})
    assert "warning: the kept model does worse" in capsys.readouterr().err
    show_folds({"folds": [row], "kept": kept | {"validation_auroc": 0.85}, "auroc_ci": [0.8, 0.95]})
    assert "warning" not in capsys.readouterr().err
