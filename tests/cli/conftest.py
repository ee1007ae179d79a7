"""The command line in this process, in a folder and a home of its own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from medcli.cli.app import run
from medcli.models.package import ModelPackage, load_package


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> list[Any]:
        """The objects on stdout; NaN and infinity are no JSON."""

        def refuse(constant: str) -> None:
            raise ValueError(constant)

        return [json.loads(line, parse_constant=refuse) for line in self.out.splitlines()]

    @property
    def errors(self) -> list[str]:
        """The lines on stderr that say what is wrong."""
        return [line for line in self.err.splitlines() if line.startswith("error: ")]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty medcli home; the current folder is an empty one beside it."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv("MEDCLI_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def medcli(home: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Run a command line: `medcli("classify", "scan.dcm")`."""

    def call(*arguments: str | Path) -> Done:
        capsys.readouterr()
        status = run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Done(status, captured.out, captured.err)

    return call


@pytest.fixture(scope="session")
def stored_model(
    tmp_path_factory: pytest.TempPathFactory, make_package: Callable[..., ModelPackage]
) -> Path:
    """A model package, to be copied."""
    return make_package(tmp_path_factory.mktemp("model") / "nodule-1").path


@pytest.fixture(scope="session")
def stored_archive(
    tmp_path_factory: pytest.TempPathFactory, stored_model: Path, sample_folder: Path
) -> Path:
    """A gallery of all sample scans, to be copied."""
    folder = tmp_path_factory.mktemp("archive") / "gallery"
    arguments = ["-m", str(stored_model), "-g", str(folder)]
    assert run(["index", "build", str(sample_folder / "nodule.csv"), *arguments]) == 0
    return folder


@pytest.fixture
def model(home: Path, stored_model: Path) -> ModelPackage:
    """A run on real data in the medcli home."""
    return load_package(shutil.copytree(stored_model, home / "runs" / "nodule-1"))


@pytest.fixture
def archive(home: Path, stored_archive: Path, model: ModelPackage) -> Path:
    """The default gallery, of all sample scans, made with `model`."""
    return shutil.copytree(stored_archive, home / "gallery")
