"""Which files of a series are slices: screen captures, localizers by makers' names, time of day."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
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


@pytest.mark.parametrize("per_folder", [1, 3])
def test_a_series_spread_over_folders_is_one_scan(
    tmp_path: Path, write_ct_series: Any, hu_volume: Any, codes: Any, per_folder: int
) -> None:
    volume = hu_volume(8)
    paths = write_ct_series(tmp_path / "x", volume, order=[3, 7, 0, 5, 2, 6, 1, 4])
    for number, path in enumerate(paths):
        folder = tmp_path / "series" / f"{number // per_folder}"
        folder.mkdir(parents=True, exist_ok=True)
        Path(path).rename(folder / "IM" if per_folder == 1 else folder / Path(path).name)
    (case,) = find_scans([str(tmp_path / "series")])
    assert isinstance(case, Case)
    assert case.path == str(tmp_path / "series")
    scan = read_scan(case)
    np.testing.assert_array_equal(scan.pixels[..., 0], volume)
    assert codes(scan) == ["several_folders"]
    assert scan.spacing_mm[0] == pytest.approx(2.5)


@pytest.mark.parametrize(
    "shift",
    [(0, 0, 0), (5, 0, 7.5), (0, 0, 7.5)],
    ids=["a copy", "a crop from elsewhere", "the rest of the series"],
)
def test_folders_are_united_only_where_they_complement_each_other(
    tmp_path: Path, write_ct_series: Any, hu_volume: Any, shift: tuple[float, ...]
) -> None:
    tags = {"SeriesInstanceUID": "1.2.3", "FrameOfReferenceUID": "1.7"}
    for name, scale in (("a", 0), ("b", 1)):
        origin = tuple(scale * part for part in shift)
        write_ct_series(tmp_path / name, hu_volume(3), origin=origin, **tags)
    expected = [6] if shift == (0, 0, 7.5) else [3, 3]
    assert [len(scan.pixels) for scan in scans_in(tmp_path)] == expected


def test_radiographs_of_one_series_in_several_folders_stay_apart(
    tmp_path: Path, write_dicom: Any
) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        write_dicom(
            tmp_path / name / "x.dcm", np.zeros((4, 5), np.uint16), **SERIES | {"Modality": "DX"}
        )
    assert [len(scan.pixels) for scan in scans_in(tmp_path)] == [1, 1]


def test_no_time_of_day_leaves_the_reader(
    tmp_path: Path, write_ct_series: Any, hu_volume: Any
) -> None:
    write_ct_series(tmp_path, hu_volume(3), AcquisitionTime="101112.345", SeriesInstanceUID="1.2.3")
    (found,) = find_scans([str(tmp_path)])
    (scan,) = scans_in(tmp_path)
    assert "101112" not in f"{found!r}{scan!r}{dict(scan.metadata)}"


def with_own_frames(paths: list[str], first: int = 0) -> None:
    """Give each file a frame of reference of its own."""
    for number, path in enumerate(paths, start=first):
        dataset = pydicom.dcmread(path)
        dataset.FrameOfReferenceUID = f"1.9.{number}"
        dataset.save_as(path)


def test_a_frame_of_reference_in_every_slice_parts_nothing(
    tmp_path: Path, write_ct_series: Any, hu_volume: Any, codes: Any
) -> None:
    hu = hu_volume(5)
    with_own_frames(write_ct_series(tmp_path, hu, order=[3, 0, 4, 1, 2]))
    (scan,) = scans_in(tmp_path)
    assert codes(scan) == ["frames_of_reference"]
    np.testing.assert_array_equal(scan.pixels[..., 0], hu)
    assert scan.spacing_mm == pytest.approx((2.5, 0.7, 0.8))


def test_slices_with_own_frames_of_reference_beside_others_stay_apart(
    tmp_path: Path, write_ct_series: Any, hu_volume: Any, codes: Any
) -> None:
    """Two of them are too few to tell; those of one orientation are a scan, the others another."""
    tags = {"SeriesInstanceUID": "1.2.3"}
    with_own_frames(write_ct_series(tmp_path / "a", hu_volume(2), **tags))
    assert [len(scan.pixels) for scan in scans_in(tmp_path / "a")] == [1, 1]
    sagittal = (0, 1, 0, 0, 0, -1)
    with_own_frames(write_ct_series(tmp_path / "b", hu_volume(4), **tags))
    turned = write_ct_series(tmp_path / "c", hu_volume(3), orientation=sagittal, **tags)
    with_own_frames(turned, first=10)
    for path in turned:
        Path(path).rename(tmp_path / "b" / f"sagittal{Path(path).name}")
    scans = scans_in(tmp_path / "b")
    assert sorted(len(scan.pixels) for scan in scans) == [3, 4]
    assert {code for scan in scans for code in codes(scan)} == {"frames_of_reference"}


def test_slices_at_one_position_with_own_frames_of_reference_are_no_stack(
    tmp_path: Path, write_ct_series: Any, hu_volume: Any
) -> None:
    with_own_frames(write_ct_series(tmp_path, hu_volume(4), spacing=(0.0, 1.0, 1.0)))
    assert [len(scan.pixels) for scan in scans_in(tmp_path)] == [1, 1, 1, 1]


def test_a_slice_a_folder_with_a_frame_of_reference_each_is_one_scan(
    tmp_path: Path, write_ct_series: Any, hu_volume: Any, codes: Any
) -> None:
    paths = write_ct_series(tmp_path / "x", hu_volume(4))
    with_own_frames(paths)
    for number, path in enumerate(paths):
        (tmp_path / "all" / str(number)).mkdir(parents=True)
        Path(path).rename(tmp_path / "all" / str(number) / "IM")
    (scan,) = scans_in(tmp_path / "all")
    assert codes(scan) == ["frames_of_reference", "several_folders"]
