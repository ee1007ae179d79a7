"""Packages to alter, and a home to put runs into."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medcli.models.package import MODEL_JSON, seal


@pytest.fixture
def package_folder(tiny_run: Path, tmp_path: Path) -> Path:
    """A copy of the tiny run that a test may damage."""
    return Path(shutil.copytree(tiny_run, tmp_path / "package"))


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
