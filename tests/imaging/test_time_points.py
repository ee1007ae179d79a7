"""Series that hold a position more than once: time points, acquisitions, echoes, cine."""

from __future__ import annotations

import itertools
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from medcli.errors import ScanError
from medcli.imaging.discovery import find_scans
from medcli.imaging.reader import read_scan
from medcli.records import Case, Scan

COMMON = {"SeriesInstanceUID": "1.2.3", "FrameOfReferenceUID": "1.5", "StudyInstanceUID": "1.0"}


@pytest.fixture
def write_volumes(tmp_path: Path, write_ct_series: Any, hu_volume: Any) -> Any:
    """Write several volumes at the same positions as one series; file names interleave them."""

    def write(marks: list[dict[str, Any]], slices: int = 5) -> list[np.ndarray]:
        folder = tmp_path / "series"
        folder.mkdir()
        volumes = [hu_volume(slices, seed=seed) for seed in range(len(marks))]
        for number, (volume, tags) in enumerate(zip(volumes, marks, strict=True)):
            parts = write_ct_series(tmp_path / f"part{number}", volume, **COMMON, **tags)
            for path in parts:
                os.rename(path, folder / f"{Path(path).name}-{number}")
        return volumes

    return write


def scans_in(folder: Path) -> list[Scan]:
    found = find_scans([str(folder / "series")])
    assert all(isinstance(each, Case) for each in found)
    return [read_scan(each) for each in found if isinstance(each, Case)]


@pytest.mark.parametrize(
    ("tag", "values", "code"),
    [
        ("TemporalPositionIdentifier", [1, 2, 10], "time_points"),
        ("TriggerTime", [0, 90.5, 700], "time_points"),
        ("FrameReferenceTime", [0, 5000, 20000], "time_points"),
        ("AcquisitionTime", ["090000", "090130.5", "101010"], "time_points"),
        ("AcquisitionNumber", [1, 2, 77], "several_acquisitions"),
        ("EchoTime", [2.3, 4.6, 12], "several_acquisitions"),
        ("DiffusionBValue", [0, 50, 1000], "several_acquisitions"),
        ("ImageType", [["ORIGINAL", "PRIMARY", kind] for kind in "MPR"], "several_acquisitions"),
    ],
)
def test_repeated_positions_are_parted_by_the_tag_that_tells_them_apart(
    tmp_path: Path, write_volumes: Any, codes: Any, tag: str, values: list[Any], code: str
) -> None:
    volumes = write_volumes([{tag: value} for value in values])
    scans = scans_in(tmp_path)
    assert [codes(scan) for scan in scans] == [[code]] * 3
    assert [scan.scan_id for scan in scans] == ["1.2.3", "1.2.3~2", "1.2.3~3"]
    for number, (scan, volume) in enumerate(zip(scans, volumes, strict=True), start=1):
        assert tag in scan.warnings[0].message
        assert f"this is number {number}" in scan.warnings[0].message
        np.testing.assert_array_equal(scan.pixels[..., 0], volume)
        assert scan.spacing_mm[0] == pytest.approx(2.5)
        assert not any(str(value) in scan.warnings[0].message for value in values[2:])


def test_two_tags_part_together(tmp_path: Path, write_volumes: Any) -> None:
    marks = [
        {"TemporalPositionIdentifier": time, "EchoTime": echo}
        for time, echo in itertools.product((1, 2), (5, 10))
    ]
    volumes = write_volumes(marks)
    scans = scans_in(tmp_path)
    assert len(scans) == 4
    for scan, volume in zip(scans, volumes, strict=True):
        np.testing.assert_array_equal(scan.pixels[..., 0], volume)


def test_a_tag_that_differs_in_every_slice_parts_nothing(
    tmp_path: Path, write_ct_series: Any, hu_volume: Any, codes: Any
) -> None:
    """Every slice of a CT has its own time of acquisition."""
    for number in range(2):
        for index, path in enumerate(
            write_ct_series(tmp_path / "x", hu_volume(4, seed=number), **COMMON)
        ):
            dataset = pydicom.dcmread(path)
            dataset.AcquisitionTime = f"0900{10 * number + index:02d}"
            (tmp_path / "series").mkdir(exist_ok=True)
            dataset.save_as(tmp_path / "series" / f"{index}-{number}")
            os.remove(path)
    (scan,) = scans_in(tmp_path)
    assert codes(scan) == ["duplicate_slice"]
    np.testing.assert_array_equal(scan.pixels[..., 0], hu_volume(4, seed=0))


