"""How doubt reaches the user: label sets and sites, in JSON, table and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medcli.config import Calibration
from medcli.evaluation.out_of_distribution import Reference
from medcli.models.package import ModelPackage

Run = Callable[..., Any]
Make = Callable[..., ModelPackage]


@pytest.mark.parametrize(
    ("levels", "label_set", "uncertain"),
    [
        ((0.0, 0.0), ["benign", "malignant"], True),
        ((1.0, 0.0), ["malignant"], False),
        ((1.0, 1.0), [], True),
        (None, None, None),
    ],
)
def test_an_answer_is_uncertain_unless_one_class_is_left(
    medcli: Run,
    make_package: Make,
    sample_folder: Path,
    tmp_path: Path,
    levels: tuple[float, float] | None,
    label_set: list[str] | None,
    uncertain: bool | None,
) -> None:
    calibration = Calibration(label_set_levels=levels)
    package = make_package(tmp_path / "model", calibration=calibration)
    arguments = ("classify", sample_folder / "scan.dcm", "-m", package.path)
    (answer,) = medcli(*arguments, "--json").json
    assert (answer["label_set"], answer["uncertain"]) == (label_set, uncertain)
    table = medcli(*arguments, "--csv", tmp_path / "table.csv")
    assert ("uncertain" in table.out) is bool(uncertain)
    (row,) = csv.DictReader(io.StringIO((tmp_path / "table.csv").read_text()))
    assert row["label_set"] == "|".join(label_set or [])
    assert row["uncertain"] == ("" if uncertain is None else str(uncertain).lower())


def test_a_foreign_scan_is_marked_and_still_answered(
    medcli: Run, make_package: Make, sample_folder: Path, tmp_path: Path
) -> None:
    far = Reference({"layout": np.full(64, 9, "f4")}, {"layout": np.eye(64, dtype="f4")})
    package = make_package(tmp_path / "model", reference=far)
    (measured,) = medcli("evaluate", package.path, sample_folder / "nodule.csv", "--json").json
    assert measured["out_of_distribution"] == 1
    arguments = ("classify", sample_folder / "scan.dcm", "-m", package.path)
    done = medcli(*arguments, "--json")
    (answer,) = done.json
    assert done.status == 0
    assert answer["out_of_distribution"] is True
    assert answer["ood_score"] > 60
    assert answer["label"] in answer["probabilities"]
    table = medcli(*arguments, "--csv", tmp_path / "table.csv")
    assert "out of" in table.out
    assert "distribution" in table.out
    (row,) = csv.DictReader(io.StringIO((tmp_path / "table.csv").read_text()))
    assert row["out_of_distribution"] == "true"
    assert float(row["ood_score"]) == pytest.approx(answer["ood_score"], abs=0.001)


def test_evaluate_measures_the_label_sets_and_each_site(
    medcli: Run, make_package: Make, sample_folder: Path, tmp_path: Path
) -> None:
    manifest = sample_folder / "nodule.csv"
    package = make_package(tmp_path / "m", calibration=Calibration(label_set_levels=(0.0, 1.0)))
    (answer,) = medcli("evaluate", package.path, manifest, "--json").json
    assert set(answer["per_site"]) == {"site-a", "site-b"}
    assert answer["label_sets"]["per_class"] == {"benign": 1, "malignant": 0}
    assert (answer["label_sets"]["target"], answer["label_sets"]["one"]) == (0.9, 1)
    table = medcli("evaluate", package.path, manifest).out
    for told in ("site site-a", "site site-b", "PPV", "NPV", "AUROC, DeLong", "label sets, 0.9"):
        assert told in table


def test_without_sites_and_label_sets_evaluate_has_none(
    medcli: Run, make_package: Make, sample_folder: Path, tmp_path: Path
) -> None:
    manifest = tmp_path / "nodule.csv"
    text = (sample_folder / "nodule.csv").read_text()
    manifest.write_text(text.replace("site", "hall").replace("ct/", f"{sample_folder}/ct/"))
    package = make_package(tmp_path / "m")
    (answer,) = medcli("evaluate", package.path, manifest, "--json").json
    assert answer["per_site"] is answer["label_sets"] is answer["out_of_distribution"] is None
