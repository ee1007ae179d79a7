"""What lies in the medcli home, newest first, damage named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from medcli.models.package import GRAPH, MANIFEST, MODEL_JSON, ModelPackage
from medcli.models.shelf import shelf

Make = Callable[..., ModelPackage]


def test_the_newest_comes_first(make_package: Make, tmp_path: Path) -> None:
    for day in (2, 3, 1):
        make_package(tmp_path / f"run-{day}", created=f"2026-01-0{day}T00:00:00+00:00")
    entries = shelf(tmp_path)
    assert [entry.name for entry in entries] == ["run-3", "run-2", "run-1"]
    assert [entry.problem for entry in entries] == [None] * 3
    files = [file.stat().st_size for file in (tmp_path / "run-3").iterdir()]
    assert entries[0].size == sum(files)


def damage(folder: Path, how: str) -> None:
    match how:
        case "no graph":
            (folder / GRAPH).unlink()
        case "cut":
            (folder / GRAPH).write_bytes((folder / GRAPH).read_bytes()[:-1])
        case "no manifest":
            (folder / MANIFEST).unlink()
        case "no list":
            (folder / MANIFEST).write_text('{"files": 3}')
        case "settings":
            (folder / MODEL_JSON).write_text("{")
        case "nothing":
            for file in folder.iterdir():
                file.unlink()


@pytest.mark.parametrize(
    "how", ["no graph", "cut", "no manifest", "no list", "settings", "nothing"]
)
def test_damage_is_named_and_the_others_are_listed(
    make_package: Make, tmp_path: Path, how: str
) -> None:
    make_package(tmp_path / "good")
    damage(make_package(tmp_path / "bad", created="2030").path, how)
    good, bad = shelf(tmp_path)
    assert (good.name, good.problem) == ("good", None)
    assert bad.package is None
    assert bad.problem is not None
    assert "bad" in bad.problem


def test_drafts_and_files_are_no_models(make_package: Make, tmp_path: Path) -> None:
    make_package(tmp_path / ".draft")
    (tmp_path / "note.txt").write_text("")
    assert shelf(tmp_path) == []
    assert shelf(tmp_path / "nowhere") == []
