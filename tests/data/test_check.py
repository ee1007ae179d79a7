"""What a check says of a data set, each fault made by hand."""

from __future__ import annotations

import shutil
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image

from medcli.codes import FINDINGS
from medcli.data.advice import ADVICE
from medcli.data.check import Check, check_scans
from medcli.data.gathering import gather_cases
from medcli.errors import ManifestError
from medcli.imaging.isolation.together import Batch
from medcli.records import Case, Scan

Draw = Callable[..., Path]


@pytest.fixture
def draw(tmp_path: Path) -> Draw:
    """Write a picture of noise drawn from `seed`, or of `pixels`."""

    def write(name: str, seed: int = 0, size: int = 32, pixels: np.ndarray | None = None) -> Path:
        noise = np.random.default_rng(seed).integers(0, 255, (size, size), np.uint8)
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise if pixels is None else pixels).save(path)
        return path

    return write


@pytest.fixture
def check(tmp_path: Path) -> Callable[..., Check]:
    """Check the manifest with these rows, else everything in the folder."""

    def run(*rows: str, columns: str = "path,label,patient_id") -> Check:
        if not rows:
            return check_scans(gather_cases([str(tmp_path)]))
        (tmp_path / "m.csv").write_text("\n".join([columns, *rows]) + "\n")
        return check_scans(gather_cases([str(tmp_path / "m.csv")], any_boxes=True))

    return run


def found(result: Check) -> dict[str, list[list[str]]]:
    """The groups of file names by code."""
    return {
        finding.code: [[Path(path).name for path in group] for group in finding.groups]
        for finding in result.findings
    }


def test_a_sound_data_set_has_no_findings(draw: Draw, check: Callable[..., Check]) -> None:
    for number in range(3):
        draw(f"{number}.png", seed=number)
    result = check("0.png,a,P", "1.png,a,P", "2.png,b,Q")
    assert result.findings == ()
    assert result.counts == {"scans": 3, "good": 3, "warned": 0, "failed": 0, "skipped": 0}
    assert result.labels == {"a": 2, "b": 1}
    assert result.patients == 2


def test_constant_blank_and_tiny_pictures_are_found(
    draw: Draw, check: Callable[..., Check]
) -> None:
    draw("good.png")
    draw("constant.png", pixels=np.full((32, 32), 7, np.uint8))
    draw("red.png", pixels=np.full((32, 32, 3), (200, 0, 0), np.uint8))
    almost = np.zeros((64, 64), np.uint8)
    almost[5, 5:8] = 200  # 3 of 4,096
    draw("blank.png", pixels=almost)
    little = np.zeros((64, 64), np.uint8)
    little[5, 5:10] = 200  # 5 of 4,096: there is something
    draw("little.png", pixels=little)
    draw("tiny.png", seed=5, size=15)
    checked = check()
    result = found(checked)
    (constant,) = (each for each in checked.scans if each.path.endswith("constant.png"))
    assert [warning.code for warning in constant.warnings].count("constant") == 1
    assert result["constant"] == [["constant.png"], ["red.png"]]
    assert result["blank"] == [["blank.png"]]
    assert result["tiny"] == [["tiny.png"]]


def test_a_blank_picture_is_blank_in_jpeg_too(draw: Draw, check: Callable[..., Check]) -> None:
    stirred = 128 + np.random.default_rng(0).integers(0, 2, (64, 64))
    draw("blank.jpg", pixels=stirred.astype(np.uint8))
    assert found(check())["blank"] == [["blank.jpg"]]


