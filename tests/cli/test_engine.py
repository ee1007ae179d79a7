"""`--engine`: the same answers, and plain words where one is not there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]


def test_the_engines_answer_alike(
    medcli: Run, sample_folder: Path, stored_model: Path, home: Path
) -> None:
    arguments = ["classify", sample_folder / "query.png", "-m", stored_model, "--json"]
    one, other = (
        medcli(*arguments, "--engine", name).json[0] for name in ("onnxruntime", "openvino")
    )
    assert other["probabilities"] == pytest.approx(one["probabilities"], abs=1e-5)
    drop = {"probabilities", "probability", "ood_score"}
    assert {k: v for k, v in one.items() if k not in drop} == {
        k: v for k, v in other.items() if k not in drop
    }


def test_a_gallery_made_with_one_engine_is_searched_with_the_other(
    medcli: Run, sample_folder: Path, stored_model: Path, tmp_path: Path
) -> None:
    gallery, query = tmp_path / "gallery", sample_folder / "query.png"
    built = medcli(
        *("index", "build", sample_folder, "-g", gallery, "-m", stored_model),
        *("--engine", "openvino"),
    )
    assert built.status == 0, built.err
    found = medcli("search", query, "-g", gallery, "-k", "1", "--json")  # ONNX Runtime
    assert found.json[0]["hits"][0]["score"] > 0.9
    assert medcli("index", "verify", "-g", gallery).status == 0


def test_an_engine_that_is_not_there_ends_the_command_before_it_begins(
    medcli: Run,
    sample_folder: Path,
    stored_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("medcli.inference.choice.find_spec", lambda name: None)
    gallery = tmp_path / "gallery"
    done = medcli(
        *("index", "build", sample_folder, "-g", gallery, "-m", stored_model),
        *("--engine", "openvino"),
    )
    assert done.status == 2
    assert "OpenVINO is not installed" in done.err
    assert "pip install 'medcli[openvino]'" in done.err
    assert not gallery.exists()
