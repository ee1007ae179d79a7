"""`medcli models`: what is listed, shown and handed on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medcli.models.package import CARD, GRAPH, ModelPackage, load_package

Run = Callable[..., Any]


def test_models_are_listed_newest_first_and_damage_is_named(
    medcli: Run, home: Path, model: ModelPackage, make_package: Callable[..., ModelPackage]
) -> None:
    make_package(home / "runs" / "newer", created="2026-03-01T00:00:00+00:00", synthetic=True)
    (make_package(home / "runs" / "broken", created="2030").path / GRAPH).unlink()
    done = medcli("models", "list")
    assert done.status == 0
    lines = done.out.splitlines()
    assert [line.split()[0] for line in lines] == ["name", "newer", "nodule-1"]
    assert "synthetic" in lines[1]
    assert "broken: graph.onnx is missing" in done.err
    rows = medcli("models", "list", "--json").json
    assert [row["status"] for row in rows] == ["ok", "ok", "damaged"]
    assert rows[0]["synthetic"]
    assert rows[1]["tasks"][0]["classes"] == ["benign", "malignant"]
    assert rows[1]["size"] == sum(os.path.getsize(p) for p in model.path.iterdir())
    assert rows[2]["error"]["code"] == "damaged"


def test_an_empty_home_says_what_to_do(medcli: Run) -> None:
    done = medcli("models", "list")
    assert (done.status, done.out) == (0, "")
    assert "train one" in done.err
    assert medcli("models", "list", "--json").out == ""


def test_paths_can_be_hidden(medcli: Run, home: Path, model: ModelPackage) -> None:
    (shutil.copytree(model.path, home / "runs" / "secret") / GRAPH).unlink()
    for arguments in (["list"], ["list", "--json"], ["show", "latest", "--json"]):
        done = medcli("models", *arguments, "--hide-paths")
        assert done.status == 0
        for name in ("nodule-1", "secret", str(home)):
            assert name not in done.out + done.err


def test_the_card_is_shown_by_the_runs_name(medcli: Run, model: ModelPackage) -> None:
    done = medcli("models", "show", "nodule-1")
    assert done.out == (model.path / CARD).read_text()
    assert "every file has its checksum" in done.err
    (shown,) = medcli("models", "show", model.path, "--json").json
    assert shown["model"] == model.fingerprint
    assert set(shown["files"]) == {p.name for p in model.path.iterdir()} - {"manifest.json"}
    assert model.patient_salt not in str(shown)


def test_a_card_has_its_lines_and_nothing_that_moves_the_cursor(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from medcli.cli.models import print_card

    text = "# lung\n\n| | |\n|---|---|\n| seed | \x1b[2J0 |\n"
    print_card(text)
    assert capsys.readouterr().out == text.replace("\x1b", "\\x1b")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    print_card(text)
    assert "\x1b[2J" not in capsys.readouterr().out


@pytest.mark.parametrize("command", [["show"], ["export", "-o", "out"]])
def test_a_damaged_model_is_refused(medcli: Run, model: ModelPackage, command: list[str]) -> None:
    (model.path / CARD).write_text("# Another\n")
    done = medcli("models", command[0], "nodule-1", *command[1:])
    assert done.status == 4
    assert "differs from its checksum" in done.errors[0]
    assert not Path("out").exists()


@pytest.mark.parametrize("target", ["m.onnx", "m.zip", "folder"])
def test_an_export_is_written_once(medcli: Run, model: ModelPackage, target: str) -> None:
    done = medcli("models", "export", "latest", "-o", target)
    assert (done.status, done.out) == (0, f"{target}\n")
    assert medcli("models", "export", "latest", "-o", target).status == 2
    assert medcli("models", "export", "latest", "-o", target, "--overwrite").status == 0
    if target == "folder":
        assert load_package(Path(target)).fingerprint == model.fingerprint


def test_a_model_that_is_not_there(medcli: Run) -> None:
    assert medcli("models", "show", "nothing").status == 2
    assert medcli("models", "export", "latest", "-o", "x").status == 2
