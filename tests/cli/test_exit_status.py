"""What goes wrong: one line that says what and what to do next, and the status of the contract."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydicom
import pytest

from medcli import files
from medcli.cli.app import run
from medcli.models.package import ModelPackage
from medcli.retrieval.storage import writer_lock

Run = Callable[..., Any]


def only_error(done: Any) -> str:
    """The one error of a command, which left no traceback."""
    assert "Traceback" not in done.err
    assert len(done.errors) == 1, done.err
    return str(done.errors[0])


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


# Inputs: 3


@pytest.mark.parametrize("command", [["classify"], ["search"], ["index", "add"]])
def test_a_missing_file_is_named(medcli: Run, archive: Path, command: list[str]) -> None:
    done = medcli(*command, "gone.dcm")
    assert done.status == 3
    assert "gone.dcm: no such file" in only_error(done)


def test_a_file_that_cannot_be_opened_is_named(
    medcli: Run, model: Any, sample_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked = shutil.copy(sample_folder / "scan.dcm", "locked.dcm")
    status = os.stat

    def refuse(path: Any, **options: Any) -> os.stat_result:
        if str(path).endswith("locked.dcm"):
            raise PermissionError(13, "Permission denied", str(path))
        return status(path, **options)

    monkeypatch.setattr("medcli.imaging.files.os.stat", refuse)  # root may read everything
    done = medcli("classify", locked, sample_folder / "query.png")
    assert done.status == 3
    assert "locked.dcm: permission denied" in only_error(done)
    assert "query.png" in done.out


def test_an_empty_folder_and_one_of_texts_hold_no_scan(medcli: Run, model: Any) -> None:
    Path("empty").mkdir()
    write(Path("texts/a.txt"), "words")
    for folder in ("empty", "texts"):
        done = medcli("classify", folder)
        assert done.status == 3
        assert f"{folder}: no scan was found" in only_error(done)


def test_a_text_named_by_itself_is_no_image(medcli: Run, model: Any) -> None:
    done = medcli("classify", write(Path("a.txt"), "words"))
    assert done.status == 3
    assert "a.txt: not an image" in only_error(done)


def test_one_bad_scan_does_not_stop_the_others(
    medcli: Run, model: Any, sample_folder: Path
) -> None:
    shutil.copy(sample_folder / "query.png", "good.png")
    write(Path("bad.png"), "no picture")
    done = medcli("classify", "bad.png", "good.png")
    assert done.status == 3
    assert "bad.png" in only_error(done)
    assert "good.png" in done.out


def test_an_object_without_pixels_alone_is_nothing_to_classify(
    medcli: Run, model: Any, sample_folder: Path
) -> None:
    report = pydicom.dcmread(sample_folder / "scan.dcm")
    del report.PixelData, report.Rows
    report.SOPClassUID = report.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.88.11"
    report.save_as("report.dcm")
    done = medcli("classify", "report.dcm", "--json")
    assert (done.status, done.json[0]["status"]) == (3, "skipped")
    assert "no scan found" in only_error(done)


def test_an_empty_list_on_stdin_holds_no_scan(
    medcli: Run, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", [])
    done = medcli("classify", "-")
    assert done.status == 3
    assert "no scan found" in only_error(done)


def test_a_gallery_of_nothing_readable_is_not_made(medcli: Run, model: Any) -> None:
    done = medcli("index", "build", write(Path("bad.png"), "no picture"), "-g", "g", "--json")
    assert done.status == 3
    assert done.json[0]["failures"][0]["error"]["code"] == "not_an_image"
    assert "bad.png" in only_error(done)
    assert os.listdir() == ["bad.png"]


# Options, models, galleries, data: 2

ROWS = [("a", "P1"), ("a", "P2"), ("b", "P3"), ("b", "P4"), ("a", "P5"), ("b", "P6")]


def manifest(
    sample_folder: Path, text: Callable[[str], str] = lambda text: text, rows: int = 6
) -> Path:
    """A manifest of one picture under several patients, changed by `text`."""
    lines = [
        f"{sample_folder / 'query.png'},{label},{patient},{patient}"
        for label, patient in ROWS[:rows]
    ]
    content = "\n".join(["path,label,patient_id,scan_id", *lines])
    return write(Path("m.csv"), text(content) + "\n")


@pytest.mark.parametrize(
    ("change", "options", "expected"),
    [
        (lambda text: text.replace("label", "lable", 1), [], "no column 'label'"),
        (lambda text: text.replace(",b,", ",a,"), [], "one class only"),
        (lambda text: text, ["--classes", "a,c"], "no scan of class 'c'"),
        (lambda text: text, ["--positive", "c"], "'c'"),
        (lambda text: "\n".join(text.splitlines()[:2] + text.splitlines()[3:4]), [], "patient"),
        (lambda text: "path,label", [], "no labelled scan"),
        (lambda text: text, ["--arch", "resnet18_hlaf"], "unknown"),
        (lambda text: text, ["--aggregator", "atention"], "unknown"),
        (lambda text: text, ["--device", "cuda:7"], "no device"),
        (lambda text: text, ["--device", "tpu"], "no device"),
        (lambda text: text, ["--size", "3"], "--size"),
        (lambda text: text, ["--epochs", "many"], "--epochs"),
        (lambda text: text, ["--minutes", "0"], "--minutes"),
    ],
)
def test_data_and_options_that_cannot_be_trained_on(
    medcli: Run, sample_folder: Path, home: Path, change: Any, options: list[str], expected: str
) -> None:
    done = medcli("train", manifest(sample_folder, change), "--epochs", "1", *options)
    assert done.status == 2
    assert expected in only_error(done)
    assert not (home / "runs").exists()


def test_an_unknown_network_is_answered_with_the_nearest(medcli: Run, sample_folder: Path) -> None:
    done = medcli("train", manifest(sample_folder), "--arch", "resnet18_hlaf")
    assert "Did you mean resnet18_half?" in done.err


def test_a_label_that_the_model_does_not_know(medcli: Run, model: Any, sample_folder: Path) -> None:
    done = medcli("evaluate", "latest", manifest(sample_folder))
    assert done.status == 2
    assert "label 'a' (3 scans) is none of the model's classes" in only_error(done)


def test_training_data_that_do_not_exist(medcli: Run) -> None:
    done = medcli("train", "gone.csv")
    assert done.status == 3
    assert "gone.csv does not exist" in only_error(done)


def test_without_a_model_the_command_that_makes_one_is_named(
    medcli: Run, sample_folder: Path
) -> None:
    for command in (["classify", sample_folder / "scan.dcm"], ["index", "build", sample_folder]):
        done = medcli(*command)
        assert done.status == 2
        assert "no model" in only_error(done)
        assert "medcli train" in done.err


def test_a_model_of_another_task_is_no_answer(medcli: Run, model: Any, sample_folder: Path) -> None:
    for choice in ([], ["-m", model.path]):
        done = medcli("classify", sample_folder / "scan.dcm", "--task", "lung", *choice)
        assert done.status == 2
        assert "'lung'" in only_error(done)
        assert "nodule" in done.err


def test_a_folder_that_is_no_model(medcli: Run, sample_folder: Path) -> None:
    for name in (sample_folder, "nowhere"):
        done = medcli("classify", sample_folder / "scan.dcm", "-m", name)
        assert done.status == 2
        assert str(name) in only_error(done)


@pytest.mark.parametrize("command", [["search", "q.png"], ["index", "add"], ["index", "info"]])
def test_without_a_gallery_the_command_that_makes_one_is_named(
    medcli: Run, model: Any, command: list[str]
) -> None:
    done = medcli(*command)
    assert done.status == 2
    assert "does not exist" in only_error(done)
    assert "medcli index build" in done.err


def test_a_gallery_that_exists_is_kept(medcli: Run, archive: Path, sample_folder: Path) -> None:
    done = medcli("index", "build", sample_folder)
    assert done.status == 2
    assert "gallery already" in only_error(done)
    assert "index add" in done.err
    assert "--overwrite" in done.err
    assert medcli("index", "build", sample_folder / "query.png", "--overwrite").status == 0
    assert medcli("index", "info", "--json").json[0]["scans"] == 1


@pytest.mark.parametrize(
    ("command", "option"),
    [
        (["train", "m.csv"], "-o"),
        (["classify", "q.png"], "--csv"),
        (["search", "q.png"], "--html"),
        (["demo"], "-o"),
    ],
)
def test_what_exists_is_not_overwritten(
    medcli: Run, archive: Path, command: list[str], option: str
) -> None:
    write(Path("out/mine.txt"), "work of years")
    target = "out" if option == "-o" else "out/mine.txt"
    for more in ([], ["--overwrite"]) if option == "-o" else ([],):
        done = medcli(*command, option, target, *more)
        assert done.status == 2
        assert "exists" in only_error(done)
    assert Path("out/mine.txt").read_text() == "work of years"


WRITERS = [["classify", "--csv"], ["search", "--html"], ["inspect", "--preview"]]


@pytest.mark.parametrize("command", WRITERS)
def test_only_a_file_in_a_folder_that_exists_is_written(
    medcli: Run, archive: Path, sample_folder: Path, command: list[str]
) -> None:
    name, option = command
    os.mkfifo("pipe")
    for target, told in {
        "-": "not the name of a file",
        "pipe": "no regular file",
        "nowhere/out": "no folder",
    }.items():
        done = medcli(name, sample_folder / "query.png", option, target, "--overwrite")
        assert done.status == 2
        assert told in only_error(done)
        assert target == "nowhere/out" or "--json" in done.err
    assert os.listdir() == ["pipe"]
    assert Path("pipe").is_fifo()


# Damage: 4


@pytest.mark.parametrize("name", ["graph.onnx", "weights.safetensors", "MODEL_CARD.md"])
def test_a_model_with_a_file_missing_or_altered_is_damaged(
    medcli: Run, model: ModelPackage, sample_folder: Path, name: str
) -> None:
    file = model.path / name
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    done = medcli("classify", sample_folder / "scan.dcm", "-m", model.path)
    assert done.status == 4
    assert name in only_error(done)
    file.unlink()
    done = medcli("classify", sample_folder / "scan.dcm", "-m", model.path)
    assert done.status == 4
    assert f"{name} is missing" in only_error(done)


def test_a_model_whose_list_of_files_is_gone_is_damaged(
    medcli: Run, model: ModelPackage, sample_folder: Path
) -> None:
    (model.path / "manifest.json").unlink()
    done = medcli("classify", sample_folder / "scan.dcm")
    assert done.status == 4
    assert "manifest.json" in only_error(done)


@pytest.mark.parametrize("name", ["catalogue.sqlite", "model/graph.onnx"])
def test_a_gallery_with_a_file_cut_or_missing_is_damaged(
    medcli: Run, archive: Path, sample_folder: Path, name: str
) -> None:
    file = archive / name
    for spoil in (lambda: file.write_bytes(file.read_bytes()[:100]), file.unlink):
        spoil()
        done = medcli("search", sample_folder / "query.png")
        assert done.status == 4
        assert Path(name).name in only_error(done)


@pytest.mark.parametrize("command", [["search"], ["index", "add"]])
def test_a_gallery_whose_copy_of_the_model_is_gone_or_another_is_damaged(
    medcli: Run,
    archive: Path,
    sample_folder: Path,
    make_package: Callable[..., ModelPackage],
    tmp_path: Path,
    command: list[str],
) -> None:
    other = make_package(tmp_path / "other", seed=9)
    shutil.rmtree(archive / "model")
    done = medcli(*command, sample_folder / "query.png")
    assert done.status == 4
    assert "lost its copy of the model" in only_error(done)
    assert "medcli index build SCANS --overwrite" in done.err
    shutil.copytree(other.path, archive / "model")
    for more in ([], ["-m", other.path]):
        done = medcli(*command, sample_folder / "query.png", *more)
        assert done.status == 4
        assert other.fingerprint in only_error(done)
        assert "leave out --model" not in done.err


# Another model: 5. Locked: 6


@pytest.mark.parametrize("command", [["search"], ["index", "add"], ["evaluate"]])
def test_a_model_that_is_not_the_gallerys_is_refused(
    medcli: Run,
    archive: Path,
    sample_folder: Path,
    home: Path,
    make_package: Callable[..., ModelPackage],
    command: list[str],
) -> None:
    other = make_package(home / "other", seed=9)
    if command == ["evaluate"]:
        done = medcli("evaluate", other.path, sample_folder / "nodule.csv", "-g", archive)
    else:
        done = medcli(*command, sample_folder / "query.png", "-m", other.path)
    assert done.status == 5
    assert other.fingerprint in only_error(done)
    assert "index migrate" in done.err


def test_a_locked_gallery_is_named(medcli: Run, archive: Path, sample_folder: Path) -> None:
    with writer_lock(archive / "writer.lock", 0):
        for command in (["add"], ["build", "--overwrite"]):
            done = medcli("index", *command, sample_folder / "scan.dcm", "--lock-timeout", "0.2")
            assert done.status == 6
            assert "another process" in only_error(done)
            assert "--lock-timeout" in done.err
    assert medcli("index", "info", "--json").json[0]["scans"] == 8


# Disk: 7


@pytest.mark.parametrize(
    "command",
    [
        ["train", "--epochs", "1", "-o", "file/run"],
        ["classify", "q.png", "--csv", "file/table.csv"],
        ["search", "q.png", "--html", "file/page.html"],
        ["index", "build", "-g", "file/gallery"],
        ["demo", "-o", "file/demo"],
    ],
)
def test_a_place_that_cannot_be_written_is_named_before_the_work(
    medcli: Run, archive: Path, command: list[str]
) -> None:
    write(Path("file"), "no folder")
    done = medcli(*command)
    assert done.status == 7
    assert "file" in only_error(done)
    assert sorted(os.listdir()) == ["file"]


def test_a_home_that_cannot_be_written_is_named_before_the_work(
    medcli: Run, sample_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDCLI_HOME", str(write(Path("file"), "no folder") / "home"))
    done = medcli("train", sample_folder / "nodule.csv")
    assert done.status == 7
    assert "no folder" in only_error(done)


@pytest.mark.parametrize("command", [["classify", "--csv"], ["search", "--html"]])
def test_a_full_disk_leaves_nothing_half_made(
    medcli: Run,
    archive: Path,
    sample_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: list[str],
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    write(Path("out"), "old")
    monkeypatch.setattr(files.os, "fsync", full)
    name, option = command
    done = medcli(name, sample_folder / "query.png", option, "out", "--overwrite")
    assert done.status == 7
    assert "No space left" in only_error(done)
    assert os.listdir() == ["out"]
    assert Path("out").read_text() == "old"


@pytest.mark.parametrize("hide", [[], ["--hide-paths"]])
def test_a_disk_too_small_for_the_model_is_told_in_one_sentence(
    medcli: Run,
    model: Any,
    sample_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    hide: list[str],
) -> None:
    def full(source: Path, target: Path, **options: Any) -> None:
        raise OSError(28, "No space left on device", str(source), None, str(target))

    monkeypatch.setattr("shutil.copyfile", full)
    done = medcli("index", "build", sample_folder / "query.png", "-g", "new-archive", *hide)
    assert done.status == 7
    assert only_error(done).endswith(": No space left on device")
    assert ("new-archive" in only_error(done)) != bool(hide)
    assert os.listdir() == []


# The choice of a model


def test_a_run_on_generated_data_is_never_picked_over_a_real_one(
    medcli: Run,
    model: ModelPackage,
    sample_folder: Path,
    home: Path,
    make_package: Callable[..., ModelPackage],
) -> None:
    newer = {"seed": 1, "synthetic": True, "created": "2027-01-01T00:00:00+00:00"}
    synthetic = make_package(home / "runs" / "synthetic", **newer)
    for choice in ([], ["-m", "latest"]):
        done = medcli("classify", sample_folder / "scan.dcm", "--json", *choice)
        assert done.json[0]["model"] == model.fingerprint
    done = medcli("classify", sample_folder / "scan.dcm", "--json", "-m", synthetic.path)
    assert done.json[0]["synthetic"] is True
    assert "synthetic" in done.err


def test_the_newest_run_of_the_task_is_picked_and_named(
    medcli: Run,
    model: ModelPackage,
    sample_folder: Path,
    home: Path,
    make_package: Callable[..., ModelPackage],
) -> None:
    created = "2027-01-01T00:00:00+00:00"
    classes = ("normal", "pneumonia")
    lung = make_package(home / "runs/lung", task="lung", classes=classes, created=created)
    done = medcli("classify", sample_folder / "scan.dcm", "--json")
    assert done.json[0]["task"] == "lung"
    assert f"task lung, fingerprint {lung.fingerprint}" in done.err
    assert medcli("classify", sample_folder / "scan.dcm", "--json", "-t", "nodule").json[0][
        "task"
    ] == ("nodule")


def test_a_mistake_of_the_program_keeps_its_traceback(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medcli.retrieval.gallery.Gallery.open", lambda path: json.loads("{"))
    with pytest.raises(ValueError, match="Expecting"):
        run(["index", "info"])
