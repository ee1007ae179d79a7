"""What programs read: the fields of every object, on stdout and nowhere else."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image

COMMON = {"path", "scan_id", "files", "status", "warnings", "error"}
CLASSIFY = COMMON | {
    *("task", "label", "probability", "probabilities", "positive", "uncertain", "label_set"),
    *("task_probabilities", "task_ood_scores", "labels"),
    *("out_of_distribution", "ood_score", "synthetic", "model"),
}
SEARCH = COMMON | {
    *("query", "query_slice", "hits", "vote", "vote_ci", "contrast", "no_good_match"),
    *("gallery", "synthetic"),
}
HIT = {
    *("rank", "id", "path", "score", "label", "patient", "modality", "slice", "file"),
    *("view", "percentile", "study", "days"),
}
EVALUATE = {
    *("task", "classes", "positive", "n", "n_patients", "split", "auroc", "auroc_ci"),
    *("accuracy", "accuracy_ci", "sensitivity", "specificity", "threshold"),
    *("average_precision", "ece", "ece_by_chance", "brier", "confusion", "per_class", "baselines"),
    *("auroc_variance", "auroc_ci_delong", "ppv", "npv", "per_site", "label_sets"),
    *("out_of_distribution", "router_accuracy"),
}
RETRIEVAL = {
    *("n_queries", "n_gallery", "map_at_5", "map_at_5_strict", "mmv_at_5", "acc_at_1"),
    *("acc_at_5", "precision_at_10", "recall_at_10", "chance", "ci", "macro", "per_class"),
    *("baselines", "shortcuts", "compare", "ann_recall_at_10"),
}
Run = Callable[..., Any]


@pytest.fixture
def mixed(sample_folder: Path, tmp_path: Path) -> Path:
    """A folder with a series, a picture, a text, and a file that is only named like an image."""
    folder = tmp_path / "mixed"
    shutil.copytree(sample_folder / "ct" / "SYN-0001-1", folder / "ct")
    shutil.copy(sample_folder / "query.png", folder / "query.png")
    (folder / "notes.txt").write_text("mine")
    (folder / "broken.png").write_bytes((sample_folder / "query.png").read_bytes()[:200])
    return folder


def test_classify_gives_the_fields_of_the_contract(
    medcli: Run, model: Any, sample_folder: Path
) -> None:
    done = medcli("classify", sample_folder / "scan.dcm", "--json")
    (answer,) = done.json
    assert done.status == 0
    assert set(answer) == CLASSIFY
    assert answer["path"] == str(sample_folder / "scan.dcm")
    assert answer["files"] == [str(sample_folder / "scan.dcm")]
    assert answer["model"] == model.fingerprint
    assert answer["task"] == "nodule"
    assert answer["positive"] == "malignant"
    assert answer["synthetic"] is False
    assert answer["error"] is None
    assert sum(answer["probabilities"].values()) == pytest.approx(1)
    best = max(answer["probabilities"], key=answer["probabilities"].__getitem__)
    assert (answer["label"], answer["probability"]) == (best, answer["probabilities"][best])


def test_every_file_is_accounted_for_and_the_order_is_that_of_the_inputs(
    medcli: Run, model: Any, mixed: Path, sample_folder: Path
) -> None:
    done = medcli("classify", "none.dcm", mixed, sample_folder / "scan.dcm", "--json")
    assert done.status == 3
    assert [
        (Path(a["path"]).name, a["status"], (a["error"] or {}).get("code")) for a in done.json
    ] == [
        ("none.dcm", "failed", "not_found"),
        ("broken.png", "failed", "truncated"),
        ("notes.txt", "skipped", "not_an_image"),
        ("query.png", "ok", None),
        ("ct", "ok", None),
        ("scan.dcm", "ok", None),
    ]
    answered = {file for answer in done.json for file in answer["files"]}
    assert {str(file) for file in mixed.rglob("*") if file.is_file()} <= answered
    assert all(set(answer) >= COMMON for answer in done.json)
    assert len(done.errors) == 2


def test_a_csv_has_a_line_for_every_input(medcli: Run, model: Any, mixed: Path) -> None:
    done = medcli("classify", mixed, "none.dcm", "--csv", "table.csv")
    assert done.status == 3
    rows = list(csv.DictReader(io.StringIO(Path("table.csv").read_text())))
    assert [(Path(row["path"]).name, row["status"], row["error"]) for row in rows] == [
        ("broken.png", "failed", "truncated"),
        ("notes.txt", "skipped", "not_an_image"),
        ("query.png", "ok", ""),
        ("ct", "ok", ""),
        ("none.dcm", "failed", "not_found"),
    ]
    assert float(rows[2]["p_benign"]) + float(rows[2]["p_malignant"]) == pytest.approx(1, abs=1e-5)
    assert rows[2]["model"] == model.fingerprint


def test_names_come_from_stdin_and_from_patterns(
    medcli: Run, model: Any, sample_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{sample_folder / 'query.png'}\n\n"))
    done = medcli("classify", "-", sample_folder / "sc*.dcm", "--json")
    assert [Path(answer["path"]).name for answer in done.json] == ["query.png", "scan.dcm"]


def test_search_gives_the_fields_of_the_contract(
    medcli: Run, archive: Path, model: Any, sample_folder: Path
) -> None:
    done = medcli("search", sample_folder / "query.png", "none.png", "-k", "3", "--json")
    answer, failure = done.json
    assert done.status == 3
    assert set(failure) == COMMON | {"query"}
    assert set(answer) == SEARCH
    assert [hit["rank"] for hit in answer["hits"]] == [1, 2, 3]
    assert all(set(hit) == HIT for hit in answer["hits"])
    scores = [hit["score"] for hit in answer["hits"]]
    assert scores == sorted(scores, reverse=True)
    assert sum(answer["vote"].values()) == pytest.approx(1)
    assert answer["gallery"] == {
        "path": str(archive.resolve()),
        "generation": 1,
        "fingerprint": model.fingerprint,
    }
    assert failure["error"]["code"] == "not_found"


def test_a_picture_finds_its_series_and_slice(
    medcli: Run, archive: Path, sample_folder: Path
) -> None:
    (answer,) = medcli("search", sample_folder / "query.png", "--json").json
    first = answer["hits"][0]
    assert Path(first["path"]).name == "SYN-0001-1"
    assert first["score"] > 0.99
    source = pydicom.dcmread(first["file"])
    hu = source.pixel_array * float(source.RescaleSlope) + float(source.RescaleIntercept)
    windowed = np.clip((hu + 600) / 1500 + 0.5, 0, 1) * 255
    assert np.abs(windowed - np.asarray(Image.open(sample_folder / "query.png"))).max() <= 1
    positions = [
        float(pydicom.dcmread(file).ImagePositionPatient[2])
        for file in Path(first["path"]).iterdir()
    ]
    assert sorted(positions)[first["slice"]] == float(source.ImagePositionPatient[2])


def test_the_own_patient_is_left_out_unless_asked_for(
    medcli: Run, archive: Path, sample_folder: Path
) -> None:
    series = sample_folder / "ct" / "SYN-0003-1"
    strangers = medcli("search", series, "-k", "20", "--json").json[0]["hits"]
    everyone = medcli("search", series, "-k", "20", "--same-patient", "--json").json[0]["hits"]
    assert {Path(hit["path"]).name for hit in everyone} - {
        Path(hit["path"]).name for hit in strangers
    } == {"SYN-0003-2"}


def test_evaluate_gives_the_fields_of_the_contract(
    medcli: Run, model: Any, sample_folder: Path
) -> None:
    done = medcli("evaluate", "latest", sample_folder / "nodule.csv", "--json")
    (answer,) = done.json
    assert done.status == 0
    assert set(answer) >= EVALUATE
    assert answer["split"] == "all"
    assert sum(map(sum, answer["confusion"])) == answer["n"]
    assert answer["failures"] == []


def test_evaluate_counts_what_could_not_be_read(
    medcli: Run, model: Any, sample_folder: Path, tmp_path: Path
) -> None:
    rows = (sample_folder / "nodule.csv").read_text().splitlines()
    manifest = tmp_path / "part.csv"
    manifest.write_text(
        "\n".join(
            [rows[0], *(str(sample_folder / row) for row in rows[1:]), "gone.dcm,benign,P,x,CT,,"]
        )
    )
    done = medcli("evaluate", model.path, manifest, "--json")
    assert done.status == 3
    assert [failure["error"]["code"] for failure in done.json[0]["failures"]] == ["not_found"]
    assert done.json[0]["n"] == len(rows) - 1


def test_evaluate_of_a_gallery_gives_the_fields_of_the_contract(
    medcli: Run, archive: Path, sample_folder: Path
) -> None:
    done = medcli("evaluate", "latest", sample_folder / "nodule.csv", "-g", archive, "--json")
    (answer,) = done.json
    assert done.status == 0
    assert set(answer) >= RETRIEVAL
    assert answer["n_queries"] == answer["n_gallery"]


def test_index_build_and_add_count_and_name_failures(
    medcli: Run, model: Any, mixed: Path, sample_folder: Path
) -> None:
    (built,) = medcli("index", "build", mixed, "-g", "g", "--json").json
    assert built["gallery"] == "g"
    counts = {name: built[name] for name in ("added", "updated", "unchanged", "failed", "skipped")}
    assert counts == {"added": 2, "updated": 0, "unchanged": 0, "failed": 1, "skipped": 1}
    assert [Path(each["path"]).name for each in built["failures"]] == ["broken.png", "notes.txt"]
    (added,) = medcli(
        "index", "add", mixed / "ct", sample_folder / "scan.dcm", "-g", "g", "--json"
    ).json
    assert (added["added"], added["unchanged"]) == (1, 1)
    (info,) = medcli("index", "info", "-g", "g", "--json").json
    assert info["scans"] == 3


def test_adding_twice_changes_nothing(medcli: Run, archive: Path, sample_folder: Path) -> None:
    done = medcli("index", "add", sample_folder / "nodule.csv")
    assert done.status == 0
    assert "8 unchanged" in done.err
    assert medcli("index", "info", "--json").json[0]["generation"] == 1


def test_a_series_in_the_folders_of_two_classes_is_named(
    medcli: Run, model: Any, sample_folder: Path, tmp_path: Path
) -> None:
    for number, path in enumerate(sorted((sample_folder / "ct" / "SYN-0001-1").iterdir())):
        folder = tmp_path / "classes" / ("benign", "malignant")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder)
    done = medcli("index", "build", tmp_path / "classes", "-g", "g", "--labels", "folder")
    assert done.status == 0
    assert "label_unclear" in done.err
    assert medcli("index", "info", "-g", "g", "--json").json[0]["unlabelled"] == 1


def test_labels_come_from_the_manifest_or_from_class_folders(
    medcli: Run, archive: Path, model: Any, sample_folder: Path, tmp_path: Path
) -> None:
    (info,) = medcli("index", "info", "--json").json
    assert info["classes"] == {"benign": 4, "malignant": 4}
    for label in ("smooth", "spiculated"):
        (tmp_path / "classes" / label).mkdir(parents=True)
        shutil.copy(sample_folder / "query.png", tmp_path / "classes" / label / f"{label}.png")
    medcli("index", "build", tmp_path / "classes", "-g", "plain")
    medcli("index", "build", tmp_path / "classes", "-g", "named", "--labels", "folder")
    assert medcli("index", "info", "-g", "plain", "--json").json[0]["unlabelled"] == 2
    assert medcli("index", "info", "-g", "named", "--json").json[0]["classes"] == {
        "smooth": 1,
        "spiculated": 1,
    }
