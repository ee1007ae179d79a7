from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medcli.data.medmnist import CLASS_NAMES, class_names_of, read_archive
from medcli.errors import ManifestError, ScanError

# Classes of each set as in Table 2 of the MedMNIST v2 paper.
CLASS_COUNTS = {
    "pathmnist": 9,
    "dermamnist": 7,
    "octmnist": 4,
    "chestmnist": 14,
    "pneumoniamnist": 2,
    "retinamnist": 5,
    "breastmnist": 2,
    "bloodmnist": 8,
    "tissuemnist": 8,
    "organamnist": 11,
    "organcmnist": 11,
    "organsmnist": 11,
    "organmnist3d": 11,
    "nodulemnist3d": 2,
    "adrenalmnist3d": 2,
    "fracturemnist3d": 3,
    "vesselmnist3d": 2,
    "synapsemnist3d": 2,
}


def save(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path, **arrays)
    return path


def images(count: int) -> np.ndarray:
    return np.zeros((count, 4, 4), np.uint8)


def test_every_set_has_a_name_for_each_class() -> None:
    assert {name: len(set(names)) for name, names in CLASS_NAMES.items()} == CLASS_COUNTS
    assert not any("," in name for names in CLASS_NAMES.values() for name in names)


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("pneumoniamnist_train_val.npz", "normal"),
        ("PathMNIST_224.npz", "adipose"),
        ("/data/nodulemnist3d_64.npz", "benign"),
    ],
)
def test_the_set_is_read_from_the_file_name(name: str, first: str) -> None:
    names = class_names_of(name)
    assert names is not None
    assert names[0] == first


def test_an_unknown_set_keeps_its_digits(tmp_path: Path) -> None:
    assert class_names_of("mine.npz") is None
    path = save(tmp_path / "mine.npz", train_images=images(2), train_labels=np.array([0, 4]))
    assert [case.label for case in read_archive(path)] == ["0", "4"]


def test_members_become_cases_with_split_and_name(tmp_path: Path) -> None:
    path = save(
        tmp_path / "nodulemnist3d.npz",
        test_images=images(1),
        test_labels=np.array([[1]]),
        train_images=images(2),
        train_labels=np.array([[0], [1]]),
    )
    cases = read_archive(path)
    assert [case.member for case in cases] == [
        "train_images/0",
        "train_images/1",
        "test_images/0",
    ]
    assert [case.split for case in cases] == ["train", "train", "test"]
    assert [case.label for case in cases] == ["benign", "malignant", "malignant"]
    assert cases[1].path == f"{path}!/train_images/1"
    assert cases[1].files == (str(path),)
    assert {case.kind for case in cases} == {"array"}
    assert len({case.scan_id for case in cases}) == 3


def test_the_users_class_names_win(tmp_path: Path) -> None:
    path = save(tmp_path / "x.npz", train_images=images(2), train_labels=np.array([[1], [0]]))
    assert [case.label for case in read_archive(path, ("no", "yes"))] == ["yes", "no"]
    with pytest.raises(ManifestError, match="1 class names"):
        read_archive(path, ("no",))


def test_pictures_without_labels_are_cases_without_labels(tmp_path: Path) -> None:
    path = save(tmp_path / "x.npz", val_images=images(3))
    assert [case.label for case in read_archive(path)] == [None] * 3


def test_several_flags_of_a_picture_name_its_findings(tmp_path: Path) -> None:
    flags = np.zeros((3, 14), np.uint8)
    flags[0, [2, 9]] = flags[1, 13] = 1
    path = save(tmp_path / "chestmnist.npz", train_images=images(3), train_labels=flags)
    assert [case.label for case in read_archive(path)] == ["effusion|edema", "hernia", "none"]
    other = save(tmp_path / "mine.npz", train_images=images(3), train_labels=flags)
    assert [case.label for case in read_archive(other)] == ["2|9", "13", "none"]
    names = [f"finding {number}" for number in range(14)]
    assert read_archive(other, names)[1].label == "finding 13"


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (np.full((2, 3), 2), "labels of shape .* from 2 to 2"),
        (np.zeros((3, 3)), "2 pictures, but labels of shape"),
        (np.eye(2, 3), "3 labels for each picture but 14 class names"),
    ],
)
def test_flags_that_are_none_are_refused(tmp_path: Path, labels: np.ndarray, says: str) -> None:
    path = save(tmp_path / "chestmnist.npz", train_images=images(2), train_labels=labels)
    with pytest.raises(ManifestError, match=says):
        read_archive(path)


def test_labels_that_do_not_fit_the_pictures_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "x.npz", train_images=images(2), train_labels=np.array([1]))
    with pytest.raises(ManifestError, match="2 train pictures but 1 labels"):
        read_archive(path)


def test_what_is_no_medmnist_archive_is_an_unreadable_scan(tmp_path: Path) -> None:
    garbage = tmp_path / "garbage.npz"
    garbage.write_bytes(b"PK\x03\x04 and no more")
    pickled = tmp_path / "pickled.npz"
    np.savez(pickled, train_images=images(1), train_labels=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ScanError, match="no NumPy archive"):
        read_archive(garbage)
    with pytest.raises(ScanError, match="no NumPy archive"):
        read_archive(pickled)
    with pytest.raises(ScanError, match="holds none of"):
        read_archive(save(tmp_path / "other.npz", x=images(1)))
    with pytest.raises(ScanError) as caught:
        read_archive(tmp_path / "gone.npz")
    assert caught.value.code == "not_found"


@pytest.mark.real
def test_the_published_archive_has_4708_and_524_pictures(real_data: Path) -> None:
    cases = read_archive(real_data / "medmnist" / "pneumoniamnist_train_val.npz")
    splits = [case.split for case in cases]
    assert (splits.count("train"), splits.count("val"), splits.count("test")) == (4708, 524, 0)
    assert {case.label for case in cases} == {"normal", "pneumonia"}
