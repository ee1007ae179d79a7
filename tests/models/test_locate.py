from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from medcli.errors import DamagedError, UsageError
from medcli.models.locate import find_model
from medcli.models.package import MODEL_JSON, peek

AddRun = Callable[..., Path]


@pytest.fixture
def add_run(home: Path, tiny_run: Path) -> AddRun:
    """Put a run into the home; only its `model.json` is there, as nothing else is looked at."""
    values = json.loads((tiny_run / MODEL_JSON).read_text())

    def add(name: str, *, created: str, synthetic: bool = False, task: str = "nodule") -> Path:
        folder = home / "runs" / name
        folder.mkdir(parents=True)
        change = {"created": created, "synthetic": synthetic}
        change["tasks"] = [{**values["tasks"][0], "name": task}]
        (folder / MODEL_JSON).write_text(json.dumps({**values, **change}))
        return folder

    return add


@pytest.mark.parametrize("name", [None, "latest"])
def test_the_newest_run_answers(add_run: AddRun, name: str | None) -> None:
    newest = add_run("a", created="2026-02-02T00:00:00+00:00")
    add_run("b", created="2026-02-01T00:00:00+00:00")
    assert find_model(name) == newest


def test_a_real_run_goes_before_a_newer_synthetic_one(add_run: AddRun) -> None:
    real = add_run("real", created="2026-01-01")
    add_run("synthetic", created="2026-03-01", synthetic=True)
    assert find_model(None) == real


def test_a_synthetic_run_answers_where_there_is_no_other(add_run: AddRun) -> None:
    run = add_run("synthetic", created="2026-03-01", synthetic=True)
    assert find_model(None) == run


def test_a_task_picks_among_the_runs(add_run: AddRun) -> None:
    lung = add_run("lung", created="2026-01-01", task="lung")
    add_run("nodule", created="2026-03-01", task="nodule")
    assert find_model(None, "lung") == lung
    with pytest.raises(UsageError, match="no model for the task 'liver'") as caught:
        find_model(None, "liver")
    assert "lung, nodule" in caught.value.hint


def test_without_a_run_the_way_to_one_is_named(home: Path) -> None:
    with pytest.raises(UsageError, match="no model") as caught:
        find_model(None)
    assert caught.value.exit_status == 2
    assert "medcli train" in caught.value.hint


def test_damaged_runs_are_passed_over_and_named(home: Path, add_run: AddRun) -> None:
    broken = add_run("broken", created="2026-03-01")
    (broken / MODEL_JSON).write_text("{")
    with pytest.raises(UsageError) as caught:
        find_model(None)
    assert str(broken) in caught.value.hint
    whole = add_run("whole", created="2026-01-01")
    assert find_model(None) == whole


def test_half_written_runs_and_other_folders_are_no_runs(home: Path, add_run: AddRun) -> None:
    whole = add_run("whole", created="2026-01-01")
    add_run(".draft", created="2026-05-01")
    (home / "runs" / "notes").mkdir()
    assert find_model(None) == whole


def test_a_folder_named_by_the_user_is_taken_as_it_is(tiny_run: Path, home: Path) -> None:
    assert find_model(str(tiny_run)) == tiny_run
    with pytest.raises(UsageError, match="no model 'nowhere'"):
        find_model("nowhere")


def test_a_named_model_of_another_task_is_refused(tiny_run: Path, package_folder: Path) -> None:
    assert find_model(str(tiny_run), peek(tiny_run).task.name) == tiny_run
    with pytest.raises(UsageError, match="is a model for the task 'nodule', not for 'lung'"):
        find_model(str(tiny_run), "lung")
    (package_folder / MODEL_JSON).write_text("{")
    with pytest.raises(DamagedError):
        find_model(str(package_folder), "lung")
