"""The four lines of the README as they stand, in a fresh home, and what an interruption leaves."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import medcli as package

Run = Callable[..., Any]


@pytest.mark.usefixtures("one_thread")
def test_the_four_lines_work_as_they_stand(
    medcli: Run, sample_folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medcli.data import synthetic

    write_sample_data = synthetic.write_sample_data

    # As the command does, but with less to learn from.
    monkeypatch.setattr(
        synthetic,
        "write_sample_data",
        lambda folder, **_: write_sample_data(folder, patients=6, tasks=("nodule",)),
    )
    for name in ("scan.dcm", "query.png"):
        shutil.copy(sample_folder / name, name)
    trained = medcli("train", "--epochs", "1", "--size", "16")
    assert trained.status == 0
    assert "training on generated sample data" in trained.err
    assert "synthetic" in trained.err
    assert "epoch   1/1" in trained.err
    run = Path(trained.out.strip())
    assert run.parent == home / "runs"

    classified = medcli("classify", "scan.dcm", "--json")
    assert classified.status == 0
    assert classified.json[0]["synthetic"] is True
    assert run.name in classified.err

    assert medcli("index", "build").status == 0
    assert (home / "gallery" / "catalogue.sqlite").is_file()
    found = medcli("search", "query.png", "--json")
    assert found.status == 0
    assert [Path(hit["path"]).name for hit in found.json[0]["hits"]] == ["scan.dcm"]
    assert found.json[0]["synthetic"] is True
    assert sorted(os.listdir()) == ["query.png", "scan.dcm"]


@pytest.mark.parametrize("folder", ["manifest", "classes"])
def test_training_without_data_takes_what_lies_here(
    medcli: Run, sample_folder: Path, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    monkeypatch.setattr(
        "medcli.training.tasks.load_cases", lambda inputs, **_: seen.append(inputs) or 1 / 0
    )
    if folder == "manifest":
        shutil.copy(sample_folder / "manifest.csv", "manifest.csv")
    else:
        for label in ("normal", "pneumonia"):
            shutil.copytree(sample_folder / "ct" / "SYN-0001-1", label)
    with pytest.raises(ZeroDivisionError):
        medcli("train")
    here = Path.cwd()
    assert seen == [(str(here / "manifest.csv" if folder == "manifest" else here),)]


@pytest.mark.usefixtures("model")
def test_an_index_of_the_current_folder_follows_its_manifest(
    medcli: Run, sample_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(sample_folder, "scans"))
    (folder / "nodule.csv").replace(folder / "manifest.csv")
    monkeypatch.chdir(folder)
    built = medcli("index", "build")
    assert "manifest.csv" in built.err
    by_manifest = medcli("index", "info", "--json").json[0]
    assert by_manifest["unlabelled"] == 0
    assert medcli("index", "build", ".", "--overwrite").status == 0
    everything = medcli("index", "info", "--json").json[0]
    assert everything["unlabelled"] == everything["scans"] > by_manifest["scans"]


@pytest.mark.skipif(os.name == "nt", reason="no SIGINT to one process")
@pytest.mark.parametrize("overwrite", [False, True])
def test_an_interrupted_build_leaves_nothing_half_made(
    archive: Path, sample_folder: Path, overwrite: bool, medcli: Run
) -> None:
    target = archive if overwrite else Path("new").absolute()
    options = ["-g", str(target), *(["--overwrite"] if overwrite else [])]
    names = [str(sample_folder / "nodule.csv")] * 25
    with subprocess.Popen(
        [sys.executable, "-m", "medcli", "index", "build", *names, *options],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(package.__file__).parents[1])},
    ) as process:
        deadline = time.monotonic() + 60
        while not list(target.parent.glob(".*.draft")) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert said.splitlines()[-1] == "error: interrupted"
    assert "Traceback" not in said
    assert not list(target.parent.glob(".*"))
    assert target.exists() == overwrite
    if overwrite:
        assert medcli("index", "info", "--json").json[0]["scans"] == 8
