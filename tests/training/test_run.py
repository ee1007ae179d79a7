from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from medcli.data.sources import load_cases
from medcli.errors import ManifestError, MedcliError, OutputExistsError, ScanError, UsageError
from medcli.inference.predictor import Predictor
from medcli.models.package import CARD, HISTORY, MODEL_JSON, SPLITS, WEIGHTS, load_package
from medcli.training import preparing, writing
from medcli.training.request import TrainRequest
from medcli.training.run import train
from medcli.workflows.evaluating import evaluate

pytestmark = pytest.mark.usefixtures("one_thread")
PictureManifest = Callable[..., Path]
SIX = ["p1", "p2", "p3", "p4", "p5", "p6"]


def request(manifest: Path, output: Path | None, **more: Any) -> TrainRequest:
    asked = {"size": 16, "epochs": 1, "device": "cpu"} | more
    return TrainRequest((str(manifest),), output=output, **asked)


def split_lines(folder: Path) -> list[dict[str, str]]:
    with (folder / SPLITS).open(newline="") as stream:
        return list(csv.DictReader(stream))


# ---- the run folder ----


def test_a_run_is_a_package_with_exactly_these_files(tiny_run: Path) -> None:
    assert sorted(path.name for path in tiny_run.iterdir()) == [
        "MODEL_CARD.md",
        "graph.onnx",
        "held_out.csv",
        "history.csv",
        "manifest.json",
        "model.json",
        "reference.safetensors",
        "splits.csv",
        "weights.safetensors",
    ]
    package = load_package(tiny_run)
    assert package.task.name == "nodule"
    assert package.task.classes == ("benign", "malignant")
    assert package.task.positive == "malignant"
    assert package.synthetic
    assert [path.name for path in tiny_run.parent.iterdir()] == ["tiny"]


def test_who_may_read_one_file_of_a_run_may_read_all(tiny_run: Path, tmp_path: Path) -> None:
    (tmp_path / "any").touch()
    modes = {path.name: path.stat().st_mode for path in tiny_run.iterdir()}
    assert modes == dict.fromkeys(modes, (tmp_path / "any").stat().st_mode)


def test_provenance_says_how_the_run_came_about(tiny_run: Path) -> None:
    package = load_package(tiny_run)
    provenance = package.provenance
    assert provenance["train"]["seed"] == 0
    assert provenance["train"]["epochs"] == provenance["epochs_run"] == 1
    assert provenance["source"].endswith("/nodule.csv")
    for name in ("medcli", "torch", "torchvision", "numpy"):
        assert provenance["versions"][name] == version(name)
    assert provenance["onnx_difference"] < 1e-3
    assert package.model.arch in (tiny_run / CARD).read_text()


def test_evaluation_repeats_the_numbers_of_the_run(tiny_run: Path, sample_folder: Path) -> None:
    package = load_package(tiny_run)
    found = evaluate(Predictor(package), [str(sample_folder / "nodule.csv")]).metrics
    for name in (
        *("n", "auroc", "auroc_ci", "auroc_ci_delong", "accuracy", "confusion", "sensitivity"),
        *("specificity", "ppv", "npv", "label_sets", "out_of_distribution"),
    ):
        assert found[name] == package.metrics[name], name
    for name in ("thumbnail", "histogram"):
        assert found["baselines"][name] == package.metrics["baselines"][name], name
    for name in ("brier", "ece"):
        assert found[name] == pytest.approx(package.metrics[name], abs=1e-5), name


def test_a_run_is_calibrated_and_says_so(tiny_run: Path) -> None:
    package = load_package(tiny_run)
    temperature, offsets = package.calibration.temperature, package.calibration.offsets
    (task,) = json.loads((tiny_run / MODEL_JSON).read_text())["tasks"]
    assert task["calibration"]["temperature"] == temperature
    assert task["calibration"]["offsets"] == list(offsets or ())
    assert len(package.calibration.label_set_levels or ()) == 2
    assert 0 <= package.metrics["out_of_distribution"] <= 1
    card = (tiny_run / CARD).read_text()
    assert f"one temperature, {temperature:.3f}" in card
    assert f"benign {(offsets or ())[0]:+.3f}" in card


