"""The options of `medcli train` for optimizer, loss and balance: from the line to the record."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medcli.models.package import CARD, load_package
from medcli.training import writing

Run = Callable[..., Any]


@pytest.fixture
def manifest(home: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """24 pictures of two classes and two sites; nothing is exported."""
    monkeypatch.setattr(writing, "export_onnx", lambda model, path, *_: path.write_bytes(b"x"))
    monkeypatch.setattr(writing, "check_onnx", lambda *_: 0.0)
    with Path("manifest.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "label", "patient_id", "Site"])
        for number in range(24):
            bright = 120 * (number % 2)
            noise = np.random.default_rng(number).integers(0, 90, (16, 16)) + bright
            Image.fromarray(noise.astype(np.uint8)).save(f"{number}.png")
            site = "north" if number % 3 else "south"
            writer.writerow([f"{number}.png", "ab"[number % 2], f"p{number}", site])
    return "manifest.csv"


SHORT = ("--size", "16", "--epochs", "1", "--device", "cpu", "--arch", "cnn_lrn")


def test_every_option_reaches_the_record(medcli: Run, manifest: str) -> None:
    given = {
        **{"optimizer": "sgd", "learning_rate": 0.02, "weight_decay": 0.001},
        **{"backbone_rate": 0.5, "label_smoothing": 0.05, "mixup": 0.2, "imbalance": "sampler"},
        **{"robust_loss": "gce", "metric_loss": "supcon", "metric_weight": 0.3},
    }
    line = [
        text for name, value in given.items() for text in (f"--{name.replace('_', '-')}", value)
    ]
    done = medcli("train", manifest, *SHORT, *map(str, line), "-o", "run")
    assert done.status == 0
    recorded = load_package(Path("run")).provenance["train"]
    assert {name: recorded[name] for name in given} == given
    assert "sgd at 0.02" in done.err


def test_a_domain_is_evened_out_and_reported(medcli: Run, manifest: str) -> None:
    done = medcli("train", manifest, *SHORT, "--domain", "site", "-o", "run")
    assert done.status == 0
    package = load_package(Path("run"))
    assert package.provenance["train"]["domain"] == "site"
    assert set(package.metrics["per_site"]) <= {"north", "south"}
    assert "site evened out" in done.err
    assert "north: " in done.err
    assert "| north | " in (Path("run") / CARD).read_text()


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--optimizer", "adamx", "unknown optimizer 'adamx'"),
        ("--imbalance", "sample", "unknown --imbalance 'sample'"),
        ("--robust-loss", "cge", "unknown --robust-loss 'cge'"),
        ("--metric-loss", "supcom", "unknown --metric-loss 'supcom'"),
        ("--learning-rate", "nan", "--learning-rate nan"),
        ("--label-smoothing", "2", "--label-smoothing 2"),
        ("--domain", "siet", "--domain 'siet'"),
    ],
)
def test_what_cannot_be_is_said_before_the_work(
    medcli: Run, manifest: str, option: str, value: str, said: str
) -> None:
    done = medcli("train", manifest, *SHORT, option, value, "-o", "run")
    assert done.status == 2
    assert said in done.errors[0]
    assert not Path("run").exists()
    if value not in ("nan", "2"):
        assert "id you mean" in done.err


@pytest.mark.parametrize(
    ("options", "columns"),
    [
        ((), None),
        (("--measures",), (0, 2)),
        (("--task", "nodule"), (0, 2)),
        (("--task", "nodule", "--no-measures"), None),
    ],
)
def test_a_regression_on_measures_where_it_is_asked_for_and_for_nodules(
    medcli: Run, manifest: str, options: tuple[str, ...], columns: tuple[int, int] | None
) -> None:
    done = medcli("train", manifest, *SHORT, *options, "-o", "run")
    assert done.status == 0
    package = load_package(Path("run"))
    assert package.model.measured_columns == columns
    assert ("regression on measures" in done.err) == (columns is not None)
    assert ("attention and measures" in (package.path / CARD).read_text()) == (columns is not None)


def test_measures_and_a_network_that_sees_volumes_do_not_go_together(
    medcli: Run, manifest: str
) -> None:
    done = medcli("train", manifest, "--arch", "r3d_18_half", "--measures", "-o", "run")
    assert done.status == 2
    assert "--measures goes with" in done.err
    assert not Path("run").exists()
