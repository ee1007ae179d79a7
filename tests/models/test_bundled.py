"""Names of bundled models, and which model answers where none is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from medcli.errors import UsageError
from medcli.models.bundled import bundled_for, bundled_models, specialist
from medcli.models.locate import find_model, open_model, passed_over
from medcli.models.package import ModelPackage, peek

AddRun = Callable[..., Path]
MakePackage = Callable[..., ModelPackage]
TASKS = ("nodule", "lung", "gi")


@pytest.fixture
def zoo(tmp_path: Path, make_package: MakePackage, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A shared model of three tasks and a specialist for nodules."""
    folder = tmp_path / "zoo"
    make_package(folder / "nodule", task="nodule")
    make_package(folder / "shared", tasks=TASKS)
    monkeypatch.setattr("medcli.home.ZOO", folder)
    return folder


@pytest.fixture
def add_run(home: Path, make_package: MakePackage) -> AddRun:
    def add(name: str, **facts: object) -> Path:
        return make_package(home / "runs" / name, **facts).path

    return add


@pytest.mark.parametrize(
    ("name", "folder"),
    [("shared", "shared"), ("nodule", "nodule"), ("lung", "shared"), ("gi", "shared")],
)
def test_a_name_is_a_bundled_model_or_the_task_of_one(
    zoo: Path, home: Path, name: str, folder: str
) -> None:
    assert find_model(name) == zoo / folder
    assert bundled_for(name) == zoo / folder


def test_a_bundled_model_may_be_named_by_its_folder(zoo: Path, home: Path) -> None:
    package = open_model(str(zoo / "shared"))
    assert package.path == zoo / "shared"
    assert len(package.heads) == len(TASKS)


def test_a_specialist_answers_one_task_and_the_shared_model_the_others(zoo: Path) -> None:
    assert [specialist(task) for task in TASKS] == [zoo / "nodule", None, None]
    assert [package.path.name for package in bundled_models()] == ["shared", "nodule"]


def test_without_a_name_the_bundled_model_answers(zoo: Path, home: Path) -> None:
    assert find_model(None) == zoo / "shared"
    assert find_model(None, "nodule") == zoo / "nodule"
    assert find_model(None, "lung") == zoo / "shared"
    with pytest.raises(UsageError, match="no model for the task 'liver'") as caught:
        find_model(None, "liver")
    assert "gi, lung, nodule" in caught.value.hint


def test_a_real_run_goes_before_the_bundled_model_and_a_synthetic_one_behind(
    zoo: Path, add_run: AddRun
) -> None:
    drawn = add_run("drawn", synthetic=True, created="2026-05-01")
    assert find_model(None) == zoo / "shared"
    assert passed_over(peek(zoo / "shared")) == drawn
    assert find_model("latest") == drawn
    liver = add_run("liver", task="liver", synthetic=True)
    assert find_model(None, "liver") == liver
    real = add_run("real", created="2026-01-01")
    assert find_model(None) == real
    assert passed_over(peek(zoo / "shared")) is None
    assert find_model(None, "lung") == zoo / "shared"


def test_a_run_or_package_of_the_same_name_goes_first(
    zoo: Path, add_run: AddRun, make_package: MakePackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = add_run("lung", task="lung")
    assert find_model("lung") == run
    monkeypatch.chdir(zoo.parent)
    Path("gi").mkdir()  # class folders, say
    assert find_model("gi") == zoo / "shared"
    make_package(Path("nodule"))
    assert find_model("nodule") == Path("nodule")


def test_what_is_no_model_names_those_that_are(zoo: Path, home: Path) -> None:
    with pytest.raises(UsageError, match="no model 'lnug'") as caught:
        find_model("lnug")
    assert "shared, nodule" in caught.value.hint
    with pytest.raises(UsageError, match="not for 'gi'"):
        find_model("nodule", "gi")