def test_no_pixels_are_kept(draw: Draw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from medcli.imaging import batch
    from medcli.imaging.isolation import pool

    arrays: list[weakref.ref[np.ndarray]] = []
    whole = pool.read_in_worker

    def remember(case: Case, together: Batch) -> Scan:
        scan = whole(case, together)
        arrays.append(weakref.ref(scan.pixels))
        return scan

    monkeypatch.setattr(pool, "read_in_worker", remember)
    cases = gather_cases([str(draw(f"{number}.png", seed=number)) for number in range(120)])
    alive: list[int] = []
    result = check_scans(
        cases, on_scan=lambda *_: alive.append(sum(array() is not None for array in arrays))
    )
    assert len(result.scans) == len(arrays) == 120
    assert max(alive) <= batch.MOST_AHEAD + 4


def test_pictures_of_one_value_are_no_copies_of_each_other(
    draw: Draw, check: Callable[..., Check]
) -> None:
    for name in ("a.png", "b.png"):
        draw(name, pixels=np.zeros((32, 32), np.uint8))
    assert "duplicate" not in found(check())


def test_a_constant_slice_of_a_stack_is_found(draw: Draw, check: Callable[..., Check]) -> None:
    draw("0.png")
    draw("1.png", pixels=np.zeros((32, 32), np.uint8))
    result = check("0.png,a,P,s,0", "1.png,a,P,s,1", columns="path,label,patient_id,scan_id,slice")
    assert found(result) == {"constant_slices": [["0.png"]]}


def test_copies_are_found_by_their_pixels(draw: Draw, check: Callable[..., Check]) -> None:
    draw("a.png")
    draw("b.bmp")  # the same pixels in another format
    draw("c.png", seed=1)
    result = check("a.png,x,P", "b.bmp,x,Q", "c.png,y,R")
    assert found(result) == {"duplicate": [["a.png", "b.bmp"]]}
    assert result.counts["warned"] == 2
    (warning,) = result.scans[0].warnings
    assert warning.code == "duplicate"
    assert "b.bmp" in warning.message


def test_one_picture_under_two_labels_is_the_gravest(
    draw: Draw, check: Callable[..., Check]
) -> None:
    draw("a.png")
    draw("b.png")
    result = check("a.png,x,P", "b.png,y,Q")
    assert [finding.code for finding in result.findings] == ["label_conflict", "duplicate"]


def test_patients_in_two_classes_and_two_splits_are_found(
    draw: Draw, check: Callable[..., Check]
) -> None:
    for number in range(4):
        draw(f"{number}.png", seed=number)
    result = check(
        "0.png,x,P,train",
        "1.png,y,P,train",
        "2.png,x,Q,train",
        "3.png,x,Q,test",
        columns="path,label,patient_id,split",
    )
    assert found(result) == {
        "patient_in_two_classes": [["0.png", "1.png"]],
        "patient_in_two_splits": [["2.png", "3.png"]],
    }


def test_copies_in_two_splits_are_found(draw: Draw, check: Callable[..., Check]) -> None:
    draw("a.png")
    draw("b.png")
    result = check("a.png,x,P,train", "b.png,x,Q,val", columns="path,label,patient_id,split")
    assert set(found(result)) == {"copy_in_two_splits", "duplicate"}


def test_unknown_patients_are_never_one_patient(draw: Draw, check: Callable[..., Check]) -> None:
    draw("a.png")
    draw("b.png", seed=1)
    result = check("a.png,x,", "b.png,y,")
    assert found(result) == {"unknown_patient": [["a.png"], ["b.png"]]}
    assert result.counts["good"] == 2  # a note is no fault of a scan


def test_a_size_that_is_not_the_rule_is_found(draw: Draw, check: Callable[..., Check]) -> None:
    for number in range(9):
        draw(f"{number}.png", seed=number)
    draw("other.png", seed=9, size=48)
    result = check()
    assert found(result)["odd_size"] == [["other.png"]]
    (finding,) = (finding for finding in result.findings if finding.code == "odd_size")
    assert "32×32" in finding.message


def test_where_no_size_is_the_rule_that_is_a_note(draw: Draw, check: Callable[..., Check]) -> None:
    for number in range(4):
        draw(f"{number}.png", seed=number, size=32 + 16 * (number % 2))
    result = check()
    (finding,) = (finding for finding in result.findings if finding.code == "many_sizes")
    assert "from 32×32 to 48×48" in finding.message
    assert (finding.level, finding.count) == ("note", 4)


def test_what_the_reader_noticed_is_told_by_code(
    sample_folder: Path, tmp_path: Path, check: Callable[..., Check]
) -> None:
    shutil.copytree(sample_folder / "ct" / "SYN-0001-1", tmp_path / "gap")
    sorted((tmp_path / "gap").iterdir())[2].unlink()
    shutil.copytree(sample_folder / "ct" / "SYN-0002-1", tmp_path / "whole")
    result = check()
    assert found(result) == {"gap": [["gap"]]}
    assert result.counts == {"scans": 2, "good": 1, "warned": 1, "failed": 0, "skipped": 0}


def save(source: Path, target: Path, **tags: object) -> None:
    dataset = pydicom.dcmread(source)
    dataset.pop("BurnedInAnnotation", None)
    for name, value in tags.items():
        setattr(dataset, name, value)
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = (
        pydicom.uid.generate_uid()
    )
    if "SOPClassUID" in tags:
        dataset.file_meta.MediaStorageSOPClassUID = str(tags["SOPClassUID"])
    dataset.PixelData = bytes(
        np.random.default_rng(len(target.name)).permutation(
            np.frombuffer(dataset.PixelData, np.uint16)
        )
    )
    dataset.save_as(target)


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"BurnedInAnnotation": "YES"}, True),
        ({"BurnedInAnnotation": "NO"}, False),
        ({}, False),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, True),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7.4"}, True),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.77.1.1"}, False),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7", "BurnedInAnnotation": "NO"}, False),
        ({"BurnedInAnnotation": "DOE JANE"}, False),
    ],
)
def test_text_that_may_be_burned_in_is_found_by_tag(
    sample_folder: Path,
    tmp_path: Path,
    check: Callable[..., Check],
    tags: dict[str, str],
    expected: bool,
) -> None:
    save(sample_folder / "scan.dcm", tmp_path / "a.dcm", **tags)
    result = check()
    assert ("burned_in_text" in found(result)) is expected
    assert "JANE" not in repr(result)


