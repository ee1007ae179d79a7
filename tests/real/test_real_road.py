"""The whole road on real scans, in a short form; reads the folder named by MEDCLI_TEST_DATA."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medcli.data.gathering import gather_cases
from medcli.evaluation.metrics import classification_metrics
from medcli.imaging.batch import read_all
from medcli.imaging.intensity import apply_window
from medcli.inference.predictor import Predictor
from medcli.models.package import ModelPackage
from medcli.records import Case, Failure, Scan
from medcli.retrieval.query import Wanted
from medcli.training.request import TrainRequest
from medcli.training.run import train
from medcli.workflows.evaluating import evaluate
from medcli.workflows.evaluating_retrieval import evaluate_retrieval
from medcli.workflows.indexing import build_gallery
from medcli.workflows.searching import Answer, open_gallery, search_scans

pytestmark = pytest.mark.real

SETS = {
    "nodule": ("nodule_slices", 60),
    "lung": ("lung_cxr", 120),
    "gi": ("gi_colon_histology", 60),
}
WINDOWS = {"lung": (-600.0, 1500.0), "soft": (40.0, 400.0)}
SERIES = ("dicom/totalsegmentator/example_ct_dicom", "dicom/ct_series_philips/S21570/S2010")


def shortened(source: Path, target: Path, patients: int) -> Path:
    """A manifest of some patients of each class, its paths absolute."""
    with (source / "manifest.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    chosen: set[str] = set()
    for label in sorted({row["label"] for row in rows}):
        ids = sorted({row["patient_id"] for row in rows if row["label"] == label})
        chosen |= set(ids[:: max(1, 2 * len(ids) // patients)])
    kept = [row for row in rows if row["patient_id"] in chosen]
    with target.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows({**row, "path": str(source / row["path"])} for row in kept)
    return target


def quick_run(source: Path, output: Path, task: str) -> ModelPackage:
    request = TrainRequest(inputs=(str(source),), task=task, output=output, size=32, epochs=1)
    return train(request)


@pytest.fixture(scope="module")
def nodule_model(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    folder = tmp_path_factory.mktemp("nodule")
    manifest = shortened(real_data / "nodule_slices", folder / "short.csv", 60)
    request = TrainRequest(inputs=(str(manifest),), task="nodule", output=folder / "run", epochs=3)
    return Predictor(train(request))


@pytest.mark.slow
@pytest.mark.parametrize("task", SETS)
def test_each_set_is_trained_evaluated_indexed_and_searched(
    real_data: Path, tmp_path: Path, task: str
) -> None:
    source, patients = SETS[task]
    manifest = shortened(real_data / source, tmp_path / "short.csv", patients)
    predictor = Predictor(quick_run(manifest, tmp_path / "run", task))
    metrics = evaluate(predictor, [str(manifest)]).metrics
    assert metrics["split"] == "held-out"
    assert metrics["auroc_ci"][0] <= metrics["auroc"] <= metrics["auroc_ci"][1]
    assert sum(map(sum, metrics["confusion"])) == metrics["n"]
    cases = gather_cases([str(manifest)])
    report = build_gallery(tmp_path / "gallery", predictor, cases)
    assert report.stored.added == len(cases)
    retrieval = evaluate_retrieval(predictor, tmp_path / "gallery", [str(manifest)]).metrics
    assert retrieval["n_gallery"] == len(cases)


@pytest.mark.slow
def test_an_archive_keeps_its_own_validation_part(real_data: Path, tmp_path: Path) -> None:
    archive = real_data / "medmnist" / "pneumoniamnist_train_val.npz"
    predictor = Predictor(quick_run(archive, tmp_path / "run", "lung"))
    result = evaluate(predictor, [str(archive)])
    assert (result.metrics["split"], result.metrics["n"]) == ("val", 524)
    assert any("validation" in note for note in result.notes)
    assert result.metrics["auroc"] > 0.8


def test_nodule_size_alone_has_the_published_auroc(real_data: Path) -> None:
    cases = gather_cases([str(real_data / "nodule_slices" / "manifest.csv")])
    areas, labels = [], []
    for case, scan in read_all(cases):
        assert isinstance(case, Case)
        assert isinstance(scan, Scan)
        areas.append((scan.pixels > 0).any(axis=3).sum(axis=(1, 2)).max())
        labels.append(case.label == "malignant")
    scores = np.array(areas) / max(areas)
    metrics = classification_metrics(
        np.array(labels, dtype=int),
        np.stack([1 - scores, scores], axis=1),
        classes=("benign", "malignant"),
        positive="malignant",
        resamples=10,
    )
    assert metrics["auroc"] == pytest.approx(0.88, abs=0.01)


@pytest.mark.slow
def test_a_picture_finds_its_series_and_its_slice(
    real_data: Path, tmp_path: Path, nodule_model: Predictor
) -> None:
    """Pictures without identifiers, through three windows and as JPEG: vectors alone find them."""
    cases = gather_cases([str(real_data / name) for name in SERIES])
    scans = [(case, scan) for case, scan in read_all(cases) if isinstance(scan, Scan)]
    build_gallery(tmp_path / "gallery", nodule_model, cases)
    expected: dict[str, tuple[str, int]] = {}
    for case, scan in scans:
        for number in range(1, len(scan.pixels), 6):
            save_views(scan, number, tmp_path / f"{len(expected)}", expected)
        assert not isinstance(case, Failure)
    gallery, searcher = open_gallery(tmp_path / "gallery")
    with gallery:
        found = list(search_scans(gallery, searcher, gather_cases(list(expected)), Wanted(k=1)))
    missed = []
    for answer, (query, (path, number)) in zip(found, expected.items(), strict=True):
        assert isinstance(answer, Answer)
        hit = answer.result.hits[0]
        if hit.path != path or abs((hit.slice or 0) - number) > 1:
            missed.append((Path(query).name, hit.path, hit.slice, number))
    assert not missed


def save_views(scan: Scan, number: int, stem: Path, expected: dict[str, tuple[str, int]]) -> None:
    """Save one slice as a person would: PNGs through three windows, the first also as JPEG."""
    assert scan.window is not None
    for name, window in {"first": scan.window, **WINDOWS}.items():
        values = apply_window(scan.pixels[number, :, :, 0], *window)
        picture = Image.fromarray(np.rint(values * 255).astype(np.uint8))
        for suffix in (".png", ".jpg") if name == "first" else (".png",):
            path = f"{stem}-{number}-{name}{suffix}"
            picture.save(path)
            expected[path] = (str(Path(scan.path).absolute()), number)
