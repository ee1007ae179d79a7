"""What `medcli doctor` finds, and what it says of a machine that lacks something."""

from __future__ import annotations

import importlib
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import pytest

from medcli.workflows import diagnosis
from medcli.workflows.diagnosis import diagnose


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MEDCLI_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_versions_are_those_of_the_installed_packages() -> None:
    found = diagnose()
    assert found.medcli == version("medcli")
    told = {engine.name: engine.version for engine in found.engines}
    assert told["ONNX Runtime"] == version("onnxruntime")
    assert told["FAISS"] == version("faiss-cpu")
    assert told["Pillow"] == version("Pillow")
    assert found.problems == ()
    assert found.cores >= 1


def test_the_onnx_providers_and_the_training_devices_are_named() -> None:
    details = {engine.name: engine.details for engine in diagnose().engines}
    assert "CPUExecutionProvider" in details["ONNX Runtime"]["providers"]
    assert details["PyTorch"]["devices"]


def test_a_home_below_a_file_cannot_be_written(home: Path) -> None:
    home.write_text("a file")
    found = diagnose()
    assert not found.home.writable
    assert any("MEDCLI_HOME" in problem for problem in found.problems)
    assert home.is_file()


def test_asking_does_not_make_the_home(home: Path) -> None:
    assert diagnose().home.writable
    assert not home.exists()


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ModuleNotFoundError("No module named 'faiss'"), "pip install faiss-cpu"),
        (
            OSError("/home/jane/lib.so: cannot open"),
            "cannot be loaded (OSError)",
        ),
    ],
)
def test_a_library_that_does_not_load_is_a_problem_with_a_way_out(
    error: Exception, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = importlib.import_module

    def refuse(name: str) -> ModuleType:
        if name == "faiss":
            raise error
        return load(name)

    monkeypatch.setattr(diagnosis.importlib, "import_module", refuse)
    (problem,) = diagnose().problems
    assert expected in problem
    assert "jane" not in problem
