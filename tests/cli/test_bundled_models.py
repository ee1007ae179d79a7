"""Commands without a model of the user's own: the bundled ones answer."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medcli.models.package import CARD, ModelPackage, load_package

Run = Callable[..., Any]
Make = Callable[..., ModelPackage]


@pytest.fixture
def zoo(tmp_path: Path, make_package: Make, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A shared model, and a specialist for nodules."""
    folder = tmp_path / "zoo"
    make_package(folder / "shared", tasks=("nodule", "lung", "gi"), region_mm=20.0)
    make_package(folder / "nodule", seed=1, region_mm=20.0)
    monkeypatch.setattr("medcli.home.ZOO", folder)
    return folder


@pytest.fixture
def drawn(home: Path, make_package: Make) -> ModelPackage:
    """A run on generated data in the home."""
    return make_package(home / "runs" / "drawn", synthetic=True, created="2026-05-01")


def test_classify_needs_no_training(
    medcli: Run, zoo: Path, sample_folder: Path, drawn: ModelPackage
) -> None:
    done = medcli("classify", sample_folder / "query.png", "--json")
    assert done.status == 0
    assert "model shared (bundled)" in done.err
    assert "--model drawn" in done.err
    (answer,) = done.json
    assert answer["synthetic"] is False
    assert set(answer["task_probabilities"]) == {"nodule", "lung", "gi"}
    of = {each.task_names: each.fingerprint for each in map(load_package, zoo.iterdir())}
    shared = of["nodule, lung, gi"]
    assert answer["model"] == (of["nodule"] if answer["task"] == "nodule" else shared)
    named = medcli("classify", sample_folder / "query.png", "--model", "latest", "--json")
    assert named.json[0]["model"] == drawn.fingerprint
    assert "--model drawn" not in named.err


@pytest.mark.parametrize("options", [["--task", "lung"], ["--model", "lung"]])
def test_a_task_alone_is_asked_of_the_shared_model(
    medcli: Run, zoo: Path, sample_folder: Path, options: list[str]
) -> None:
    (answer,) = medcli("classify", sample_folder / "query.png", *options, "--json").json
    assert answer["task"] == "lung"
    assert answer["model"] == load_package(zoo / "shared").fingerprint
    (other,) = medcli("classify", sample_folder / "query.png", "--task", "nodule", "--json").json
    assert other["model"] == load_package(zoo / "nodule").fingerprint


def test_a_gallery_is_built_with_the_shared_model(
    medcli: Run, zoo: Path, home: Path, sample_folder: Path
) -> None:
    assert medcli("index", "build", sample_folder / "nodule.csv").status == 0
    copied = load_package(home / "gallery" / "model")
    assert copied.fingerprint == load_package(zoo / "shared").fingerprint
    assert medcli("search", sample_folder / "query.png", "--json").json[0]["hits"]
    named = medcli("search", sample_folder / "query.png", "--model", "nodule")
    assert named.status == 5


def test_evaluate_takes_the_bundled_model_of_the_task(
    medcli: Run, zoo: Path, sample_folder: Path
) -> None:
    table = sample_folder / "nodule.csv"
    done = medcli("evaluate", table, "--json")
    assert done.status == 0
    assert "model nodule (bundled)" in done.err
    assert done.json[0]["n"] == 8
    shared = medcli("evaluate", "shared", table, "--task", "nodule", "--json")
    assert "model shared (bundled)" in shared.err


def test_bundled_models_are_listed_shown_and_exported(
    medcli: Run, zoo: Path, drawn: ModelPackage
) -> None:
    rows = medcli("models", "list", "--json").json
    assert [row["name"] for row in rows] == ["drawn", "nodule", "shared"]
    assert [row["bundled"] for row in rows] == [False, True, True]
    assert medcli("models", "list").out.count("bundled") == 2
    shown = medcli("models", "show", "lung")
    assert shown.out == (zoo / "shared" / CARD).read_text()
    assert "lung is answered by the bundled model shared" in shown.err
    assert medcli("models", "export", "nodule", "-o", "nodule.onnx").status == 0
    assert medcli("models", "export", "shared", "-o", "shared").status == 0
    assert load_package(Path("shared")).fingerprint == load_package(zoo / "shared").fingerprint
    assert "nodule, shared (nodule, lung, gi)" in medcli("doctor").out