def test_without_a_tag_to_tell_them_apart_repeated_slices_are_dropped(
    tmp_path: Path, write_volumes: Any, codes: Any
) -> None:
    volumes = write_volumes([{}, {}])
    (scan,) = scans_in(tmp_path)
    assert codes(scan) == ["duplicate_slice"]
    np.testing.assert_array_equal(scan.pixels[..., 0], volumes[0])
    assert len(scan.files) == 10


def test_a_slice_taken_again_is_a_duplicate_and_no_scan(
    tmp_path: Path, write_ct_series: Any, hu_volume: Any, codes: Any
) -> None:
    volume = hu_volume(5)
    write_ct_series(tmp_path / "series", volume, AcquisitionNumber=1, **COMMON)
    (again,) = write_ct_series(
        tmp_path / "x", volume[:1], AcquisitionNumber=2, **{**COMMON, "InstanceNumber": 99}
    )
    os.rename(again, tmp_path / "series" / "again")
    (scan,) = scans_in(tmp_path)
    assert codes(scan) == ["duplicate_slice"]
    assert "again" in scan.warnings[0].message
    np.testing.assert_array_equal(scan.pixels[..., 0], volume)


@pytest.mark.parametrize(("shift", "parted"), [(0.9, True), (1.25, False), (12.5, False)])
def test_acquisitions_between_each_other_are_parted_where_they_are_uneven(
    tmp_path: Path, write_ct_series: Any, hu_volume: Any, codes: Any, shift: float, parted: bool
) -> None:
    """Halfway between each other they are one even stack, side by side a longer one."""
    volumes = [hu_volume(5, seed=seed) for seed in range(2)]
    (tmp_path / "series").mkdir()
    for number, volume in enumerate(volumes):
        origin = (-100, -120, 50 + number * shift)
        tags = {**COMMON, "AcquisitionNumber": number + 1}
        for path in write_ct_series(tmp_path / "x", volume, origin=origin, **tags):
            os.rename(path, tmp_path / "series" / f"{Path(path).name}-{number}")
    scans = scans_in(tmp_path)
    if parted:
        assert [codes(scan) for scan in scans] == [["several_acquisitions"]] * 2
        for scan, volume in zip(scans, volumes, strict=True):
            np.testing.assert_array_equal(scan.pixels[..., 0], volume)
            assert scan.spacing_mm[0] == pytest.approx(2.5)
    else:
        assert [(len(scan.pixels), codes(scan)) for scan in scans] == [(10, [])]


def test_moments_at_one_position_are_a_stack_in_time(
    tmp_path: Path, write_volumes: Any, codes: Any
) -> None:
    volumes = write_volumes([{"TriggerTime": time} for time in (30.5, 0, 120)], slices=1)
    (scan,) = scans_in(tmp_path)
    assert codes(scan) == ["time_points"]
    np.testing.assert_array_equal(
        scan.pixels[..., 0], np.concatenate([volumes[1], volumes[0], volumes[2]])
    )
    assert scan.spacing_mm == (None, 0.7, 0.8)


def functional_group(**macros: dict[str, Any]) -> Dataset:
    group = Dataset()
    for sequence, tags in macros.items():
        item = Dataset()
        for keyword, value in tags.items():
            setattr(item, keyword, value)
        setattr(group, sequence, Sequence([item]))
    return group


def enhanced(write_dicom: Any, path: Path, volume: np.ndarray, frames: list[Dataset]) -> Case:
    """An enhanced object whose frames (F, H, W) have functional groups."""
    shared = functional_group(
        PlaneOrientationSequence={"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]},
        PixelMeasuresSequence={"PixelSpacing": [0.5, 0.6]},
    )
    write_dicom(
        path,
        volume,
        Modality="MR",
        SharedFunctionalGroupsSequence=Sequence([shared]),
        PerFrameFunctionalGroupsSequence=Sequence(frames),
    )
    (case,) = find_scans([str(path)])
    assert isinstance(case, Case)
    return case


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    angles=st.tuples(*[st.floats(-3, 3)] * 3),
    order=st.permutations(range(4)),
    step=st.floats(0.2, 8),
    origin=st.tuples(*[st.floats(-300, 300)] * 3),
)
def test_an_enhanced_volume_reads_back_in_any_orientation_and_order(
    tmp_path_factory: Any, write_dicom: Any, angles: Any, order: list[int], step: float, origin: Any
) -> None:
    values = np.random.default_rng(0).integers(0, 999, (4, 5, 6)).astype(np.uint16)
    turn = np.reshape(sitk.Euler3DTransform((0, 0, 0), *angles).GetMatrix(), (3, 3))
    row, column, normal = turn.T
    frames = [
        functional_group(
            PlanePositionSequence={
                "ImagePositionPatient": [round(float(x), 8) for x in origin + normal * step * place]
            },
            PlaneOrientationSequence={
                "ImageOrientationPatient": [round(float(x), 8) for x in (*row, *column)]
            },
        )
        for place in order
    ]
    path = tmp_path_factory.mktemp("x") / "x.dcm"
    scan = read_scan(enhanced(write_dicom, path, values[order], frames))
    np.testing.assert_array_equal(scan.pixels[..., 0], values)
    assert scan.spacing_mm == pytest.approx((step, 0.5, 0.6), rel=1e-4)
    assert scan.affine is not None
    expected = np.column_stack([normal * step, column * 0.5, row * 0.6, origin])
    np.testing.assert_allclose(scan.affine[:3], expected, atol=1e-4)