def test_the_split_of_a_run_shares_no_patient(tiny_run: Path, sample_folder: Path) -> None:
    lines = split_lines(tiny_run)
    cases = load_cases([str(sample_folder / "nodule.csv")]).cases
    assert len(lines) == len(cases)
    parts = {line["patient"]: {"train", "val", "test"} & {line["split"]} for line in lines}
    for line in lines:
        assert parts[line["patient"]] == {line["split"]}
        assert re.fullmatch("[0-9a-f]{16}", line["patient"])
        assert re.fullmatch("[0-9a-f]{64}", line["pixel_sha256"])
    per_patient = Counter(line["patient"] for line in lines)
    assert sorted(per_patient.values()) == sorted(Counter(c.patient_id for c in cases).values())
    table = load_package(tiny_run).provenance["split"]
    assert {row["part"]: row["scans"] for row in table} == Counter(line["split"] for line in lines)


def test_a_run_names_no_patient_and_no_path(tiny_run: Path, sample_folder: Path) -> None:
    cases = load_cases([str(sample_folder / "nodule.csv")]).cases
    names = {str(sample_folder), str(tiny_run.parent), *(str(case.patient_id) for case in cases)}
    for path in tiny_run.iterdir():
        content = path.read_bytes()
        assert not [name for name in names if name.encode() in content], path.name


def test_the_card_says_what_it_is_and_that_it_is_synthetic(tiny_run: Path) -> None:
    card = (tiny_run / CARD).read_text()
    package = load_package(tiny_run)
    assert "generated pictures" in card
    assert "not a medical device" in card
    assert package.fingerprint in card
    auroc = package.metrics["auroc"]
    assert f"| auroc | {auroc:.3f}" in card
    assert "held-out test part" in card


def test_the_history_has_one_line_an_epoch(
    picture_manifest: PictureManifest, tmp_path: Path, without_export: None, told: Any
) -> None:
    package = train(request(picture_manifest(8), tmp_path / "run", epochs=3), told.events)
    with (package.path / HISTORY).open(newline="") as stream:
        lines = list(csv.DictReader(stream))
    assert [int(line["epoch"]) for line in lines] == [1, 2, 3]
    assert [float(line["val_loss"]) for line in lines] == [e.val_loss for e in told.epochs]
    best = [int(line["epoch"]) for line in lines if line["best"] == "True"]
    assert package.provenance["best_epoch"] == best[-1]


