"""From scans to numbers, galleries and hits, without the command line."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medcli.data.gathering import gather_cases
from medcli.data.sources import load_cases
from medcli.errors import DamagedError, LeakageError, ManifestError, ScanError, UsageError
from medcli.imaging.batch import read_all
from medcli.imaging.display import display_slice
from medcli.imaging.hashing import pixel_sha256
from medcli.inference.predictor import Predictor
from medcli.models.package import ModelPackage, load_package, salted_patient, seal
from medcli.records import Case, Failure, Scan
from medcli.retrieval.query import Wanted
from medcli.workflows import indexing, searching
from medcli.workflows.evaluating import evaluate, given_part
from medcli.workflows.evaluating_retrieval import evaluate_retrieval
from medcli.workflows.indexing import add_to_gallery, build_gallery, thumbnails
from medcli.workflows.searching import Answer, open_gallery, search_scans

Make = Callable[..., ModelPackage]


@pytest.fixture
def predictor(make_package: Make, tmp_path: Path) -> Predictor:
    return Predictor(make_package(tmp_path / "run"))


@pytest.fixture
def gallery(predictor: Predictor, sample_folder: Path, tmp_path: Path) -> Path:
    build_gallery(
        tmp_path / "gallery", predictor, load_cases([str(sample_folder / "nodule.csv")]).cases
    )
    return tmp_path / "gallery"


def scans_of(inputs: list[str]) -> list[Scan]:
    return [scan for _, scan in read_all(gather_cases(inputs)) if isinstance(scan, Scan)]


def with_splits(
    package: ModelPackage, sample_folder: Path, parts: Callable[[str], str]
) -> ModelPackage:
    """The package as if it had been trained on the sample_folder, with patients in `parts`."""
    rows = []
    for case, scan in read_all(load_cases([str(sample_folder / "nodule.csv")]).cases):
        assert isinstance(scan, Scan)
        assert isinstance(case, Case)
        patient = str(case.patient_id)
        hashed = salted_patient(patient, package.patient_salt)
        rows.append([pixel_sha256(scan), hashed, parts(patient)])
    with (package.path / "splits.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["pixel_sha256", "patient", "split"], *rows])
    seal(package.path)
    return load_package(package.path)


# Evaluation


def test_the_accuracy_is_that_of_the_predictions(predictor: Predictor, sample_folder: Path) -> None:
    inputs = [str(sample_folder / "nodule.csv")]
    truth = {case.scan_id: case.label for case in load_cases(inputs).cases}
    answers = list(predictor.predict(scans_of(inputs)))
    right = [answer.label == truth[str(answer.scan_id)] for answer in answers]  # type: ignore[union-attr]
    metrics = evaluate(predictor, inputs).metrics
    assert metrics["accuracy"] == pytest.approx(np.mean(right))
    assert metrics["n"] == len(truth)
    assert metrics["n_patients"] == 6


def test_the_runs_own_held_out_patients_are_evaluated(
    predictor: Predictor, sample_folder: Path
) -> None:
    held_out = ("SYN-0003", "SYN-0004")
    package = with_splits(
        predictor.package, sample_folder, lambda patient: "test" if patient in held_out else "train"
    )
    result = evaluate(Predictor(package), [str(sample_folder / "nodule.csv")])
    assert result.metrics["split"] == "held-out"
    assert result.metrics["n_patients"] == 2
    assert any("held-out" in note for note in result.notes)


def test_another_set_that_numbers_its_patients_alike_is_not_the_runs_own(
    predictor: Predictor, sample_folder: Path
) -> None:
    parts = {"SYN-0003": "test"}
    package = with_splits(predictor.package, sample_folder, lambda p: parts.get(p, "val"))
    splits = package.path / "splits.csv"
    header, *lines = splits.read_text().splitlines()
    others = [f"{number:064x},{line.split(',', 1)[1]}" for number, line in enumerate(lines)]
    splits.write_text("\n".join([header, *others]))
    seal(package.path)
    inputs = [str(sample_folder / "nodule.csv")]
    metrics = evaluate(Predictor(load_package(package.path)), inputs).metrics
    assert (metrics["split"], metrics["n"]) == ("all", 8)
    splits.write_text(splits.read_text().replace(",val", ",train"))
    seal(package.path)
    with pytest.raises(LeakageError, match="have the patient_id of a patient"):
        evaluate(Predictor(load_package(package.path)), inputs)


def test_patients_of_the_training_part_are_refused_unless_allowed(
    predictor: Predictor, sample_folder: Path
) -> None:
    trained = Predictor(with_splits(predictor.package, sample_folder, lambda patient: "train"))
    inputs = [str(sample_folder / "nodule.csv")]
    with pytest.raises(LeakageError, match="8 of 8 scans"):
        evaluate(trained, inputs)
    assert evaluate(trained, inputs, allow_overlap=True).metrics["n"] == 8


def test_the_same_pixels_under_another_name_are_known(
    predictor: Predictor, sample_folder: Path, tmp_path: Path
) -> None:
    trained = Predictor(with_splits(predictor.package, sample_folder, lambda patient: "train"))
    for number, label in ((1, "benign"), (2, "malignant")):
        shutil.copytree(
            sample_folder / "ct" / f"SYN-000{number}-1", tmp_path / "copy" / label / "series"
        )
    rows = [f"copy/{label}/series,{label},X{label}" for label in ("benign", "malignant")]
    (tmp_path / "copy.csv").write_text("\n".join(["path,label,patient_id", *rows]))
    with pytest.raises(LeakageError, match="2 of 2 scans"):
        evaluate(trained, [str(tmp_path / "copy.csv")])


def test_a_copy_of_a_training_picture_is_not_held_out(
    predictor: Predictor, sample_folder: Path, tmp_path: Path
) -> None:
    parts = {"SYN-0003": "test", "SYN-0004": "test"}
    package = with_splits(
        predictor.package, sample_folder, lambda patient: parts.get(patient, "train")
    )
    series = sample_folder / "ct" / "SYN-0001-1"
    (tmp_path / "copy.csv").write_text(f"path,label,patient_id\n{series},benign,SYN-0003\n")
    with pytest.raises(LeakageError, match="1 of 1 scans"):
        evaluate(Predictor(package), [str(tmp_path / "copy.csv")])


def test_pixels_in_two_parts_of_the_run_count_as_trained_on(
    predictor: Predictor, sample_folder: Path, tmp_path: Path
) -> None:
    package = with_splits(predictor.package, sample_folder, lambda patient: "train")
    splits = package.path / "splits.csv"
    lines = splits.read_text().splitlines()
    copies = [f"{line.split(',')[0]},someone,test" for line in lines[1:]]
    splits.write_text("\n".join([*lines, *copies]))
    seal(package.path)
    series = sample_folder / "ct" / "SYN-0001-1"
    (tmp_path / "copy.csv").write_text(f"path,label,patient_id\n{series},benign,X\n")
    with pytest.raises(LeakageError, match="1 of 1 scans"):
        evaluate(Predictor(load_package(package.path)), [str(tmp_path / "copy.csv")])


def test_scans_of_the_runs_validation_part_are_told(
    predictor: Predictor, sample_folder: Path
) -> None:
    package = with_splits(predictor.package, sample_folder, lambda patient: "val")
    result = evaluate(Predictor(package), [str(sample_folder / "nodule.csv")])
    assert any("8 of 8 scans come from the run's validation part" in note for note in result.notes)


def test_queries_with_labels_that_the_gallery_lacks_are_told(
    gallery: Path, predictor: Predictor, sample_folder: Path, tmp_path: Path
) -> None:
    series = sample_folder / "ct"
    manifest = tmp_path / "queries.csv"
    manifest.write_text(f"path,label\n{series / 'SYN-0001-1'},polyp\n")
    with pytest.raises(ManifestError, match="polyp"):
        evaluate_retrieval(predictor, gallery, [str(manifest)])
    with manifest.open("a") as file:
        file.write(f"{series / 'SYN-0002-1'},malignant\n")
    result = evaluate_retrieval(predictor, gallery, [str(manifest)])
    assert any("1 of 2 queries" in note for note in result.notes)


def test_retrieval_is_measured_on_the_runs_own_held_out_patients(
    predictor: Predictor, sample_folder: Path, tmp_path: Path
) -> None:
    parts = {"SYN-0003": "test", "SYN-0004": "test"}
    package = with_splits(predictor.package, sample_folder, lambda p: parts.get(p, "train"))
    known, inputs = Predictor(package), [str(sample_folder / "nodule.csv")]
    build_gallery(tmp_path / "gallery", known, gather_cases(inputs))
    result = evaluate_retrieval(known, tmp_path / "gallery", inputs)
    held_out = [c for c in load_cases(inputs).cases if c.patient_id in parts]
    assert result.metrics["split"] == "held-out"
    assert result.metrics["n_queries"] == len(held_out)
    assert result.metrics["n_gallery"] == 8
    assert any("held-out" in note for note in result.notes)


def test_a_label_that_the_model_does_not_know_is_named(
    make_package: Make, tmp_path: Path, sample_folder: Path
) -> None:
    lung = Predictor(make_package(tmp_path / "lung", classes=("normal", "pneumonia")))
    with pytest.raises(ManifestError, match="'benign'") as refused:
        evaluate(lung, [str(sample_folder / "nodule.csv")])
    assert "--classes" not in refused.value.hint  # `evaluate` has no such option


def test_the_test_part_is_taken_else_all() -> None:
    case = Case("a", ("a",), "picture", "a")
    parts = [replace(case, split=part) for part in ("train", "val", "test")]
    assert given_part(parts) == ([parts[2]], "test")
    assert given_part(parts[:2]) == (parts[:2], None)
    archive = [replace(part, kind="array") for part in parts]
    assert given_part(archive[:2]) == ([archive[1]], "val")


# Galleries


def test_failures_are_told_as_they_come_and_the_others_go_on(
    predictor: Predictor, sample_folder: Path, tmp_path: Path
) -> None:
    told: list[Failure] = []
    cases = gather_cases(["gone.png", str(sample_folder / "query.png")])
    report = build_gallery(tmp_path / "g", predictor, cases, on_failure=told.append)
    assert report.stored.added == 1
    assert [failure.code for failure in report.failures] == ["not_found"]
    assert tuple(told) == report.failures


def test_nothing_readable_makes_no_gallery_and_keeps_an_old_one(
    predictor: Predictor, gallery: Path, tmp_path: Path
) -> None:
    missing = gather_cases(["gone.png"])
    for path, overwrite in ((tmp_path / "new", False), (gallery, True)):
        with pytest.raises(ScanError, match=r"gone\.png"):
            build_gallery(path, predictor, missing, overwrite=overwrite)
    assert not (tmp_path / "new").exists()
    opened, _ = open_gallery(gallery)
    with opened:
        assert opened.info()["scans"] == 8


def test_two_scans_of_one_number_in_two_manifests_are_two_scans(
    predictor: Predictor, sample_folder: Path, tmp_path: Path
) -> None:
    for name, number in (("one", 1), ("two", 2)):
        (tmp_path / name).mkdir()
        series = sample_folder / "ct" / f"SYN-000{number}-1"
        (tmp_path / name / "m.csv").write_text(f"path,scan_id\n{series},1\n")
    cases = gather_cases([str(tmp_path / name / "m.csv") for name in ("one", "two")])
    assert build_gallery(tmp_path / "g", predictor, cases).stored.added == 2


def test_a_series_that_was_moved_is_not_stored_twice(
    predictor: Predictor, sample_folder: Path, tmp_path: Path
) -> None:
    series = tmp_path / "series"
    shutil.copytree(sample_folder / "ct" / "SYN-0001-1", series)
    build_gallery(tmp_path / "archive", predictor, gather_cases([str(series)]))
    moved = series.rename(tmp_path / "moved")
    opened, own = open_gallery(tmp_path / "archive", write=True)
    with opened:
        report = add_to_gallery(opened, own, gather_cases([str(moved)]))
    assert (report.stored.added, report.stored.unchanged) == (0, 1)


def test_a_gallery_answers_with_its_own_model(
    gallery: Path, predictor: Predictor, sample_folder: Path
) -> None:
    shutil.rmtree(predictor.package.path)
    opened, own = open_gallery(gallery, write=True)
    with opened:
        assert own.package.path == opened.model_dir
        cases = gather_cases([str(sample_folder / "nodule.csv")])
        assert add_to_gallery(opened, own, cases).stored.unchanged == 8


def test_a_gallery_whose_model_was_exchanged_is_damaged(
    gallery: Path, make_package: Make, tmp_path: Path
) -> None:
    other = make_package(tmp_path / "other", seed=5)
    shutil.rmtree(gallery / "model")
    shutil.copytree(other.path, gallery / "model")
    with pytest.raises(DamagedError):
        open_gallery(gallery)


def test_the_range_of_grey_levels_is_found_once_for_all_slices(
    sample_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (scan,) = scans_of([str(sample_folder / "ct" / "SYN-0001-1")])
    scan = replace(scan, window=None, tones=())
    expected = [display_slice(scan, number, edge=64) for number in range(3)]
    calls = []
    from medcli.imaging import display

    whole = display.percentile_range
    monkeypatch.setattr(
        display, "percentile_range", lambda *given: calls.append(1) or whole(*given)
    )
    assert list(thumbnails(scan, range(3), 64)) == [indexing.encode_jpeg(e) for e in expected]
    assert len(calls) == 1


# Search


@pytest.mark.parametrize("together", [1, 2, 32])
def test_every_query_gets_an_answer_in_its_place(
    gallery: Path, sample_folder: Path, together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searching, "_TOGETHER", together)
    opened, own = open_gallery(gallery)
    cases = gather_cases(
        [str(sample_folder / "query.png"), "gone.png", str(sample_folder / "scan.dcm")]
    )
    with opened:
        answers = list(search_scans(opened, own, cases, Wanted(k=2), pictures=True))
    assert [isinstance(answer, Answer) for answer in answers] == [True, False, True]
    first = answers[0]
    assert isinstance(first, Answer)
    assert len(first.result.hits) == 2
    assert first.picture is not None
    assert first.picture.startswith(b"\xff\xd8\xff")


def test_what_comes_before_an_error_is_answered_first(gallery: Path, sample_folder: Path) -> None:
    crops = iter([lambda scan: scan, None])

    def crop(scan: Scan) -> Scan:
        whole = next(crops)
        if whole is None:
            raise UsageError("no such part", "none")
        return whole(scan)

    opened, own = open_gallery(gallery)
    cases = gather_cases([str(sample_folder / "query.png"), str(sample_folder / "scan.dcm")])
    with opened:
        answers = search_scans(opened, own, cases, crop=crop)
        first = next(answers)
        assert isinstance(first, Answer)
        assert first.result.hits
        with pytest.raises(UsageError, match="no such part"):
            next(answers)


def test_a_stored_scan_does_not_find_itself(gallery: Path, sample_folder: Path) -> None:
    opened, own = open_gallery(gallery)
    series = sample_folder / "ct" / "SYN-0001-1"
    with opened:
        (answer,) = search_scans(
            opened, own, gather_cases([str(series)]), Wanted(k=20, same_patient=True)
        )
    assert isinstance(answer, Answer)
    assert str(series) not in {hit.path for hit in answer.result.hits}
    assert len(answer.result.hits) == 7
