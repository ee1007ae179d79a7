from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medcli.config import PreprocessConfig
from medcli.data.sources import load_cases
from medcli.data.splits import PARTS, split_by_patient
from medcli.errors import ScanError
from medcli.imaging.batch import read_case
from medcli.imaging.preprocess import Preprocessor
from medcli.records import Case, Failure, Scan, Task
from medcli.training import gather
from medcli.training.gather import (
    ReadScan,
    inputs_at_hand,
    look_at,
    part_arrays,
    read_cases,
)

SETTINGS = PreprocessConfig(size=16, mean=(0.4,), std=(0.1,))


def cases_of(manifest: Path) -> tuple[Case, ...]:
    return load_cases([str(manifest)]).cases


def read(
    cases: tuple[Case, ...],
    settings: PreprocessConfig = SETTINGS,
    slices: int = gather.TRAIN_SLICES,
) -> list[ReadScan]:
    return read_cases(
        cases, settings, slices, on_read=lambda done, total: None, on_failure=lambda failure: None
    )


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(path)


# ---- what is here when nothing is named ----


def test_a_manifest_here_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "manifest.csv").touch()
    picture(tmp_path / "a" / "1.png")
    picture(tmp_path / "b" / "1.png")
    inputs, sentence, synthetic = inputs_at_hand(tmp_path / "scratch")
    assert inputs == (str(tmp_path / "manifest.csv"),)
    assert "manifest.csv" in sentence
    assert not synthetic


def test_then_class_folders_with_scans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    picture(tmp_path / "train" / "a" / "deep" / "1.png")
    picture(tmp_path / "train" / "b" / "1.png")
    inputs, sentence, synthetic = inputs_at_hand(tmp_path / "scratch")
    assert inputs == (str(tmp_path),)
    assert "class folders" in sentence
    assert not synthetic


def test_else_sample_data_are_generated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "here"
    (here / "source" / "code").mkdir(parents=True)
    (here / "source" / "notes.txt").write_text("no scan")
    picture(here / "pictures" / "1.png")  # one folder with scans is no two classes
    monkeypatch.chdir(here)
    inputs, sentence, synthetic = inputs_at_hand(tmp_path / "scratch")
    assert synthetic
    assert "generated sample data" in sentence
    data = load_cases(inputs)
    assert len(data.classes) == 2
    assert all(case.columns["synthetic"] == "true" for case in data.cases)
    assert sorted(path.name for path in here.iterdir()) == ["pictures", "source"]


# ---- looking and reading ----


def test_facts_come_from_a_few_scans(
    sample_folder: Path, picture_manifest: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = look_at(cases_of(sample_folder / "nodule.csv"))
    assert facts.stacks
    assert facts.unit == "HU"
    assert facts.modality == "CT"
    looked: list[Case] = []
    monkeypatch.setattr(gather, "SAMPLE", 3)
    monkeypatch.setattr(
        gather, "read_all", lambda chosen: [looked.append(c) or (c, read_case(c)) for c in chosen]
    )
    cases = cases_of(picture_manifest(9))
    assert not look_at(cases).stacks
    assert looked == [cases[0], cases[4], cases[8]]


def test_nothing_readable_to_look_at_says_why(picture_manifest: Callable[..., Path]) -> None:
    with pytest.raises(ScanError, match="none of the scans can be read; the first:") as caught:
        look_at(cases_of(picture_manifest(4, broken=range(4))))
    assert caught.value.exit_status == 3


def test_scans_are_read_as_the_model_will_see_them(sample_folder: Path) -> None:
    cases = cases_of(sample_folder / "nodule.csv")
    for item in read(cases[:3]):
        scan = read_case(item.case)
        assert isinstance(scan, Scan)
        expected = Preprocessor(SETTINGS).unit_input(scan)
        assert item.images.dtype == np.uint8
        np.testing.assert_allclose(item.images / 255, expected, atol=0.5 / 255 + 1e-6)


def test_long_series_are_sampled_to_what_training_sees(
    sample_folder: Path,
) -> None:
    cases = cases_of(sample_folder / "nodule.csv")[:1]
    whole = read(cases)[0].images
    sampled = read(cases, slices=3)[0].images
    assert np.array_equal(sampled, whole[np.linspace(0, len(whole) - 1, 3).round().astype(int)])


def test_the_patient_of_the_tags_counts_where_the_manifest_names_none(sample_folder: Path) -> None:
    cases = cases_of(sample_folder / "nodule.csv")
    dicom = [case for case in cases if case.kind == "dicom"][:2]
    unnamed = tuple(replace(case, patient_id=None) for case in dicom)
    assert [item.case.patient_id for item in read(unnamed)] == [c.patient_id for c in dicom]
    other = tuple(replace(case, patient_id="someone") for case in dicom)
    assert {item.case.patient_id for item in read(other)} == {"someone"}


def test_up_to_one_scan_in_twenty_may_be_unreadable(picture_manifest: Callable[..., Path]) -> None:
    failures: list[Failure] = []
    heard: list[tuple[int, int]] = []
    items = read_cases(
        cases_of(picture_manifest(20, broken=[7])),
        SETTINGS,
        on_read=lambda done, total: heard.append((done, total)),
        on_failure=failures.append,
    )
    assert len(items) == 19
    assert [Path(failure.path).name for failure in failures] == ["007.png"]
    assert heard == [(done, 20) for done in range(1, 21)]


def test_more_unreadable_scans_stop_the_run(picture_manifest: Callable[..., Path]) -> None:
    with pytest.raises(ScanError, match=r"2 of 20 scans cannot be read; the first: .*003\.png"):
        read(cases_of(picture_manifest(20, broken=[3, 7])))


def test_each_part_gets_its_own_scans_and_labels(picture_manifest: Callable[..., Path]) -> None:
    items = read(cases_of(picture_manifest(12)))
    split = split_by_patient([item.case for item in items], seed=1)
    arrays = part_arrays(items, split, Task("t", ("b", "a")))
    images = {item.case.scan_id: item.images for item in items}
    for part in PARTS:
        cases = getattr(split, part)
        assert arrays[part].labels.tolist() == [("b", "a").index(case.label) for case in cases]
        for number, case in enumerate(cases):
            chosen = arrays[part].select(np.array([number]))
            assert np.array_equal(chosen.images, images[case.scan_id])


def test_a_part_without_scans_is_empty_but_has_a_shape(
    picture_manifest: Callable[..., Path],
) -> None:
    items = read(cases_of(picture_manifest(8)))
    split = split_by_patient([item.case for item in items], test_fraction=0.0)
    arrays = part_arrays(items, split, Task("t", ("a", "b")))
    assert arrays["test"].images.shape == (0, 1, 16, 16)
    assert len(arrays["test"].labels) == 0
