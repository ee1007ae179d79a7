"""Which files of a series are slices: screen captures, localizers by makers' names, time of day."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medcli.imaging.discovery import find_scans
from medcli.imaging.reader import read_scan
from medcli.records import Case, Scan

CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
SERIES = {"SeriesInstanceUID": "1.2.3", "StudyInstanceUID": "1.2", "Modality": "CT"}


def scans_in(folder: Path) -> list[Scan]:
    return [read_scan(each) for each in find_scans([str(folder)]) if isinstance(each, Case)]


@pytest.mark.parametrize("sop_class", [CAPTURE, f"{CAPTURE}.4"])
def test_screens_without_a_position_are_scans_of_their_own(
    tmp_path: Path, write_dicom: Any, sop_class: str
) -> None:
    for number in range(3):
        screen = np.full((4, 5), number, np.uint8)
        write_dicom(tmp_path / f"{number}.dcm", screen, **SERIES, SOPClassUID=sop_class)
    assert [scan.pixels.shape for scan in scans_in(tmp_path)] == [(1, 4, 5, 1)] * 3


def test_slices_without_a_position_are_a_stack(tmp_path: Path, write_dicom: Any) -> None:
    for number in range(3):
        write_dicom(tmp_path / f"{number}.dcm", np.zeros((4, 5), np.uint16), **SERIES)
    assert [scan.pixels.shape for scan in scans_in(tmp_path)] == [(3, 4, 5, 1)]


@pytest.mark.parametrize("kind", ["LOCALIZER", "SCOUT", "TOPOGRAM", "REF_SURVIEW"])
def test_localizers_go_by_several_names(
    tmp_path: Path, write_ct_series: Any, hu_volume: Any, write_dicom: Any, codes: Any, kind: str
) -> None:
    write_ct_series(tmp_path, hu_volume(4), SeriesInstanceUID="1.2.3", FrameOfReferenceUID="1.7")
    write_dicom(
        tmp_path / "scout.dcm",
        np.zeros((30, 40), np.uint16),
        SeriesInstanceUID="1.2.3",
        FrameOfReferenceUID="1.7",
        ImageType=["DERIVED", "SECONDARY", kind],
        ImageOrientationPatient=[0, 1, 0, 0, 0, -1],
        ImagePositionPatient=[0, 0, 0],
    )
    (scan,) = scans_in(tmp_path)
    assert codes(scan) == ["localizer"]
    assert "scout.dcm" in scan.warnings[0].message
    assert len(scan.pixels) == 4


def test_frames_of_reference_part_a_series(
    tmp_path: Path, write_ct_series: Any, hu_volume: Any
) -> None:
    """Positions of two frames of reference cannot be compared."""
    for name, frame in (("a", "1.7"), ("b", "1.8")):
        tags = {"SeriesInstanceUID": "1.2.3", "FrameOfReferenceUID": frame}
        for path in write_ct_series(tmp_path / "x", hu_volume(3), **tags):
            Path(path).rename(tmp_path / f"{name}{Path(path).name}")
    assert [len(scan.pixels) for scan in scans_in(tmp_path)] == [3, 3]


def test_no_time_of_day_leaves_the_reader(
    tmp_path: Path, write_ct_series: Any, hu_volume: Any
) -> None:
    write_ct_series(tmp_path, hu_volume(3), AcquisitionTime="101112.345", SeriesInstanceUID="1.2.3")
    (found,) = find_scans([str(tmp_path)])
    (scan,) = scans_in(tmp_path)
    assert "101112" not in f"{found!r}{scan!r}{dict(scan.metadata)}"