def test_of_the_time_points_of_one_file_the_first_is_read_unless_one_is_chosen(
    tmp_path: Path, write_dicom: Any, codes: Any
) -> None:
    values = np.random.default_rng(0).integers(0, 999, (6, 4, 5)).astype(np.uint16)
    frames = [
        functional_group(
            PlanePositionSequence={"ImagePositionPatient": [0, 0, 4.0 * place]},
            FrameContentSequence={"TemporalPositionIndex": time},
        )
        for place in (2, 0, 1)
        for time in (2, 1)
    ]
    case = enhanced(write_dicom, tmp_path / "x.dcm", values, frames)
    scan = read_scan(case)
    assert codes(scan) == ["first_time_point"]
    np.testing.assert_array_equal(scan.pixels[..., 0], values[[3, 5, 1]])
    assert scan.spacing_mm == (4.0, 0.5, 0.6)
    second = read_scan(replace(case, time_point=1))
    assert codes(second) == []
    np.testing.assert_array_equal(second.pixels[..., 0], values[[2, 4, 0]])
    by_option = read_scan(replace(case, default_time_point=1))
    np.testing.assert_array_equal(by_option.pixels, second.pixels)
    with pytest.raises(ScanError) as caught:
        read_scan(replace(case, time_point=2))
    assert caught.value.code == "not_found"


def test_an_ultrasound_volume_in_a_space_of_its_own_has_spacing_and_no_affine(
    tmp_path: Path, write_dicom: Any, codes: Any
) -> None:
    values = np.random.default_rng(0).integers(0, 255, (6, 4, 5), np.uint8)
    frames = [
        functional_group(
            PlanePositionVolumeSequence={"ImagePositionVolume": [0, 0, 1.5 * place]},
            PlaneOrientationVolumeSequence={"ImageOrientationVolume": [1, 0, 0, 0, 1, 0]},
            TemporalPositionSequence={"TemporalPositionTimeOffset": time},
        )
        for time in (20.0, 0.0)
        for place in (1, 2, 0)
    ]
    scan = read_scan(enhanced(write_dicom, tmp_path / "x.dcm", values, frames))
    np.testing.assert_array_equal(scan.pixels[..., 0], values[[5, 3, 4]])
    assert scan.spacing_mm == (1.5, 0.5, 0.6)
    assert scan.affine is None
    assert codes(scan) == ["first_time_point"]


def test_enhanced_frames_without_positions_stay_as_stored(tmp_path: Path, write_dicom: Any) -> None:
    values = np.random.default_rng(0).integers(0, 999, (3, 4, 5)).astype(np.uint16)
    frames = [functional_group(FrameContentSequence={"TemporalPositionIndex": 1})] * 3
    scan = read_scan(enhanced(write_dicom, tmp_path / "x.dcm", values, frames))
    np.testing.assert_array_equal(scan.pixels[..., 0], values)
    assert scan.spacing_mm == (None, 0.5, 0.6)


