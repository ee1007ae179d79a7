"""`medcli detect`, and what trains and measures a detector."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medcli.models.package import DETECTION_FORMAT, FORMAT_VERSION, MODEL_JSON, load_package

Run = Callable[..., Any]


def test_boxes_are_in_pixels_of_the_original(
    medcli: Run, detector_run: Path, disc_folder: Path
) -> None:
    done = medcli("detect", disc_folder / "2.png", "-m", detector_run, "--score", "0", "--json")
    assert done.status == 0
    (found,) = done.json
    assert found["status"] == "ok"
    assert found["task"] == "disc-detection"
    assert found["boxes"]
    assert len(found["lesions"]) == len(found["boxes"])  # one slice joins nothing
    for box in found["boxes"]:
        assert 0 <= box["x0"] < box["x1"] <= 64
        assert 0 <= box["y0"] < box["y1"] <= 64
        assert (box["slice"], box["label"]) == (0, "disc")
    scores = [box["score"] for box in found["boxes"]]
    assert scores == sorted(scores, reverse=True)


def test_each_lesion_has_its_hits_below_the_boxes(
    medcli: Run, detector_run: Path, disc_folder: Path, archive: Path
) -> None:
    command = ("detect", disc_folder / "2.png", "-m", detector_run, "--search", archive)
    done = medcli(*command, "--score", "0")
    assert done.status == 0, done.err
    lesions = [line for line in done.out.splitlines() if "lesion " in line and " of " in line]
    assert lesions
    assert all(line.startswith("lesion ") for line in lesions)
    found = medcli(*command, "--score", "0", "--json").json[0]["lesions"]
    assert len(found) == len(lesions)
    assert all(lesion["hits"] for lesion in found)


def test_nothing_found_is_an_answer(medcli: Run, detector_run: Path, disc_folder: Path) -> None:
    command = ("detect", disc_folder / "0.png", "-m", detector_run, "--score", "1")
    done = medcli(*command, "--json")
    assert done.status == 0
    assert done.json[0]["boxes"] == []
    assert "nothing found" in medcli(*command).out


def test_a_bad_file_does_not_stop_the_others(
    medcli: Run, detector_run: Path, disc_folder: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes((disc_folder / "0.png").read_bytes()[:200])
    done = medcli("detect", broken, disc_folder / "1.png", "-m", detector_run, "--json")
    assert done.status == 3
    assert [each["status"] for each in done.json] == ["failed", "ok"]


def test_what_is_written_can_be_read_back(
    medcli: Run, detector_run: Path, disc_folder: Path, tmp_path: Path
) -> None:
    files = {name: tmp_path / f"out.{name}" for name in ("png", "csv", "json")}
    done = medcli(
        *("detect", disc_folder / "2.png", "-m", detector_run, "--score", "0"),
        *("-o", files["png"], "--csv", files["csv"], "--coco", files["json"]),
    )
    assert done.status == 0
    with files["csv"].open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    written = json.loads(files["json"].read_text())
    assert len(rows) == len(written["annotations"]) > 0
    first, annotation = rows[0], written["annotations"][0]
    x, y, wide, high = annotation["bbox"]
    assert [float(first[n]) for n in ("x0", "y0")] == [x, y]
    assert float(first["x1"]) == pytest.approx(x + wide, abs=0.11)
    assert float(first["y1"]) == pytest.approx(y + high, abs=0.11)
    assert written["images"] == [
        {"id": 1, "file_name": "2.png", "height": 64, "width": 64, "slice": 0}
    ]
    with Image.open(files["png"]) as picture:
        drawn = np.asarray(picture.convert("RGB")).astype(int)
    assert (np.ptp(drawn, axis=2) > 100).any()  # frames are in colour, the picture is grey
    again = medcli("detect", disc_folder / "2.png", "-m", detector_run, "-o", files["png"])
    assert again.status == 2


def test_a_table_of_nothing_has_its_header(
    medcli: Run, detector_run: Path, disc_folder: Path, tmp_path: Path
) -> None:
    table = tmp_path / "none.csv"
    medcli("detect", disc_folder / "0.png", "-m", detector_run, "--score", "1", "--csv", table)
    assert table.read_text().startswith("path,label,slice,x0,y0,x1,y1,score,lesion")


def test_hidden_paths_stay_hidden(
    medcli: Run, detector_run: Path, disc_folder: Path, tmp_path: Path
) -> None:
    secret = tmp_path / "Miller-John.png"
    shutil.copy(disc_folder / "2.png", secret)
    coco, table = tmp_path / "coco.json", tmp_path / "boxes.csv"
    done = medcli(
        *("detect", secret, "-m", detector_run, "--score", "0", "--hide-paths"),
        *("--coco", coco, "--csv", table),
    )
    everything = done.out + done.err + coco.read_text() + table.read_text()
    assert "Miller" not in everything


def test_a_series_is_searched_slice_by_slice(
    medcli: Run, detector_run: Path, sample_folder: Path
) -> None:
    series = next(path for path in sorted((sample_folder / "ct").iterdir()) if path.is_dir())
    done = medcli("detect", series, "-m", detector_run, "--score", "0", "--json")
    assert done.status == 0
    slices = {box["slice"] for box in done.json[0]["boxes"]}
    assert len(slices) > 1
    lesions = done.json[0]["lesions"]
    assert sum(lesion["boxes"] for lesion in lesions) == len(done.json[0]["boxes"])


def test_a_detector_is_measured_on_boxes(
    medcli: Run, detector_run: Path, disc_folder: Path
) -> None:
    done = medcli("evaluate", detector_run, disc_folder / "boxes.csv", "--json")
    assert done.status == 0
    (metrics,) = done.json
    assert {"ap50", "ap50_95", "n_images", "n_boxes", "ci"} <= set(metrics)
    assert set(metrics["recall_at_fppi"]) == {"1", "4", "8"}
    own = load_package(detector_run, "detection").metrics
    assert metrics["split"] == "held-out"
    assert metrics["ap50"] == pytest.approx(own["ap50"])
    assert metrics["n_images"] == own["n_images"]
    assert "AP50" in medcli("evaluate", detector_run, disc_folder / "boxes.csv").out


def test_new_scans_of_training_patients_are_refused(
    medcli: Run, detector_run: Path, disc_folder: Path, tmp_path: Path
) -> None:
    lines = (disc_folder / "boxes.csv").read_text().splitlines()
    every = [f"{line},test" for line in lines[1:]]
    manifest = tmp_path / "all.csv"
    manifest.write_text("\n".join([f"{lines[0]},split", *every]) + "\n")
    for picture in disc_folder.glob("*.png"):
        shutil.copy(picture, tmp_path)
    done = medcli("evaluate", detector_run, manifest)
    assert done.status == 2
    assert "trained on" in done.errors[0]
    assert medcli("evaluate", detector_run, manifest, "--allow-overlap").status == 0


@pytest.mark.parametrize("command", ["classify", "explain"])
def test_a_detector_gives_no_class(
    medcli: Run, detector_run: Path, disc_folder: Path, command: str
) -> None:
    done = medcli(command, disc_folder / "0.png", "-m", detector_run)
    assert done.status == 2
    assert "finds boxes" in done.errors[0]


def test_a_classifier_finds_no_boxes(
    medcli: Run, make_package: Run, disc_folder: Path, tmp_path: Path
) -> None:
    make_package(tmp_path / "classifier")
    done = medcli("detect", disc_folder / "0.png", "-m", tmp_path / "classifier")
    assert done.status == 2
    assert "finds no boxes" in done.errors[0]


def test_without_a_detector_the_way_to_one_is_named(medcli: Run, disc_folder: Path) -> None:
    done = medcli("detect", disc_folder / "0.png")
    assert done.status == 2
    assert "--task NAME-detection" in done.err


def test_the_newest_detector_and_the_newest_classifier_are_found_apart(
    medcli: Run, home: Path, detector_run: Path, make_package: Run, disc_folder: Path
) -> None:
    (home / "runs").mkdir(parents=True)
    shutil.copytree(detector_run, home / "runs" / "discs")
    make_package(home / "runs" / "nodules")
    found = medcli("detect", disc_folder / "0.png", "--json").json[0]
    classified = medcli("classify", disc_folder / "0.png", "--json").json[0]
    assert found["model"] == load_package(detector_run, "detection").fingerprint
    assert classified["model"] != found["model"]
    listed = medcli("models", "list").out
    assert "AP50" in listed
    assert "disc-detection" in listed


def test_an_older_reader_is_told_by_the_format(detector_run: Path, tmp_path: Path) -> None:
    values = json.loads((detector_run / MODEL_JSON).read_text())
    assert values["format_version"] == DETECTION_FORMAT > FORMAT_VERSION
    assert values["kind"] == "detection"


def test_a_detector_travels_as_a_package(
    medcli: Run, detector_run: Path, disc_folder: Path, tmp_path: Path
) -> None:
    assert medcli("models", "export", detector_run, "-o", tmp_path / "copy").status == 0
    done = medcli("detect", disc_folder / "0.png", "-m", tmp_path / "copy", "--json")
    assert done.status == 0
    refused = medcli("models", "export", detector_run, "-o", tmp_path / "graph.onnx")
    assert refused.status == 2
    assert "two graphs" in refused.errors[0]
    assert "AP50" in medcli("models", "show", detector_run).out


@pytest.mark.parametrize("option", [("--folds", "3"), ("--positive", "disc"), ("--mixup", "0.2")])
def test_options_that_a_detector_does_not_know_are_refused(
    medcli: Run, disc_folder: Path, option: tuple[str, str]
) -> None:
    done = medcli("train", disc_folder / "boxes.csv", "--task", "disc-detection", *option)
    assert done.status == 2
    assert option[0] in done.errors[0]


def test_a_manifest_without_boxes_teaches_no_detector(medcli: Run, sample_folder: Path) -> None:
    done = medcli("train", sample_folder / "nodule.csv", "--task", "nodule-detection")
    assert done.status == 2
    assert "no column 'x0'" in done.errors[0]
