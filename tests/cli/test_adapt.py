"""`medcli adapt`: what it writes and says, and what stops it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medcli.models.package import load_package
from medcli.training import adapting

Run = Callable[..., Any]


@pytest.fixture(autouse=True)
def _light(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few scans are enough, and the graph is one that nothing reads: export has its own tests."""
    monkeypatch.setattr(adapting, "LEAST", 2)
    monkeypatch.setattr(adapting, "export_onnx", lambda model, path, *_: path.write_bytes(b"x"))
    monkeypatch.setattr(adapting, "check_onnx", lambda *_: 0.0)


def test_it_writes_a_model_beside_the_old_and_says_what_is_not_known(
    medcli: Run, tiny_run: Path, sample_folder: Path
) -> None:
    done = medcli("adapt", tiny_run, sample_folder / "nodule.csv", "-o", "new")
    assert done.status == 0
    assert done.out == "new\n"
    assert "threshold and calibration were not refitted" in done.err
    assert "scans give rough statistics" in done.err
    assert load_package(Path("new")).provenance["adaptations"][0]["scans"] > 2


def test_json_names_both_models(medcli: Run, tiny_run: Path, sample_folder: Path) -> None:
    done = medcli("adapt", tiny_run, sample_folder / "nodule.csv", "-o", "new", "--json")
    assert done.status == 0
    [told] = done.json
    new = load_package(Path("new"))
    assert told["model"] == new.fingerprint
    assert told["from"] == load_package(tiny_run).fingerprint
    assert told["not_refitted"][0] == "threshold"
    assert told["synthetic"] is True
    assert told["shift"] > 0


def test_an_input_that_is_missing_is_named_and_the_others_go_on(
    medcli: Run, tiny_run: Path, sample_folder: Path
) -> None:
    done = medcli("adapt", tiny_run, "gone.dcm", sample_folder / "nodule.csv", "-o", "new")
    assert done.status == 3
    assert "gone.dcm" in done.errors[0]
    assert Path("new").is_dir()
    done = medcli("adapt", tiny_run, "gone.dcm", "-o", "other")
    assert done.status == 3
    assert not Path("other").exists()


def test_what_exists_stays(medcli: Run, tiny_run: Path, sample_folder: Path) -> None:
    model = Path(shutil.copytree(tiny_run, "model"))
    for more in ([], ["--overwrite"]):
        done = medcli("adapt", model, sample_folder / "nodule.csv", "-o", model, *more)
        assert done.status == 2
        assert "model is the model itself" in done.errors[0]
    assert load_package(model).fingerprint == load_package(tiny_run).fingerprint


def test_without_an_output_nothing_is_done(medcli: Run, tiny_run: Path) -> None:
    done = medcli("adapt", tiny_run, "x.png")
    assert done.status == 2
    assert "--output" in done.errors[0]


def test_no_model_is_said(medcli: Run) -> None:
    done = medcli("adapt", "latest", "x.png", "-o", "new")
    assert done.status == 2
