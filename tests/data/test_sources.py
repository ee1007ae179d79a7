from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from medcli.data.gathering import gather_cases
from medcli.data.sources import class_folder_labels, folder_manifest, load_cases
from medcli.errors import ManifestError, MedcliError, ScanError, UsageError
from medcli.imaging.reader import read_scan
from medcli.records import Case, Failure

Write = Callable[..., Path]
Picture = Callable[[Path], Path]


@pytest.fixture
def folders(tmp_path: Path, write_picture: Picture) -> Path:
    """Class folders `cat` (two scans) and `dog` (one scan)."""
    for name in ("cat/a.png", "cat/b.png", "dog/a.png"):
        write_picture(tmp_path / "set" / name)
    return tmp_path / "set"


def test_class_folders_give_labels(folders: Path) -> None:
    data = load_cases([str(folders)])
    assert data.classes == ("cat", "dog")
    assert [(Path(case.path).name, case.label, case.split) for case in data.cases] == [
        ("a.png", "cat", None),
        ("b.png", "cat", None),
        ("a.png", "dog", None),
    ]
    assert str(folders) in data.source


@pytest.mark.parametrize("validation", ["val", "valid", "Validation"])
def test_split_folders_give_splits(tmp_path: Path, write_picture: Picture, validation: str) -> None:
    for split in ("train", validation, "test"):
        for label in ("cat", "dog"):
            write_picture(tmp_path / split / label / f"{split}.png")
    data = load_cases([str(tmp_path)])
    assert data.classes == ("cat", "dog")
    assert sorted({case.split or "" for case in data.cases}) == ["test", "train", "val"]


def test_files_that_are_no_scan_are_counted(folders: Path) -> None:
    (folders / "cat" / "notes.txt").write_text("meow")
    data = load_cases([str(folders)])
    assert len(data.cases) == 3
    assert sum(data.dropped.values()) == 1


def test_a_folder_with_a_manifest_is_read_by_it(folders: Path) -> None:
    (folders / "manifest.csv").write_text("path,label\ncat/a.png,x\ndog/a.png,y\n")
    data = load_cases([str(folders)])
    assert data.classes == ("x", "y")
    assert folder_manifest(folders) == folders / "manifest.csv"
    assert folder_manifest(folders / "cat") is None


def test_several_inputs_are_joined_and_each_scan_counts_once(
    folders: Path, write_csv: Write
) -> None:
    first = write_csv("path,label,scan_id", "a.png,cat,1", "b.png,dog,2", name="one/m.csv")
    second = write_csv("path,label,scan_id", "a.png,cat,1", name="two/m.csv")
    data = load_cases([str(first), str(second), str(first), str(folders)])
    assert len(data.cases) == 2 + 1 + 3
    assert len({case.scan_id for case in data.cases}) == 6
    assert data.dropped == {"given twice": 2}


def test_classes_choose_order_and_drop_the_rest_with_a_count(write_csv: Write) -> None:
    path = write_csv("path,label", "a.png,a", "b.png,b", "c.png,c", "d.png,c")
    data = load_cases([str(path)], classes=["b", "a"])
    assert data.classes == ("b", "a")
    assert [case.label for case in data.cases] == ["a", "b"]
    assert data.dropped == {"class not in --classes": 2}


def test_a_class_that_no_scan_has_is_named_with_the_nearest(write_csv: Write) -> None:
    path = write_csv("path,label", "a.png,benign", "b.png,malignant")
    with pytest.raises(UsageError) as caught:
        load_cases([str(path)], classes=["benign", "malign"])
    assert "did you mean 'malignant'?" in caught.value.hint


def test_a_label_the_model_does_not_know_is_refused(write_csv: Write) -> None:
    path = write_csv("path,label", "a.png,benign", "b.png,malingnant")
    with pytest.raises(ManifestError) as caught:
        load_cases([str(path)], known=["benign", "malignant"])
    assert "'malingnant' (1 scans)" in caught.value.message
    assert "did you mean 'malignant'?" in caught.value.hint


def test_evaluation_keeps_the_models_order_and_takes_one_class(write_csv: Write) -> None:
    path = write_csv("path,label", "a.png,a")
    assert load_cases([str(path)], known=["z", "a"]).classes == ("z", "a")


def test_one_task_of_several_is_used_and_said(write_csv: Write) -> None:
    path = write_csv(
        "path,label,task", "a.png,a,first", "b.png,b,first", "c.png,c,second", "d.png,d,second"
    )
    chosen = load_cases([str(path)], task="second")
    assert chosen.classes == ("c", "d")
    assert chosen.dropped == {"other task": 2}
    default = load_cases([str(path)])
    assert default.classes == ("a", "b")
    assert "'first' is used" in default.warnings[0]
    with pytest.raises(ManifestError, match="did you mean 'second'"):
        load_cases([str(path)], task="secnd")


def test_a_single_task_column_does_not_bind_the_name(write_csv: Write) -> None:
    path = write_csv("path,label,task", "a.png,a,first", "b.png,b,first")
    assert len(load_cases([str(path)], task="mine").cases) == 2