@pytest.mark.parametrize(
    ("orientation", "offsets", "expected"),
    [
        ([1, 0, 0, 0, 1, 0], [0, 3, 6, 9], 1),
        ([1, 0, 0, 0, 1, 0], [0, -3, -6, -9], -1),
        ([1, 0, 0, 0, 1, 0], [50, 53, 56, 59], 1),  # the z coordinates themselves
        ([1, 0, 0, 0, -1, 0], [50, 53, 56, 59], -1),
        ([1, 0, 0, 0, 0, -1], [0, 3, 6, 9], 1),
    ],
)
def test_the_frames_of_a_dose_grid_lie_at_its_offsets(
    tmp_path: Path, write_dicom: Any, orientation: list[float], offsets: list[float], expected: int
) -> None:
    values = np.random.default_rng(0).integers(0, 999, (4, 3, 5)).astype(np.uint16)
    path = write_dicom(
        tmp_path / "dose.dcm",
        values,
        Modality="RTDOSE",
        ImageOrientationPatient=orientation,
        ImagePositionPatient=[10, 20, 50],
        PixelSpacing=[2, 2.5],
        GridFrameOffsetVector=offsets,
    )
    (case,) = find_scans([path])
    assert isinstance(case, Case)
    scan = read_scan(case)
    assert scan.spacing_mm == pytest.approx((3, 2, 2.5))
    np.testing.assert_array_equal(scan.pixels[..., 0], values[::expected])
    normal = np.cross(orientation[:3], orientation[3:])
    first = np.array([10, 20, 50]) + (normal * -9 if expected < 0 else 0)
    np.testing.assert_allclose(scan.affine[:3, 3], first)  # type: ignore[index]
    np.testing.assert_allclose(scan.affine[:3, 0], normal * 3)  # type: ignore[index]


def test_ultrasound_frames_are_moments_with_the_spacing_of_their_region(
    tmp_path: Path, write_dicom: Any
) -> None:
    region = Dataset()
    region.RegionSpatialFormat = 1
    region.PhysicalUnitsXDirection = region.PhysicalUnitsYDirection = 3
    region.PhysicalDeltaX, region.PhysicalDeltaY = 0.02, 0.03
    frames = np.random.default_rng(0).integers(0, 255, (4, 6, 7), np.uint8)
    path = write_dicom(
        tmp_path / "us.dcm",
        frames,
        Modality="US",
        FrameTime=33,
        SequenceOfUltrasoundRegions=Sequence([region]),
    )
    (case,) = find_scans([path])
    assert isinstance(case, Case)
    scan = read_scan(case)
    np.testing.assert_array_equal(scan.pixels[..., 0], frames)
    assert scan.spacing_mm == (None, pytest.approx(0.3), pytest.approx(0.2))
    assert scan.affine is None


def four_volumes(path: Path) -> np.ndarray:
    """A 4-D NIfTI of four volumes; its values tell them apart."""
    volumes = np.arange(4 * 3 * 5 * 6, dtype=np.int16).reshape(4, 3, 5, 6)
    image = sitk.JoinSeries([sitk.GetImageFromArray(volume) for volume in volumes])
    sitk.WriteImage(image, path)
    return volumes


def test_a_choice_for_all_scans_is_taken_where_there_is_one(
    tmp_path: Path, file_case: Any, codes: Any
) -> None:
    volumes = four_volumes(tmp_path / "several.nii")
    sitk.WriteImage(sitk.GetImageFromArray(volumes[0]), tmp_path / "one.nii")
    asked = replace(file_case(tmp_path / "several.nii", "volume"), default_time_point=2)
    scan = read_scan(asked)
    assert set(np.unique(scan.pixels)) == set(np.unique(volumes[2]))
    assert "first_time_point" not in codes(scan)
    lone = read_scan(replace(file_case(tmp_path / "one.nii", "volume"), default_time_point=2))
    assert set(np.unique(lone.pixels)) == set(np.unique(volumes[0]))
    of_manifest = read_scan(replace(asked, time_point=1))
    assert set(np.unique(of_manifest.pixels)) == set(np.unique(volumes[1]))
    with pytest.raises(ScanError) as caught:
        read_scan(replace(asked, default_time_point=4))
    assert (caught.value.code, caught.value.hint) == ("not_found", "Choose one of 0 to 3")


def test_of_a_cine_one_moment_can_be_chosen(
    tmp_path: Path, write_ct_series: Any, hu_volume: Any, dicom_case: Any
) -> None:
    """Four slices at one position, told apart by their time."""
    hu = hu_volume(4)
    paths = write_ct_series(tmp_path, hu, spacing=(0.0, 1.0, 1.0))
    for number, path in enumerate(paths):
        dataset = pydicom.dcmread(path)
        dataset.TriggerTime = 10 * number
        dataset.save_as(path)
    case = dicom_case(paths)
    assert len(read_scan(case).pixels) == 4
    chosen = read_scan(replace(case, default_time_point=2))
    np.testing.assert_array_equal(chosen.pixels[..., 0], hu[2:3])