def test_a_list_of_models_loads_no_engine() -> None:
    probe = (
        "import sys\nfrom medcli.cli.app import run\nassert run(['models', 'list']) == 0\n"
        "print(*{'torch', 'onnxruntime', 'faiss'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.splitlines()[-1] == ""


def test_a_point_asks_about_the_region_around_it(
    medcli: Run, zoo: Path, sample_folder: Path
) -> None:
    series = sample_folder / "ct" / "SYN-0001-1"
    whole = medcli("classify", series, "--model", "nodule", "--json").json[0]
    assert whole["out_of_distribution"] is True
    assert [warning["code"] for warning in whole["warnings"]] == ["whole_ct"]
    done = medcli("classify", series, "--model", "nodule", "--point", "32,32,4", "--json")
    assert done.status == 0
    assert "the region is" in done.err
    part = done.json[0]
    assert not part["warnings"]
    assert part["files"] == whole["files"]
    assert part["probabilities"] != whole["probabilities"]


def test_a_region_and_a_ct_are_asked_of_the_task_that_answers_about_regions(
    medcli: Run, make_package: Make, sample_folder: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    tasks = ("nodule", "lung", "gi")
    make_package(tmp_path / "own" / "shared", tasks=tasks, region_mm=20.0, region_task="gi")
    monkeypatch.setattr("medcli.home.ZOO", tmp_path / "own")
    series = sample_folder / "ct" / "SYN-0001-1"
    (picture,) = medcli("classify", sample_folder / "query.png", "--json").json
    assert picture["task"] != "gi"  # the router is asked about pictures
    whole = medcli("classify", series, "--json")
    assert whole.json[0]["task"] == "gi"
    assert "name one with --point" in whole.err
    part = medcli("classify", series, "--point", "32,32,4", "--json")
    assert part.json[0]["task"] == "gi"
    assert "a region is asked of the task gi; --task names another" in part.err
    other = medcli("classify", series, "--point", "32,32,4", "--task", "lung")
    assert other.status == 2
    assert "does not say how large a region" in other.errors[0]
    assert not medcli("classify", series, "--task", "lung", "--json").json[0]["warnings"]


def test_a_point_in_mm_is_the_point_in_pixels(medcli: Run, zoo: Path, sample_folder: Path) -> None:
    from medcli import find_scans, read_scan

    series = sample_folder / "ct" / "SYN-0001-1"
    (case,) = find_scans([str(series)])
    affine = read_scan(case).affine  # type: ignore[arg-type]
    x, y, z = (np.asarray(affine) @ [4, 30, 28, 1])[:3]
    answers = [
        medcli("classify", series, "-m", "nodule", f"--point={text}", "--json").json[0]
        for text in ("28,30,4", f"{x},{y},{z}mm")
    ]
    assert answers[0]["probabilities"] == pytest.approx(answers[1]["probabilities"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--point", "1,2"], "has 8 slices: the point needs its slice too"),
        (["--point", "1,2,x"], "not 2 or 3 numbers"),
        (["--point", "3,4mm"], "--point 3,4mm: not 3 numbers"),
        (["--point", "500,2,3"], "outside of the scan"),
        (["--point", "-1,-900,3mm"], "of slice"),
        (["--region", "1,2,3"], "not 4 or 6 numbers"),
        (["--region", "5,5,5,9,0,2"], "the region is empty"),
        (["--region", "5,5,9,9"], "the region needs its slices too"),
        (["--region", "1.5,2,9,9,0,2"], "whole pixels"),
        (["--region", "1,2,9,9,0,2", "--point", "1,2,3"], "both name the region"),
    ],
)
def test_a_region_that_means_nothing_is_told(
    medcli: Run, zoo: Path, sample_folder: Path, options: list[str], message: str
) -> None:
    done = medcli("classify", sample_folder / "ct" / "SYN-0001-1", "-m", "nodule", *options)
    assert done.status == 2
    assert message in done.errors[0]


@pytest.mark.parametrize(
    ("options", "form"),
    [
        (["--point", "3,4mm"], "12.5,-30,88mm"),
        (["--point", "3"], "120,200,34"),
        (["--region", "1,2,3"], "90,170,150,230,30,38"),
    ],
)
def test_the_form_that_was_meant_is_shown(medcli: Run, options: list[str], form: str) -> None:
    done = medcli("classify", "any.png", *options)
    assert done.status == 2
    assert done.errors[0].startswith(f"error: {' '.join(options)}: not ")
    assert done.err.rstrip().endswith(f"as in {form}")


def test_a_region_is_one_of_one_scan(
    medcli: Run, zoo: Path, model: ModelPackage, sample_folder: Path
) -> None:
    done = medcli("classify", sample_folder / "nodule.csv", "-m", "nodule", "--point", "1,2,3")
    assert (done.status, done.out) == (2, "")
    assert "8 were found" in done.errors[0]
    series = sample_folder / "ct" / "SYN-0001-1"
    unsized = medcli("classify", series, "-m", str(model.path), "--point", "1,2,3")
    assert unsized.status == 2
    assert "does not say how large a region" in unsized.errors[0]
    box = medcli("classify", series, "-m", str(model.path), "--region", "20,20,44,44,2,6")
    assert box.status == 0