def test_an_archive_is_a_data_set(tmp_path: Path) -> None:
    path = tmp_path / "pneumoniamnist.npz"
    np.savez(path, train_images=np.zeros((2, 4, 4)), train_labels=np.array([[0], [1]]))
    assert load_cases([str(path)]).classes == ("normal", "pneumonia")


@pytest.mark.parametrize(
    ("make", "error", "status", "words"),
    [
        (lambda root: root / "gone.csv", ScanError, 3, "does not exist"),
        (lambda root: root / "gone", ScanError, 3, "does not exist"),
        (lambda root: root, ScanError, 3, "nothing readable found"),
    ],
)
def test_missing_or_empty_inputs_have_status_3(
    tmp_path: Path,
    make: Callable[[Path], Path],
    error: type[MedcliError],
    status: int,
    words: str,
) -> None:
    with pytest.raises(error, match=words) as caught:
        load_cases([str(make(tmp_path))])
    assert caught.value.exit_status == status


def test_unusable_data_sets_have_status_2(
    tmp_path: Path, write_csv: Write, write_picture: Picture
) -> None:
    one_class = write_csv("path,label", "a.png,a", name="one.csv")
    empty = write_csv("path,label", name="empty.csv")
    unlabelled = write_csv("path,label", "a.png,", name="unlabelled.csv")
    loose = write_picture(tmp_path / "loose" / "a.png")
    for path, words in [
        (one_class, "one class only"),
        (empty, "no labelled scan"),
        (unlabelled, "1 no label"),
        (loose, "carries no labels"),
        (loose.parent, "carry no labels"),
    ]:
        with pytest.raises(UsageError, match=words) as caught:
            load_cases([str(path)])
        assert caught.value.exit_status == 2


def test_gathering_keeps_the_order_of_the_inputs(
    tmp_path: Path, write_csv: Write, write_picture: Picture
) -> None:
    loose, listed = write_picture(tmp_path / "a.png"), write_picture(tmp_path / "l.png")
    manifest = write_csv("path,label", "m.png,x")
    archive = tmp_path / "v.npz"
    np.savez(archive, val_images=np.zeros((2, 4, 4)))
    found = gather_cases(
        [str(loose), str(manifest), "-", str(archive), str(tmp_path / "gone.csv")],
        stdin=[f"{listed}\n", "\n"],
    )
    assert [item.path for item in found] == [
        str(loose),
        str(tmp_path / "m.png"),
        str(listed),
        f"{archive}!/val_images/0",
        f"{archive}!/val_images/1",
        str(tmp_path / "gone.csv"),
    ]
    assert isinstance(found[-1], Failure)
    assert found[-1].code == "not_found"


def test_gathering_hands_neighbouring_files_over_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Files of one series, as a shell's glob gives them, must meet in one call."""
    calls: list[list[str]] = []

    def find(inputs: list[str]) -> list[Case | Failure]:
        calls.append(list(inputs))
        return []

    monkeypatch.setattr("medcli.data.gathering.find_scans", find)
    gather_cases(["1.dcm", "2.dcm", "gone.csv", "3.dcm"])
    assert calls == [["1.dcm", "2.dcm"], ["3.dcm"]]


def test_gathering_refuses_an_unusable_manifest(write_csv: Write) -> None:
    with pytest.raises(ManifestError):
        gather_cases([str(write_csv("file,label", "a.png,x"))])


def test_cases_take_the_name_of_their_class_folder(folders: Path, write_picture: Picture) -> None:
    write_picture(folders / "loose.png")
    cases = [case for case in gather_cases([str(folders)]) if isinstance(case, Case)]
    labels = {case.path: case.label for case in class_folder_labels(cases, folders)}
    assert labels == {
        str(folders / "cat" / "a.png"): "cat",
        str(folders / "cat" / "b.png"): "cat",
        str(folders / "dog" / "a.png"): "dog",
        str(folders / "loose.png"): None,
    }


def test_a_series_in_two_class_folders_has_no_label_and_says_so(
    tmp_path: Path, sample_folder: Path
) -> None:
    slices = sorted((sample_folder / "ct" / "SYN-0001-1").iterdir())
    for number, path in enumerate(slices):
        folder = tmp_path / ("benign", "malignant")[number % 2] / "patient" / "ct"
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder)
    (found,) = class_folder_labels(gather_cases([str(tmp_path)]), tmp_path)
    assert isinstance(found, Case)
    assert (len(found.files), found.label) == (len(slices), None)
    assert [each.code for each in found.warnings] == ["several_folders", "label_unclear"]
    assert "'benign', 'malignant'" in found.warnings[1].message
    assert "label_unclear" in [each.code for each in read_scan(found).warnings]


def test_a_series_in_two_folders_of_one_class_has_its_label(
    tmp_path: Path, sample_folder: Path
) -> None:
    for number, path in enumerate(sorted((sample_folder / "ct" / "SYN-0001-1").iterdir())):
        folder = tmp_path / "benign" / str(number % 2)
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder)
    (found,) = class_folder_labels(gather_cases([str(tmp_path)]), tmp_path)
    assert isinstance(found, Case)
    assert found.label == "benign"


@pytest.mark.real
def test_the_radiographs_are_5232(real_data: Path) -> None:
    data = load_cases([str(real_data / "lung_cxr")], task="lung")
    assert len(data.cases) == 5232
    assert data.classes == ("normal", "pneumonia")
