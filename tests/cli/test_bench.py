"""`medcli bench`: a table for people, a line a measure for programs, nothing left behind."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medcli.cli.bench import Part, amount
from medcli.cli.console import SafeConsole
from medcli.models.package import ModelPackage

Run = Callable[..., Any]
TINY = ("--vectors", "300", "--rows", "100", "--scans", "2", "--turns", "1")


def test_a_line_a_measure(
    medcli: Run, model: ModelPackage, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    before = sorted(home.rglob("*"))
    parts = ("--only", "gallery", "--only", "embed", "--only", "search")
    done = medcli("bench", "-m", "latest", *parts, *TINY, "--json")
    assert done.status == 0, done.err
    machine, *measures = done.json
    assert machine["kind"] == "machine"
    assert machine["model"] == model.fingerprint
    assert {"numpy", "onnxruntime", "faiss-cpu"} <= set(machine["versions"])
    assert [each["group"] for each in measures] == ["embed"] * 4 + ["search"] * 4 + ["gallery"] * 2
    for each in measures:
        assert set(each) == {
            *("kind", "group", "name", "value", "unit", "beside", "reference", "ratio"),
        }
        assert each["value"] > 0
        assert each["ratio"] > 0
    assert sorted(home.rglob("*")) == before
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_table_fits_a_terminal(
    medcli: Run, model: ModelPackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medcli.cli.console.stdout", lambda: SafeConsole(width=80))
    done = medcli("bench", "-m", "latest", "--only", "search", *TINY)
    assert done.status == 0, done.err
    lines = done.out.splitlines()
    assert all(len(line) <= 80 for line in lines)
    (line,) = [each for each in lines if "one of" in each]
    assert "FAISS alone" in line
    assert done.out.count("one of") == 1  # the second reference stands below the first


def test_without_a_bundled_model_one_must_be_named(medcli: Run) -> None:
    done = medcli("bench", "--only", "search", *TINY)
    assert done.status == 2
    assert "no model" in done.errors[0]


def test_the_parts_are_the_groups() -> None:
    from medcli.bench.run import GROUPS

    assert tuple(Part) == GROUPS


@pytest.mark.parametrize(
    ("value", "shown"), [(None, "–"), (0.01234, "0.0123"), (12.34, "12.3"), (12345.6, "12,346")]
)
def test_three_digits_count(value: float | None, shown: str) -> None:
    assert amount(value) == shown


@pytest.mark.slow
def test_whole_processes_are_measured(medcli: Run, model: ModelPackage) -> None:
    done = medcli(
        *("bench", "-m", "latest", "--only", "start", "--only", "classify", "--json", *TINY)
    )
    assert done.status == 0, done.err
    assert [each["name"] for each in done.json[1:]] == [
        *("medcli --help", "one DICOM, cold", "one DICOM, peak memory"),
    ]
