"""Geometry of series: a synthetic volume written in any way reads back as the same volume."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from medcli.errors import ScanError
from medcli.imaging.series import read_series

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)


@st.composite
def orientations(draw: st.DrawFn) -> tuple[float, ...]:
    """Row and column directions of a random rotation."""
    part = st.floats(-1, 1, allow_nan=False)
    quaternion = np.array([draw(part) for _ in range(4)])
    norm = np.linalg.norm(quaternion)
    w, x, y, z = quaternion / norm if norm > 0.1 else (1.0, 0.0, 0.0, 0.0)
    row = (1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y))
    column = (2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x))
    return tuple(float(each) for each in (*row, *column))


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
@given(
    orientation=st.one_of(st.sampled_from([AXIAL, CORONAL, SAGITTAL]), orientations()),
    order=st.permutations(range(5)),
    shuffled=st.permutations(range(5)),
    spacing=st.tuples(*[st.floats(0.1, 10)] * 3),
    origin=st.tuples(*[st.floats(-500, 500)] * 3),
)
def test_a_series_reads_back_in_any_orientation_order_and_spacing(
    write_ct_series: Any,
    hu_volume: Any,
    dicom_case: Any,
    orientation: tuple[float, ...],
    order: list[int],
    shuffled: list[int],
    spacing: tuple[float, float, float],
    origin: tuple[float, float, float],
) -> None:
    volume = hu_volume(5)
    with tempfile.TemporaryDirectory() as folder:
        paths = write_ct_series(
            Path(folder),
            volume,
            spacing=spacing,
            orientation=orientation,
            origin=origin,
            order=order,
        )
        scan = read_series(dicom_case([paths[index] for index in shuffled]))
        assert [Path(file).name for file in scan.slice_files] == [
            f"IM{order.index(index):04d}" for index in range(5)
        ]
    np.testing.assert_array_equal(scan.pixels[..., 0], volume)
    np.testing.assert_allclose(scan.spacing_mm, spacing, rtol=1e-4, atol=1e-6)
    row, column = np.array(orientation).reshape(2, 3)
    expected = np.eye(4)
    expected[:3, 0] = np.cross(row, column) * spacing[0]
    expected[:3, 1] = column * spacing[1]
    expected[:3, 2] = row * spacing[2]
    expected[:3, 3] = origin
    np.testing.assert_allclose(scan.affine, expected, atol=1e-4)
    assert scan.warnings == ()


def test_a_missing_slice_is_named_and_the_spacing_stays(
    tmp_path: Path, write_ct_series: Any, hu_volume: Any, dicom_case: Any, codes: Any
) -> None:
    paths = write_ct_series(tmp_path, hu_volume(6), drop=[2])
    scan = read_series(dicom_case(paths))
    assert codes(scan) == ["gap"]
    assert "IM0003" in scan.warnings[0].message
    assert scan.spacing_mm[0] == pytest.approx(2.5)
    assert len(scan.pixels) == 5


def test_of_two_slices_at_one_position_the_first_stays(
    tmp_path: Path, write_ct_series: Any, hu_volume: Any, dicom_case: Any, codes: Any
) -> None:
    volume = hu_volume(5)
    first = write_ct_series(tmp_path / "a", volume, SeriesInstanceUID="1.2.3")
    again = write_ct_series(
        tmp_path / "b", volume[2:3] + 7, origin=(-100, -120, 55), SeriesInstanceUID="1.2.3",
        InstanceNumber=99,
    )  # fmt: skip
    scan = read_series(dicom_case([*again, *first]))
    assert codes(scan) == ["duplicate_slice"]
    np.testing.assert_array_equal(scan.pixels[..., 0], volume)
    assert scan.spacing_mm[0] == pytest.approx(2.5)
    assert len(scan.files) == 6


def test_uneven_steps_are_named_and_the_median_is_the_spacing(
    tmp_path: Path, write_dicom: Any, hu_volume: Any, dicom_case: Any, codes: Any
) -> None:
    heights = [0.0, 2.0, 4.0, 6.5, 8.5, 10.5]
    paths = [
        write_dicom(
            tmp_path / f"{number}.dcm",
            image.astype(np.uint16),
            SeriesInstanceUID="1.2",
            ImageOrientationPatient=list(AXIAL),
            ImagePositionPatient=[0, 0, height],
            PixelSpacing=[1, 1],
        )
        for number, (image, height) in enumerate(zip(hu_volume(6), heights, strict=True))
    ]
    scan = read_series(dicom_case(paths))
    assert codes(scan) == ["uneven_spacing"]
    assert "3.dcm" in scan.warnings[0].message
    assert scan.spacing_mm[0] == pytest.approx(2.0)


def test_gantry_tilt_is_named_and_kept_in_the_affine(
    tmp_path: Path, write_dicom: Any, hu_volume: Any, dicom_case: Any, codes: Any
) -> None:
    angle = np.radians(15)
    orientation = [1, 0, 0, 0, round(np.cos(angle), 8), round(np.sin(angle), 8)]
    paths = [
        write_dicom(
            tmp_path / f"{number}.dcm",
            image.astype(np.uint16),
            SeriesInstanceUID="1.2",
            ImageOrientationPatient=orientation,
            ImagePositionPatient=[0, 0, 5.0 * number],
            PixelSpacing=[1, 1],
        )
        for number, image in enumerate(hu_volume(4))
    ]
    scan = read_series(dicom_case(paths))
    assert codes(scan) == ["tilt"]
    assert "15.0°" in scan.warnings[0].message
    assert scan.spacing_mm[0] == pytest.approx(5 * np.cos(angle))
    np.testing.assert_allclose(scan.affine[:3, 0], [0, 0, 5], atol=1e-6)


def test_localizers_are_dropped_and_named(
    tmp_path: Path, write_ct_series: Any, write_dicom: Any, hu_volume: Any, dicom_case: Any,
    codes: Any,
) -> None:  # fmt: skip
    volume = hu_volume(4)
    paths = write_ct_series(tmp_path / "a", volume, SeriesInstanceUID="1.2.3")
    scout = write_dicom(
        tmp_path / "scout.dcm",
        np.zeros((30, 40), np.uint16),
        SeriesInstanceUID="1.2.3",
        ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"],
        ImageOrientationPatient=list(CORONAL),
        ImagePositionPatient=[0, 0, 0],
    )
    scan = read_series(dicom_case([scout, *paths]))
    assert codes(scan) == ["localizer"]
    assert "scout.dcm" in scan.warnings[0].message
    np.testing.assert_array_equal(scan.pixels[..., 0], volume)


def test_a_scan_that_is_a_localizer_is_read_and_said_so(
    tmp_path: Path, write_dicom: Any, dicom_case: Any, codes: Any
) -> None:
    path = write_dicom(
        tmp_path / "x", np.zeros((3, 4), np.uint16), ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]
    )
    assert codes(read_series(dicom_case([path]))) == ["localizer"]


@pytest.mark.parametrize(
    "odd",
    [
        {"orientation": CORONAL},
        {"spacing": (2.5, 0.9, 0.9)},
        {"SeriesInstanceUID": "9.9"},
        {"size": (12, 12)},
    ],
    ids=lambda odd: next(iter(odd)),
)
def test_a_slice_that_does_not_fit_is_dropped_and_named(
    tmp_path: Path, write_ct_series: Any, hu_volume: Any, dicom_case: Any, codes: Any,
    odd: dict[str, Any],
) -> None:  # fmt: skip
    volume = hu_volume(4)
    paths = write_ct_series(tmp_path / "a", volume, SeriesInstanceUID="1.2.3")
    rows, columns = odd.pop("size", (10, 12))
    stray = write_ct_series(
        tmp_path / "b", hu_volume(1, rows, columns), **{"SeriesInstanceUID": "1.2.3"} | odd
    )
    scan = read_series(dicom_case([*stray, *paths]))
    assert codes(scan) == ["mixed_series"]
    np.testing.assert_array_equal(scan.pixels[..., 0], volume)


def test_the_series_asked_for_is_read_even_if_it_is_the_smaller(
    tmp_path: Path, write_ct_series: Any, hu_volume: Any, dicom_case: Any
) -> None:
    large = write_ct_series(tmp_path / "a", hu_volume(5), SeriesInstanceUID="1.1")
    small = write_ct_series(tmp_path / "b", hu_volume(2, seed=1), SeriesInstanceUID="1.2")
    scan = read_series(dicom_case([*large, *small], series_uid="1.2"))
    np.testing.assert_array_equal(scan.pixels[..., 0], hu_volume(2, seed=1))


def test_without_positions_instance_numbers_order_the_slices(
    tmp_path: Path, write_ct_series: Any, hu_volume: Any, dicom_case: Any, codes: Any
) -> None:
    volume = hu_volume(5)
    order = [3, 0, 4, 1, 2]
    paths = write_ct_series(
        tmp_path, volume, order=order, ImagePositionPatient=None, SpacingBetweenSlices=3.0
    )
    scan = read_series(dicom_case(paths[::-1]))
    assert codes(scan) == ["no_positions"]
    np.testing.assert_array_equal(scan.pixels[..., 0], volume[order])
    assert scan.spacing_mm == (3.0, 0.7, 0.8)
    assert scan.affine is None


def test_enhanced_frames_are_sorted_by_their_own_positions(
    tmp_path: Path, write_dicom: Any, hu_volume: Any, dicom_case: Any
) -> None:
    order = [2, 0, 3, 1]
    volume = np.abs(hu_volume(4)).astype(np.uint16)
    frames = []
    for index in order:
        position, group = Dataset(), Dataset()
        position.ImagePositionPatient = [0, 0, 4.0 * index]
        group.PlanePositionSequence = Sequence([position])
        frames.append(group)
    orientation, measures, shared = Dataset(), Dataset(), Dataset()
    orientation.ImageOrientationPatient = list(AXIAL)
    measures.PixelSpacing = [0.5, 0.6]
    shared.PlaneOrientationSequence = Sequence([orientation])
    shared.PixelMeasuresSequence = Sequence([measures])
    path = write_dicom(
        tmp_path / "enhanced.dcm",
        volume[order],
        Modality="MR",
        SharedFunctionalGroupsSequence=Sequence([shared]),
        PerFrameFunctionalGroupsSequence=Sequence(frames),
    )
    scan = read_series(dicom_case([path]))
    np.testing.assert_array_equal(scan.pixels[..., 0], volume)
    assert scan.spacing_mm == (4.0, 0.5, 0.6)
    assert scan.slice_files == (path,) * 4


def test_frames_without_positions_keep_their_order(
    tmp_path: Path, write_dicom: Any, dicom_case: Any
) -> None:
    cine = np.random.default_rng(0).integers(0, 255, (3, 4, 5), np.uint8)
    scan = read_series(dicom_case([write_dicom(tmp_path / "x", cine, Modality="US")]))
    np.testing.assert_array_equal(scan.pixels[..., 0], cine)
    assert scan.warnings == ()
    assert scan.unit == "display"


def test_the_scan_carries_what_its_tags_say(
    tmp_path: Path, write_ct_series: Any, hu_volume: Any, dicom_case: Any
) -> None:
    paths = write_ct_series(
        tmp_path, hu_volume(2), PatientID="P7", SeriesInstanceUID="1.2.3", StudyInstanceUID="1.2"
    )
    scan = read_series(dicom_case(paths))
    assert (scan.format, scan.modality, scan.unit) == ("dicom", "CT", "HU")
    assert (scan.study_uid, scan.series_uid, scan.patient_id) == ("1.2", "1.2.3", "P7")
    assert scan.window == (40.0, 400.0)
    assert scan.photometric == "MONOCHROME2"
    assert scan.transfer_syntax == "1.2.840.10008.1.2.1"
    assert read_series(dicom_case(paths, patient_id="M1")).patient_id == "M1"


def test_a_damaged_slice_is_named(
    tmp_path: Path, write_ct_series: Any, hu_volume: Any, dicom_case: Any
) -> None:
    paths = write_ct_series(tmp_path, hu_volume(3))
    Path(paths[1]).write_bytes(Path(paths[1]).read_bytes()[:-30])
    with pytest.raises(ScanError, match="IM0001") as caught:
        read_series(dicom_case(paths))
    assert caught.value.code == "truncated"