def test_a_seed_repeats_the_fingerprint_and_another_does_not(
    picture_manifest: PictureManifest, tmp_path: Path, without_export: None
) -> None:
    manifest = picture_manifest(8)
    packages = [
        train(request(manifest, tmp_path / name, seed=seed))
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    first, again, other = (package.fingerprint for package in packages)
    assert first == again != other
    assert packages[0].patient_salt != packages[1].patient_salt
    assert load_package(tmp_path / "a") == packages[0]


def test_statistics_come_from_the_training_part_alone(
    picture_manifest: PictureManifest,
    tmp_path: Path,
    without_export: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: dict[str, Any] = {}

    def keep(*arguments: Any) -> Any:
        seen.update(part_arrays(*arguments))
        return seen

    part_arrays = preparing.part_arrays
    monkeypatch.setattr(preparing, "part_arrays", keep)
    package = train(request(picture_manifest(9), tmp_path / "run"))
    values = seen["train"].images / 255
    assert package.preprocess.mean[0] == pytest.approx(values.mean())
    assert package.preprocess.std[0] == pytest.approx(values.std())


def test_real_scans_make_no_synthetic_run(
    picture_manifest: PictureManifest, tmp_path: Path, without_export: None
) -> None:
    package = train(request(picture_manifest(8), tmp_path / "run", task="marks"))
    assert not package.synthetic
    assert package.task.name == "marks"
    assert "generated" not in (package.path / CARD).read_text()
    with safe_open(package.path / WEIGHTS, "np") as weights:
        assert "head.weight" in weights.keys()  # noqa: SIM118 (no mapping)


# ---- where it goes ----


def test_without_output_the_run_goes_to_the_home(
    picture_manifest: PictureManifest,
    tmp_path: Path,
    without_export: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MEDCLI_HOME", str(tmp_path / "home"))
    manifest = picture_manifest(8)
    package = train(request(manifest, None, task="lung"))
    assert package.path.parent == tmp_path / "home" / "runs"
    assert re.fullmatch(r"lung-\d{8}-\d{6}-\d{6}", package.path.name)
    odd = train(request(manifest, None, task="../left lung"))
    assert odd.path.parent == tmp_path / "home" / "runs"
    assert odd.path.name.startswith("left-lung-")
    assert odd.task.name == "../left lung"


def test_what_exists_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("years of work")
    for overwrite in (False, True):
        asked = request(tmp_path / "nowhere.csv", tmp_path / "run", overwrite=overwrite)
        with pytest.raises(OutputExistsError):
            train(asked)
    assert (tmp_path / "run" / "thesis.txt").read_text() == "years of work"


def test_overwrite_replaces_a_run(
    picture_manifest: PictureManifest, tmp_path: Path, without_export: None
) -> None:
    asked = request(picture_manifest(8), tmp_path / "run")
    train(asked)
    with pytest.raises(OutputExistsError):
        train(asked)
    again = train(replace(asked, seed=5, overwrite=True))
    assert load_package(tmp_path / "run") == again
    assert again.provenance["train"]["seed"] == 5


def test_a_failing_export_leaves_an_old_run_in_its_place_and_loses_no_training(
    picture_manifest: PictureManifest,
    tmp_path: Path,
    without_export: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = request(picture_manifest(8), tmp_path / "runs" / "run")
    old = train(asked)

    def fail(*_: object) -> None:
        raise MedcliError("the exported graph differs from the trained model")

    monkeypatch.setattr(writing, "check_onnx", fail)
    with pytest.raises(MedcliError, match="differs"):
        train(replace(asked, overwrite=True))
    assert load_package(asked.output) == old  # type: ignore[arg-type]
    monkeypatch.setattr(writing, "export_onnx", fail)
    with pytest.raises(MedcliError, match="differs"):
        train(replace(asked, output=tmp_path / "runs" / "other"))
    monkeypatch.undo()
    left = sorted(path.name for path in (tmp_path / "runs").iterdir())
    assert left == [".other.unfinished", ".run.unfinished", "run"]


# ---- what the data may be ----


def test_a_twentieth_of_unreadable_scans_is_left_out_with_a_warning(
    picture_manifest: PictureManifest, tmp_path: Path, without_export: None, told: Any
) -> None:
    package = train(request(picture_manifest(20, broken=[4]), tmp_path / "run"), told.events)
    assert [warning for warning in told.warnings if "left out" in warning and "004" in warning]
    assert len(split_lines(package.path)) == 19
    assert told.read[-1] == (20, 20)


def test_more_stop_the_run_before_anything_is_written(
    picture_manifest: PictureManifest, tmp_path: Path
) -> None:
    with pytest.raises(ScanError) as caught:
        train(request(picture_manifest(8, broken=[4]), tmp_path / "run"))
    assert caught.value.exit_status == 3
    assert not (tmp_path / "run").exists()


def test_a_class_that_cannot_be_read_stops_the_run(
    picture_manifest: PictureManifest, tmp_path: Path
) -> None:
    manifest = picture_manifest(24, broken=[5])
    text = manifest.read_text().replace("005.png,b", "005.png,rare")
    manifest.write_text(text)
    with pytest.raises(ManifestError, match="no scan of class 'rare' can be read"):
        train(request(manifest, tmp_path / "run"))


def test_patients_of_the_tags_bind_scans_where_the_manifest_names_none(
    sample_folder: Path, tmp_path: Path, without_export: None, told: Any
) -> None:
    rows = [
        f"{sample_folder / case.path},{case.label}"
        for case in load_cases([str(sample_folder / "nodule.csv")]).cases
    ]
    manifest = tmp_path / "nodule.csv"
    manifest.write_text("\n".join(["path,label", *rows]) + "\n")
    package = train(request(manifest, tmp_path / "run"), told.events)
    part_of = {}
    known = [line for line in split_lines(package.path) if line["patient"]]
    for line in known:
        assert part_of.setdefault(line["patient"], line["split"]) == line["split"]
    assert len(part_of) < len(known)  # some patients have two scans
    if len(known) < len(rows):  # a NIfTI volume has no tags
        assert any("name no patient" in warning for warning in told.warnings)


def test_blank_patients_are_groups_of_their_own_with_a_warning(
    picture_manifest: PictureManifest, tmp_path: Path, without_export: None, told: Any
) -> None:
    manifest = picture_manifest(8, patients=["", "", *SIX])
    package = train(request(manifest, tmp_path / "run"), told.events)
    assert any(warning.startswith("2 scans of 8 name no patient") for warning in told.warnings)
    assert sorted(bool(line["patient"]) for line in split_lines(package.path)) == [
        *[False] * 2,
        *[True] * 6,
    ]
    assert package.metrics["n_patients"] == package.metrics["n"]


def test_copies_lie_in_one_part(
    picture_manifest: PictureManifest, tmp_path: Path, without_export: None
) -> None:
    manifest = picture_manifest(12, copies=[2, 4, 6])
    run = train(request(manifest, tmp_path / "run")).path
    with (run / "splits.csv").open(newline="") as stream:
        parts = {(row["pixel_sha256"], row["split"]) for row in csv.DictReader(stream)}
    assert len({pixels for pixels, _ in parts}) == len(parts) < 12


def test_without_copies_there_is_nothing_to_tell(
    picture_manifest: PictureManifest, tmp_path: Path, without_export: None, told: Any
) -> None:
    train(request(picture_manifest(6, patients=SIX), tmp_path / "run"), told.events)
    assert told.warnings == []


def test_a_manifest_here_is_no_generated_data(
    picture_manifest: PictureManifest,
    tmp_path: Path,
    without_export: None,
    monkeypatch: pytest.MonkeyPatch,
    told: Any,
) -> None:
    folder = picture_manifest(6, patients=SIX).parent
    monkeypatch.chdir(folder)
    asked = TrainRequest(output=tmp_path / "run", size=16, epochs=1, device="cpu")
    package = train(asked, told.events)
    assert not package.synthetic
    assert package.provenance["source"] == f"{folder.name}/manifest.csv"
    assert any("training on" in note for note in told.notes)


def test_with_nothing_here_the_run_is_synthetic_and_says_so(
    tmp_path: Path, without_export: None, monkeypatch: pytest.MonkeyPatch, told: Any
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    asked = TrainRequest(output=tmp_path / "run", size=16, epochs=1, device="cpu")
    package = train(asked, told.events)
    assert package.synthetic
    assert package.provenance["source"] == "generated sample data"
    assert any("generated sample data" in note for note in told.notes)
    assert json.loads((tmp_path / "run" / MODEL_JSON).read_text())["synthetic"] is True
    assert list((tmp_path / "empty").iterdir()) == []


# ---- where it begins ----


@pytest.fixture
def first_run(picture_manifest: PictureManifest, tmp_path: Path, without_export: None) -> Path:
    """A run on 24 pictures, as far as another can begin with it."""
    return train(request(picture_manifest(24), tmp_path / "first")).path


def test_a_run_may_begin_with_the_weights_of_another(
    first_run: Path, tmp_path: Path, told: Any
) -> None:
    asked = request(first_run.parent / "manifest.csv", tmp_path / "second", weights=str(first_run))
    package = train(asked, told.events)
    origin = f"backbone and aggregator of run {load_package(first_run).fingerprint}"
    assert package.provenance["weights"] == origin
    assert f"| started from | {origin} |" in (package.path / CARD).read_text()
    assert f"starting from {origin}" in told.notes
    assert not [warning for warning in told.warnings if "flatter" in warning]  # the same parts


def test_scans_that_taught_those_weights_are_told_where_they_are_held_out(
    first_run: Path, tmp_path: Path, told: Any
) -> None:
    manifest = first_run.parent / "manifest.csv"
    train(request(manifest, tmp_path / "second", weights=str(first_run), seed=1), told.events)
    assert any("taught the run whose weights are taken" in warning for warning in told.warnings)


def test_weights_are_looked_for_before_anything_is_read(tmp_path: Path, told: Any) -> None:
    with pytest.raises(UsageError, match="no weights 'nowhere'"):
        train(request(tmp_path / "no.csv", tmp_path / "run", weights="nowhere"), told.events)
    assert told.read == []