def test_monochrome1_among_monochrome2_is_a_note(
    sample_folder: Path, tmp_path: Path, check: Callable[..., Check]
) -> None:
    scan = sample_folder / "scan.dcm"
    save(scan, tmp_path / "a.dcm", PhotometricInterpretation="MONOCHROME1", Modality="CR",
         SeriesInstanceUID="1.2.3")  # fmt: skip
    assert "mixed_photometric" not in found(check())
    save(scan, tmp_path / "bb.dcm", Modality="CR", SeriesInstanceUID="1.2.4")
    assert found(check())["mixed_photometric"] == [["a.dcm"]]


@pytest.mark.parametrize(
    ("corners", "what"),
    [
        ("5,5,1,9", "a.png: the box (5, 5, 1, 9) is inverted"),
        ("5,5,9,5", "a.png: the box (5, 5, 9, 5) is empty"),
        ("5,-5,9,9", "a.png: the box (5, -5, 9, 9) begins outside the picture"),
        ("5,5,33,9", "a.png: the box (5, 5, 33, 9) leaves its picture of 32 x 32 pixels"),
        ("5,five,9,9", "a.png: a box of '5', 'five', '9', '9'"),
        ("5,5,,9", "a.png: a box of '5', '5', '', '9'"),
    ],
)
def test_a_box_that_no_detector_can_learn_from_is_found(
    draw: Draw, check: Callable[..., Check], corners: str, what: str
) -> None:
    draw("a.png", 1)
    draw("b.png", 2)
    rows = (f"a.png,polyp,1,{corners}", "a.png,polyp,1,0,0,32,32", "b.png,polyp,2,,,,")
    result = check(*rows, columns="path,label,patient_id,x0,y0,x1,y1")
    assert found(result) == {"box_unusable": [["a.png"]]}
    assert what in result.findings[0].message
    assert result.counts["good"] == 1
    (warning,) = result.scans[0].warnings
    assert (warning.code, warning.message) == ("box_unusable", what)


def test_a_column_that_boxes_lack_is_named(draw: Draw, tmp_path: Path) -> None:
    draw("a.png")
    (tmp_path / "m.csv").write_text("path,patient_id,x0,y0,x1,boxes\na.png,1,1,2,3,many\n")
    notes: list[str] = []
    cases = gather_cases([str(tmp_path / "m.csv")], on_note=notes.append, any_boxes=True)
    assert [note.partition("m.csv ")[2] for note in notes] == ["has boxes, and no column 'y1'"]
    assert "box_unusable" in found(check_scans(cases))
    with pytest.raises(ManifestError, match="a box of '1', '2', '3', ''"):
        gather_cases([str(tmp_path / "m.csv")])


def test_unreadable_files_come_first_and_the_others_go_on(
    draw: Draw, tmp_path: Path, check: Callable[..., Check]
) -> None:
    whole = draw("good.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[:300])
    (tmp_path / "words.png").write_text("no picture")
    (tmp_path / "notes.txt").write_text("mine")
    result = check()
    assert result.counts == {"scans": 3, "good": 1, "warned": 0, "failed": 2, "skipped": 1}
    errors = [finding for finding in result.findings if finding.level == "error"]
    assert {finding.code for finding in errors} == {"truncated", "not_an_image"}
    assert result.findings[: len(errors)] == tuple(errors)
    assert all(finding.advice for finding in result.findings)


def test_a_missing_decoder_is_told_with_the_line_to_type(
    draw: Draw, check: Callable[..., Check], monkeypatch: pytest.MonkeyPatch
) -> None:
    from medcli.errors import ScanError
    from medcli.imaging import batch

    def refuse(*_: object) -> None:
        hint = "pip install python-gdcm"
        raise ScanError("decoder_missing", f"{path}: no decoder for JPEG Lossless (1.2.4.70)", hint)

    path = draw("a.png")
    monkeypatch.setattr(batch, "read_safely", refuse)
    (finding,) = [found for found in check().findings if found.level == "error"]
    assert finding.message == "No decoder for JPEG Lossless (1.2.4.70)."
    assert finding.advice == "pip install python-gdcm"


def test_progress_and_failures_are_told_as_they_come(draw: Draw, tmp_path: Path) -> None:
    draw("a.png")
    steps: list[tuple[int, int]] = []
    failures: list[str] = []
    check_scans(
        gather_cases([str(tmp_path / "a.png"), "gone.png"]),
        on_scan=lambda done, total: steps.append((done, total)),
        on_failure=lambda failure: failures.append(failure.code),
    )
    assert steps == [(1, 2), (2, 2)]
    assert failures == ["not_found"]


def test_every_finding_has_advice() -> None:
    assert FINDINGS.keys() <= ADVICE.keys()
