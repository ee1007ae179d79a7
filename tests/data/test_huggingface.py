"""Data sets of Hugging Face, saved on the disk: read offline, each picture byte for byte."""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medcli.data.gathering import gather_cases
from medcli.data.huggingface import huggingface_manifest
from medcli.data.sources import load_cases
from medcli.errors import ManifestError, ScanError, UsageError
from medcli.imaging.reader import read_scan
from medcli.records import Case

Save = Callable[..., str]

datasets = pytest.importorskip("datasets", reason="the extra medcli[datasets] is not installed")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    datasets.disable_progress_bars()
    monkeypatch.setenv("MEDCLI_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def picture(seed: int, kind: str = "PNG") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 16), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def table(count: int, **columns: Any) -> Any:
    """A data set of `count` pictures with two classes."""
    features = {
        "image": datasets.Image(),
        "label": datasets.ClassLabel(names=["benign", "malignant"]),
    }
    values: dict[str, Any] = {
        "image": [{"bytes": picture(n), "path": None} for n in range(count)],
        "label": [n % 2 for n in range(count)],
    }
    for name, (kind, column) in columns.items():
        features[name], values[name] = kind, column
    return datasets.Dataset.from_dict(values, features=datasets.Features(features))


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Save a data set to the disk, as a user does; its name for medcli."""

    def write(data: Any, *, again: bool = False) -> str:
        if again:
            shutil.rmtree(tmp_path / "saved")
        data.save_to_disk(str(tmp_path / "saved"))
        return f"hf:{tmp_path / 'saved'}"

    return write


def test_pictures_labels_patients_and_parts_are_recognised(save: Save) -> None:
    text = datasets.Value("string")
    columns = {"Patient ID": (text, ["P", "P", "Q", "R"]), "Site": (text, ["x", "y", "x", "y"])}
    parts = {"train": table(4, **columns), "validation": table(4, **columns)}
    data = load_cases([save(datasets.DatasetDict(parts))])
    assert data.classes == ("benign", "malignant")
    assert [case.split for case in data.cases] == ["train"] * 4 + ["val"] * 4
    assert [case.patient_id for case in data.cases[:4]] == ["P", "P", "Q", "R"]
    assert [case.columns["site"] for case in data.cases[:4]] == ["x", "y", "x", "y"]
    assert [case.label for case in data.cases[:2]] == ["benign", "malignant"]


def test_the_pictures_are_kept_byte_for_byte(save: Save, home: Path) -> None:
    cases = load_cases([save(table(3))]).cases
    assert [Path(case.path).read_bytes() for case in cases] == [picture(n) for n in range(3)]
    assert all(Path(case.path).is_relative_to(home) for case in cases)
    pixels = np.asarray(Image.open(io.BytesIO(picture(2))))
    np.testing.assert_array_equal(read_scan(cases[2]).pixels[0, :, :, 0], pixels)


def test_they_are_written_once(save: Save) -> None:
    name = save(table(3))
    notes: list[str] = []
    first = load_cases([name], on_note=notes.append)
    assert "writing the pictures" in notes[0]
    again = load_cases([name], on_note=notes.append)
    assert len(notes) == 1
    assert again.cases == first.cases


def test_another_content_under_the_same_path_is_written_anew(save: Save) -> None:
    load_cases([save(table(3))])
    assert len(load_cases([save(table(4), again=True)]).cases) == 4


def test_one_split_is_a_set_without_parts(save: Save) -> None:
    name = save(datasets.DatasetDict({"train": table(4), "odd": table(2)}))
    assert [case.split for case in load_cases([f"{name}:odd"]).cases] == [None, None]
    whole = load_cases([name])
    assert len(whole.cases) == 4
    assert whole.dropped == {"split 'odd', none of train, validation and test": 2}
    with pytest.raises(UsageError, match="has no split 'trian'") as refusal:
        load_cases([f"{name}:trian"])
    assert "did you mean 'train'?" in refusal.value.hint


def test_rows_without_a_label_or_a_picture_are_dropped_and_counted(save: Save) -> None:
    data = table(4)
    rows = {"image": [None, *data["image"][1:]], "label": [0, -1, 0, 1]}
    loaded = load_cases([save(datasets.Dataset.from_dict(rows, features=data.features))])
    assert len(loaded.cases) == 2
    assert loaded.dropped == {
        "no label": 1,
        "no picture, or one of a format medcli does not read": 1,
    }


def test_a_picture_of_an_unread_format_is_counted(save: Save) -> None:
    webp = {"image": [{"bytes": picture(0, "WEBP"), "path": None}] * 2, "label": [0, 1]}
    data = datasets.Dataset.from_dict(webp, features=table(2).features)
    both = datasets.concatenate_datasets([table(2), data])
    assert load_cases([save(both)]).dropped.total() == 2


def test_what_commands_take_takes_a_data_set_too(save: Save) -> None:
    found = gather_cases([save(table(3))])
    assert all(isinstance(case, Case) for case in found)
    assert len(found) == 3


@pytest.mark.parametrize("column", ["label", "image"])
def test_a_missing_column_is_named_with_those_that_are_there(save: Save, column: str) -> None:
    with pytest.raises(ManifestError, match=f"could hold the .*{column[:5]}|pictures") as refusal:
        load_cases([save(table(2).remove_columns(column))])
    assert "columns found" in refusal.value.hint


def test_several_labels_a_picture_are_refused(save: Save) -> None:
    several = datasets.Sequence(datasets.ClassLabel(names=["a", "b"]))
    data = table(2, labels=(several, [[0, 1], [1]])).remove_columns("label")
    with pytest.raises(UsageError, match="several labels for each picture"):
        load_cases([save(data)])


def test_what_cannot_be_loaded_is_told_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ScanError, match="cannot be loaded") as refusal:
        huggingface_manifest(str(tmp_path / "empty"))
    assert refusal.value.exit_status == 3


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UsageError, match="needs the package datasets") as refusal:
        huggingface_manifest("owner/name")
    assert refusal.value.hint == "pip install 'medcli[datasets]'"
