"""DICOM objects that medcli makes, read back."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest

from medcli.errors import ScanError, UsageError
from medcli.imaging.dicom_answer import SCHEME, write_answer
from medcli.imaging.dicom_capture import write_capture
from medcli.imaging.discovery import find_scans
from medcli.imaging.reader import read_scan
from medcli.records import Case, Prediction, Scan

pytest.importorskip("highdicom", reason="the extra highdicom is not installed")
FORBIDDEN = ("InstitutionName", "OperatorsName", "PatientAddress", "StationName", "ProtocolName")


@pytest.fixture
def scan(sample_folder: Path, tmp_path: Path) -> Scan:
    """A series of a named patient, with what must not be handed on."""
    series = sorted((sample_folder / "ct").iterdir())[0]
    for file in sorted(series.iterdir()):
        dataset = pydicom.dcmread(file)
        dataset.PatientName, dataset.PatientID = "Doe^Jane", "4711"
        dataset.IssuerOfPatientID, dataset.PatientBirthDate = "HOSPITAL", "19500101"
        dataset.PatientSex, dataset.AccessionNumber = "F", "A-1"
        dataset.StudyDate, dataset.StudyDescription = "20260101", "Chest"
        for keyword in FORBIDDEN:
            setattr(dataset, keyword, "hidden")
        dataset.add_new(0x00091001, "LO", "hidden")
        dataset.save_as(tmp_path / file.name)
    return read(tmp_path)


def read(folder: Path) -> Scan:
    (case,) = find_scans([str(folder)])
    assert isinstance(case, Case)
    return read_scan(case)


@pytest.fixture
def prediction(scan: Scan) -> Prediction:
    return Prediction(
        path=scan.path,
        scan_id=scan.scan_id,
        files=scan.files,
        task="nodule",
        label="malignant",
        probability=0.75,
        probabilities={"benign": 0.25, "malignant": 0.75},
        positive="malignant",
        model="3f9ac1d0b7e2",
        synthetic=True,
        uncertain=True,
    )


def check_filed_with(made: pydicom.Dataset, scan: Scan) -> None:
    """The same patient and study, a series and an instance of its own, and nothing else."""
    source = pydicom.dcmread(scan.slice_files[0], stop_before_pixels=True)
    for keyword in (
        *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "IssuerOfPatientID"),
        *("StudyInstanceUID", "StudyDate", "StudyDescription", "AccessionNumber"),
    ):
        assert made[keyword].value == source[keyword].value, keyword
    assert made.SeriesInstanceUID != source.SeriesInstanceUID
    assert made.SOPInstanceUID != source.SOPInstanceUID
    assert made.Manufacturer == "medcli"
    assert made.DeviceSerialNumber == "3f9ac1d0b7e2"
    written = str(made)
    assert "hidden" not in written
    assert not any(keyword in made for keyword in FORBIDDEN)


def test_a_secondary_capture_lies_in_the_study_of_its_images(scan: Scan, tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (30, 50, 3), np.uint8)
    place = tmp_path / "out" / "heat.dcm"
    place.parent.mkdir()
    what = {"description": "medcli gradcam: malignant", "fingerprint": "3f9ac1d0b7e2"}
    write_capture(place, scan, picture, **what)
    made = pydicom.dcmread(place)
    check_filed_with(made, scan)
    np.testing.assert_array_equal(made.pixel_array, picture)
    assert made.SOPClassUID == pydicom.uid.SecondaryCaptureImageStorage
    assert list(made.ImageType[:2]) == ["DERIVED", "SECONDARY"]
    assert made.BurnedInAnnotation == "NO"
    named = [item.ReferencedSOPInstanceUID for item in made.SourceImageSequence]
    own = [pydicom.dcmread(file, stop_before_pixels=True) for file in scan.slice_files]
    assert named == [each.SOPInstanceUID for each in own]
    assert read(place).pixels.shape == (1, 30, 50, 3)


def test_a_secondary_capture_beside_its_images_is_passed_over(scan: Scan, tmp_path: Path) -> None:
    picture = np.zeros((30, 50, 3), np.uint8)
    write_capture(tmp_path / "heat.dcm", scan, picture, description="x", fingerprint="3f")
    assert read(tmp_path).files == scan.files


def test_an_answer_as_a_structured_report_says_what_was_predicted(
    scan: Scan, prediction: Prediction, tmp_path: Path
) -> None:
    from highdicom.sr import srread

    place = tmp_path / "answer.dcm"
    write_answer(place, scan, prediction)
    made = srread(place)
    check_filed_with(made, scan)
    assert (made.CompletionFlag, made.VerificationFlag) == ("COMPLETE", "UNVERIFIED")
    assert made.PreliminaryFlag == "PRELIMINARY"
    (group,) = made.content.get_image_measurement_groups()
    assert group.finding_type is not None
    assert group.finding_type.meaning == "malignant"
    assert group.finding_type.scheme_designator == SCHEME
    values = {each.name.meaning: float(each.value) for each in group.get_measurements()}
    assert values == {"Probability of benign": 0.25, "Probability of malignant": 0.75}
    doubts = {e.name.meaning: e.value.meaning for e in group.get_qualitative_evaluations()}
    assert doubts == {"Uncertain": "Yes", "Model knows generated pictures only": "Yes"}
    assert len(group.source_images) == len(scan.slice_files)


def test_the_same_class_has_the_same_code(scan: Scan) -> None:
    from medcli.imaging.dicom_answer import model_uid, own_code

    assert own_code("malignant").value == own_code("malignant").value
    assert own_code("malignant").value != own_code("benign").value
    assert len(own_code("x" * 200).meaning) == 64
    assert model_uid("a") == model_uid("a") != model_uid("b")


def test_blank_and_damaged_tags_do_not_stop_an_object(
    scan: Scan, prediction: Prediction, tmp_path: Path
) -> None:
    folder = tmp_path / "blank"
    folder.mkdir()
    for file in scan.slice_files:
        dataset = pydicom.dcmread(file)
        dataset.PatientID, dataset.PatientSex, dataset.PatientName = "", "X", ""
        dataset.StudyDate = ""
        dataset.add_new("StudyTime", "TM", "")
        del dataset.PatientBirthDate, dataset.AccessionNumber
        dataset.StudyInstanceUID = ""
        dataset.save_as(folder / Path(file).name)
    place = tmp_path / "answer.dcm"
    write_answer(place, read(folder), prediction)
    made = pydicom.dcmread(place)
    assert made.PatientID in ("", None)
    assert made.PatientSex in ("", None)
    assert made.StudyInstanceUID.startswith("2.25.")


def test_a_picture_has_no_study_to_be_filed_in(
    sample_folder: Path, prediction: Prediction, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="no DICOM"):
        write_answer(tmp_path / "answer.dcm", read(sample_folder / "query.png"), prediction)


def test_an_image_that_is_gone_is_named(scan: Scan, prediction: Prediction, tmp_path: Path) -> None:
    Path(scan.slice_files[0]).unlink()
    with pytest.raises(ScanError) as error:
        write_answer(tmp_path / "answer.dcm", scan, prediction)
    assert error.value.code == "not_found"


def test_without_the_extra_the_error_says_how_to_get_it(
    scan: Scan, prediction: Prediction, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(UsageError, match="highdicom") as error:
        write_answer(tmp_path / "answer.dcm", scan, prediction)
    assert "medcli[highdicom]" in error.value.hint
