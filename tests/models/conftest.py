"""Packages to alter, and a home to put runs into."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medcli.models.package import (
    GRAPH,
    MODEL_JSON,
    WEIGHTS,
    fingerprint,
    peek,
    seal,
    sha256_file,
)


@pytest.fixture(scope="session")
def _light_package(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny run with the first kilobyte of weights and graph, whose insides nobody reads."""
    folder = Path(shutil.copytree(tiny_run, tmp_path_factory.mktemp("light") / "package"))
    for name in (WEIGHTS, GRAPH):
        (folder / name).write_bytes((tiny_run / name).read_bytes()[:1024])
    digests = (sha256_file(folder / name) for name in (WEIGHTS, GRAPH))
    values = json.loads((folder / MODEL_JSON).read_text())
    values["fingerprint"] = fingerprint(*digests, peek(folder).preprocess)
    (folder / MODEL_JSON).write_text(json.dumps(values))
    seal(folder)
    return folder


@pytest.fixture
def package_folder(_light_package: Path, tmp_path: Path) -> Path:
    """A package that a test may damage."""
    return Path(shutil.copytree(_light_package, tmp_path / "package"))


@pytest.fixture
def edit_json() -> Callable[..., None]:
    """Change fields of a package's model.json and, unless told, seal it again."""

    def edit(folder: Path, *, sealed: bool = True, **changes: Any) -> None:
        path = folder / MODEL_JSON
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
        if sealed:
            seal(folder)

    return edit


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty medcli home."""
    folder = tmp_path / "home"
    monkeypatch.setenv("MEDCLI_HOME", str(folder))
    return folder
