"""Boxes as a DICOM structured report, read back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest

from medcli.errors import UsageError
from medcli.imaging.dicom_boxes import write_boxes
from medcli.imaging.discovery import find_scans
from medcli.imaging.png_writer import write_png
from medcli.imaging.reader import read_scan
from medcli.inference.lesions import join_slices
from medcli.records import Case, Detection, FoundBox, Scan

pytest.importorskip("highdicom", reason="the extra highdicom is not installed")


def read(path: Path) -> Scan:
    (case,) = find_scans([str(path)])
    assert isinstance(case, Case)
    return read_scan(case)


@pytest.fixture
def scan(sample_folder: Path) -> Scan:
    return read(sorted((sample_folder / "ct").iterdir())[0])


def found(scan: Scan, *boxes: FoundBox) -> Detection:
    joined, lesions = join_slices(boxes)
    return Detection(
        scan.path, scan.scan_id, scan.files, "nodule-detection", joined, lesions, "3f9a", False
    )


def test_every_box_points_to_its_image(scan: Scan, tmp_path: Path) -> None:
    from highdicom.sr import srread

    place = tmp_path / "boxes.dcm"
    boxes = (
        FoundBox(4.5, 6, 14.5, 18, 0.75, 1, "nodule"),
        FoundBox(5, 6, 15, 18, 0.5, 2, "nodule"),
        FoundBox(20, 20, 24, 24, 0.25, 0, "mass"),
    )
    write_boxes(place, scan, found(scan, *boxes))
    made = srread(place)
    source = [pydicom.dcmread(file, stop_before_pixels=True) for file in scan.slice_files]
    assert made.PatientID == source[0].PatientID
    assert made.StudyInstanceUID == source[0].StudyInstanceUID
    assert made.VerificationFlag == "UNVERIFIED"
    groups = made.content.get_planar_roi_measurement_groups()
    assert len(groups) == 3
    for group, box in zip(groups, boxes, strict=True):
        assert group.finding_type.meaning == box.label
        corners = np.asarray(group.roi.value)
        assert corners.min(axis=0).tolist() == [box.x0, box.y0]
        assert corners.max(axis=0).tolist() == [box.x1, box.y1]
        (named,) = group.roi.ContentSequence
        (item,) = named.ReferencedSOPSequence
        assert item.ReferencedSOPInstanceUID == source[box.slice].SOPInstanceUID
        (score,) = group.get_measurements()
        assert score.value == pytest.approx(box.score)
    first, second, other = [group.tracking_uid for group in groups]
    assert first == second != other  # one lesion, and another


def test_a_scan_without_finding_has_a_report_that_says_so(scan: Scan, tmp_path: Path) -> None:
    from highdicom.sr import srread

    place = tmp_path / "none.dcm"
    write_boxes(place, scan, found(scan))
    made = srread(place).content
    assert made.get_planar_roi_measurement_groups() == []
    (group,) = made.get_image_measurement_groups()
    assert group.finding_type.meaning == "no finding"


def test_a_picture_has_no_study_to_file_a_report_in(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", np.zeros((20, 20), np.uint8))
    scan = read(tmp_path / "a.png")
    with pytest.raises(UsageError, match="no DICOM"):
        write_boxes(tmp_path / "out.dcm", scan, found(scan))
