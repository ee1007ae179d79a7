"""A film with several findings, from the manifest to the answer."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score

from medcli.config import ModelConfig
from medcli.models.held_out import read_held_out
from medcli.models.package import CARD, ModelPackage, load_package
from medcli.training.request import TrainRequest
from medcli.training.run import train

pytestmark = pytest.mark.usefixtures("one_thread")
Run = Callable[..., Any]
FINDINGS = ("edema", "effusion", "mass")
CORNERS = (np.s_[:6, :6], np.s_[-6:, -6:], np.s_[:6, -6:])


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures with a bright corner for each of three findings, and their manifest."""
    folder = tmp_path_factory.mktemp("films")
    rng = np.random.default_rng(0)
    with (folder / "manifest.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "label", "patient_id"])
        for number in range(60):
            pixels = rng.integers(0, 90, (16, 16))
            held = rng.random(3) < [0.5, 0.4, 0.3]
            for corner, there in zip(CORNERS, held, strict=True):
                pixels[corner] += 150 * there
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
            names = [name for name, there in zip(FINDINGS, held, strict=True) if there]
            writer.writerow([f"{number}.png", "|".join(names) or "none", number // 2])
    return folder


@pytest.fixture(scope="module")
def package(films: Path, tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return train(
            TrainRequest(
                inputs=(str(films),),
                task="chest",
                output=tmp_path_factory.mktemp("runs") / "chest",
                size=16,
                epochs=30,
                model=ModelConfig(arch="cnn_lrn", aggregator="mean"),
            )
        )
    finally:
        torch.set_num_threads(threads)


def test_the_run_knows_each_finding(package: ModelPackage) -> None:
    assert load_package(package.path) == package
    assert package.task.multi_label
    assert package.task.classes == FINDINGS
    assert len(package.task.thresholds or ()) == len(package.calibration.platt or ()) == 3
    assert package.metrics["auroc"] > 0.9
    assert set(package.metrics["baselines"]) == {"thumbnail", "histogram"}
    rows = package.provenance["split"]
    assert set(rows[0]["per_class"]) == {*FINDINGS, "none"}
    card = (package.path / CARD).read_text()
    assert all(f"| {name} | " in card for name in FINDINGS)
    assert "a scale and an offset for each finding" in card
    assert "Label sets" not in card


def test_an_answer_names_the_findings_that_reach_their_thresholds(
    medcli: Run, films: Path, package: ModelPackage
) -> None:
    done = medcli("classify", films / "manifest.csv", "-m", package.path, "--json")
    assert done.status == 0
    thresholds = dict(zip(FINDINGS, package.task.thresholds or (), strict=True))
    kinds = set()
    for answer in done.json:
        shares = answer["probabilities"]
        there = [name for name in FINDINGS if shares[name] >= thresholds[name]]
        assert answer["labels"] == there
        assert answer["label"] == (max(there, key=shares.get) if there else None)
        assert answer["probability"] == (shares[answer["label"]] if there else None)
        assert answer["uncertain"] is answer["label_set"] is answer["positive"] is None
        kinds.add(len(there))
    assert kinds >= {0, 1, 2}


def test_the_table_and_the_csv_name_them_too(
    medcli: Run, films: Path, package: ModelPackage, tmp_path: Path
) -> None:
    table = tmp_path / "table.csv"
    done = medcli("classify", films / "manifest.csv", "-m", package.path, "--csv", table)
    assert "no finding" in done.out
    answers = medcli("classify", films / "manifest.csv", "-m", package.path, "--json").json
    with table.open(newline="") as stream:
        for row, answer in zip(csv.DictReader(stream), answers, strict=True):
            assert row["labels"] == "|".join(answer["labels"])
            assert row["label"] == (answer["label"] or "")
            assert row["probability"] == ("" if not answer["labels"] else row["probability"])
            assert float(row["p_mass"]) == pytest.approx(answer["probabilities"]["mass"], abs=1e-6)


def test_evaluation_repeats_the_numbers_of_the_run(
    medcli: Run, films: Path, package: ModelPackage
) -> None:
    (found,) = medcli("evaluate", package.path, films, "--json").json
    for name in ("n", "n_patients", "exact", "confusion", "out_of_distribution", "baselines"):
        assert found[name] == package.metrics[name], name
    for name in ("auroc", "sensitivity", "specificity", "average_precision", "brier"):
        assert found[name] == pytest.approx(package.metrics[name], abs=1e-5), name
    assert found["per_class"]["mass"]["n"] == package.metrics["per_class"]["mass"]["n"]
    shown = medcli("evaluate", package.path, films).out
    assert "every finding right" in shown
    assert all(name in shown for name in FINDINGS)


def test_a_run_of_findings_becomes_a_page(medcli: Run, package: ModelPackage) -> None:
    assert medcli("report", package.path, "-o", "run.html").status == 0
    page = Path("run.html").read_text()
    assert page.count("<svg") == 4  # three curves and the baselines
    answers = read_held_out(package)
    assert answers is not None
    for f, (name, own) in enumerate(package.metrics["per_class"].items()):
        area = roc_auc_score(answers.labels[:, f], answers.probabilities[:, f])
        assert own["auroc"] == pytest.approx(area)
        assert f'<bdi>{name}</bdi></th><td class="figure">{own["n"]}</td>' in page
        assert f"{own['threshold']:.3f}" in page
    assert "Every finding right" in page
    assert "Confusion" not in page


def test_a_browser_opens_the_page_of_findings_without_an_error_or_a_request(
    medcli: Run, package: ModelPackage, open_in_browser: Callable[[str], str]
) -> None:
    assert medcli("report", package.path, "-o", "run.html").status == 0
    assert "Per finding" in open_in_browser(Path("run.html").read_text())


def test_an_evaluation_of_findings_shows_what_was_missed(
    medcli: Run, films: Path, package: ModelPackage, tmp_path: Path
) -> None:
    turned = tmp_path / "turned.csv"
    with (films / "manifest.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))[:20]
    for row in rows:
        row |= {"path": str(films / row["path"]), "split": "test"}
        row["label"] = "edema" if row["label"] == "none" else "none"
    with turned.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    done = medcli(
        *("evaluate", package.path, turned, "--allow-overlap", "--json"),
        *("--report", tmp_path / "page.html"),
    )
    assert done.status == 0
    page = (tmp_path / "page.html").read_text()
    shown = page.count("data:image/jpeg;base64")
    assert shown > 10
    assert f"{shown} of 20 scans have a finding that was decided wrongly" in page
    assert "missed: edema 0." in page
    assert "not there: " in page
    assert done.json[0]["data_fingerprint"] in page
    assert str(films) not in page


def test_a_search_shows_films_without_a_finding(
    medcli: Run, films: Path, package: ModelPackage, tmp_path: Path
) -> None:
    gallery = tmp_path / "gallery"
    assert (
        medcli("index", "build", films / "manifest.csv", "-m", package.path, "-g", gallery).status
        == 0
    )
    page = tmp_path / "page.html"
    done = medcli("search", films / "manifest.csv", "-g", gallery, "--json", "--html", page)
    assert done.status == 0
    assert "At or above its threshold: no finding." in page.read_text()
    assert {"none"} <= {hit["label"] for answer in done.json for hit in answer["hits"]}


def test_what_asks_for_one_class_is_refused(medcli: Run, films: Path, tmp_path: Path) -> None:
    positive = medcli("train", films, "--positive", "mass", "-o", tmp_path / "run")
    assert positive.status == 2
    assert "every finding is one" in positive.errors[0]
    mixed = medcli("train", f"a={films}", f"b={films}", "-o", tmp_path / "run")
    assert mixed.status == 2
    assert "names several findings" in mixed.errors[0]
