"""NIfTI, NRRD and MetaImage volumes."""

from __future__ import annotations

import gzip
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medcli.errors import ScanError
from medcli.imaging import values
from medcli.imaging.reader import read_scan
from medcli.imaging.series import read_series

NAMES = ["x.nii", "x.nii.gz", "x.nrrd", "x.nhdr", "x.mha", "x.mhd"]
FORMATS = {"nii": "nifti", "gz": "nifti", "nrrd": "nrrd", "nhdr": "nrrd"}
SPACING = (0.7, 0.8, 2.5)  # x, y, z


def write(path: Path, volume: np.ndarray, compress: bool = False, **geometry: Any) -> Path:
    image = sitk.GetImageFromArray(volume, isVector=volume.ndim == 4 and volume.shape[3] == 3)
    image.SetSpacing(geometry.get("spacing", SPACING))
    image.SetOrigin(geometry.get("origin", (-100.0, -120.0, 50.0)))
    image.SetDirection(geometry.get("direction", (1, 0, 0, 0, 1, 0, 0, 0, 1)))
    sitk.WriteImage(image, str(path), useCompression=compress)
    return path


def failure(case: Any) -> str:
    with pytest.raises(ScanError) as caught:
        read_scan(case)
    return caught.value.code


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("compress", [False, True])
def test_volumes_read_back_in_every_format(
    tmp_path: Path, hu_volume: Any, file_case: Any, name: str, compress: bool
) -> None:
    volume = hu_volume()
    scan = read_scan(file_case(write(tmp_path / name, volume, compress), "volume"))
    np.testing.assert_array_equal(scan.pixels[..., 0], volume)
    assert scan.spacing_mm == pytest.approx((2.5, 0.8, 0.7))
    assert scan.format == FORMATS.get(name.split(".")[-1], "metaimage")
    assert str(tmp_path / name) == scan.files[0]
    assert len(scan.files) == (2 if name in ("x.nhdr", "x.mhd") else 1)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
@given(axes=st.permutations(range(3)), flips=st.tuples(*[st.sampled_from([1, -1])] * 3))
def test_any_orientation_of_a_nifti_reads_back_as_the_lps_volume(
    tmp_path_factory: Any,
    hu_volume: Any,
    file_case: Any,
    axes: list[int],
    flips: tuple[int, int, int],
) -> None:
    """The same anatomy, stored along any axes, gives the same array and affine."""
    volume = hu_volume()
    folder = tmp_path_factory.mktemp("nifti")
    plain = sitk.GetImageFromArray(volume)
    plain.SetSpacing(SPACING)
    turned = sitk.Flip(sitk.PermuteAxes(plain, axes), [flip < 0 for flip in flips], False)
    sitk.WriteImage(turned, str(folder / "turned.nii.gz"))
    scan = read_scan(file_case(folder / "turned.nii.gz", "volume"))
    np.testing.assert_array_equal(scan.pixels[..., 0], volume)
    assert scan.spacing_mm == pytest.approx((2.5, 0.8, 0.7))
    expected = np.eye(4)
    expected[:3, :3] = np.diag([0.7, 0.8, 2.5])[:, ::-1]
    np.testing.assert_allclose(scan.affine, expected, atol=1e-5)


def test_a_nifti_and_a_dicom_series_of_one_volume_agree(
    tmp_path: Path, hu_volume: Any, file_case: Any, dicom_case: Any, write_ct_series: Any
) -> None:
    volume = hu_volume()
    nifti = read_scan(file_case(write(tmp_path / "x.nii.gz", volume), "volume"))
    dicom = read_series(
        dicom_case(write_ct_series(tmp_path / "ct", volume, spacing=(2.5, 0.8, 0.7)))
    )
    np.testing.assert_array_equal(nifti.pixels, dicom.pixels)
    np.testing.assert_allclose(nifti.affine, dicom.affine, atol=1e-4)
    assert nifti.spacing_mm == pytest.approx(dicom.spacing_mm)
    assert nifti.unit == dicom.unit == "HU"


@pytest.mark.parametrize(("named", "unit"), [("CT", "HU"), ("ct", "HU"), ("MR", "stored")])
def test_a_manifest_that_names_the_modality_settles_it(
    tmp_path: Path, hu_volume: Any, file_case: Any, codes: Any, named: str, unit: str
) -> None:
    case = file_case(write(tmp_path / "crop.nii", np.clip(hu_volume(), -500, 50)), "volume")
    scan = read_scan(replace(case, columns={"modality": named}))
    assert (scan.modality, scan.unit, codes(scan)) == (named.upper(), unit, [])


def test_ct_is_assumed_by_its_values_and_said_so(
    tmp_path: Path, hu_volume: Any, file_case: Any, codes: Any
) -> None:
    ct = read_scan(file_case(write(tmp_path / "ct.nii", hu_volume()), "volume"))
    assert (ct.modality, ct.unit, codes(ct)) == ("CT", "HU", ["assumed_hu"])
    mr = read_scan(file_case(write(tmp_path / "mr.nii", np.abs(hu_volume())), "volume"))
    assert (mr.modality, mr.unit, codes(mr)) == (None, "stored", [])


def test_of_several_time_points_the_first_is_read(
    tmp_path: Path, hu_volume: Any, file_case: Any, codes: Any
) -> None:
    times = [sitk.GetImageFromArray(hu_volume(seed=seed)) for seed in (1, 2)]
    sitk.WriteImage(sitk.JoinSeries(times), str(tmp_path / "x.nii.gz"))
    scan = read_scan(file_case(tmp_path / "x.nii.gz", "volume"))
    np.testing.assert_array_equal(scan.pixels[..., 0], hu_volume(seed=1))
    assert "first_time_point" in codes(scan)


def test_a_volume_without_a_finite_value_is_damaged(tmp_path: Path, file_case: Any) -> None:
    volume = np.full((2, 3, 4), np.nan, np.float32)
    volume[0, 0] = np.inf
    with pytest.raises(ScanError) as caught:
        read_scan(file_case(write(tmp_path / "x.nii.gz", volume), "volume"))
    assert caught.value.code == "damaged_pixels"


def test_a_volume_of_one_value_is_read_with_a_warning(
    tmp_path: Path, file_case: Any, codes: Any
) -> None:
    volume = np.zeros((4, 3, 4), np.int16)
    assert codes(read_scan(file_case(write(tmp_path / "x.nii", volume), "volume"))) == ["constant"]
    volume[3, 2, 3] = 1
    assert codes(read_scan(file_case(write(tmp_path / "x.nii", volume), "volume"))) == []


@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz", "x.mha"])
def test_nan_voxels_become_the_smallest_value(
    tmp_path: Path, file_case: Any, codes: Any, name: str
) -> None:
    volume = np.arange(5, 29, dtype=np.float32).reshape(2, 3, 4)
    volume[1, 1] = np.nan
    scan = read_scan(file_case(write(tmp_path / name, volume), "volume"))
    assert codes(scan) == ["nan_replaced"]
    np.testing.assert_array_equal(scan.pixels[..., 0], np.nan_to_num(volume, nan=5.0))


def test_rgb_volumes_stay_colour(tmp_path: Path, file_case: Any) -> None:
    colour = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 3), np.uint8)
    scan = read_scan(file_case(write(tmp_path / "x.nrrd", colour), "volume"))
    np.testing.assert_array_equal(scan.pixels, colour)


def test_a_flat_image_is_a_stack_of_one(tmp_path: Path, file_case: Any) -> None:
    flat = np.arange(20, dtype=np.int16).reshape(4, 5)
    image = sitk.GetImageFromArray(flat)
    image.SetSpacing((0.5, 0.6))
    sitk.WriteImage(image, str(tmp_path / "x.mha"))
    scan = read_scan(file_case(tmp_path / "x.mha", "volume"))
    np.testing.assert_array_equal(scan.pixels[0, ..., 0], flat)
    assert scan.spacing_mm == (None, pytest.approx(0.6), pytest.approx(0.5))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("cut", [1, 30, 300])
def test_truncated_volumes_are_named_as_such(
    tmp_path: Path, hu_volume: Any, file_case: Any, name: str, compress: bool, cut: int
) -> None:
    path = write(tmp_path / name, hu_volume(), compress)
    data_files = sorted(tmp_path.iterdir(), key=lambda file: file.stat().st_size)
    data = data_files[-1].read_bytes()
    data_files[-1].write_bytes(data[:-cut])
    assert failure(file_case(path, "volume")) == "truncated"


@pytest.mark.parametrize("name", ["x.nii.gz", "x.nrrd", "x.mha"])
def test_a_wrong_checksum_is_named_as_such(
    tmp_path: Path, hu_volume: Any, file_case: Any, name: str
) -> None:
    back = 2 if name == "x.mha" else 6  # Adler-32 of zlib ends the file, CRC-32 of gzip nearly
    path = write(tmp_path / name, hu_volume(), compress=True)
    data = bytearray(path.read_bytes())
    data[-back] ^= 0xFF
    path.write_bytes(data)
    assert failure(file_case(path, "volume")) == "crc"


def test_a_header_cut_short_is_truncated(tmp_path: Path, hu_volume: Any, file_case: Any) -> None:
    path = write(tmp_path / "x.nii", hu_volume())
    path.write_bytes(path.read_bytes()[:200])
    assert failure(file_case(path, "volume")) == "truncated"
    path = write(tmp_path / "x.nii.gz", hu_volume())
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:200]))
    assert failure(file_case(path, "volume")) == "truncated"


def test_a_text_named_like_a_volume_is_damaged(tmp_path: Path, file_case: Any) -> None:
    for name in NAMES:
        (tmp_path / name).write_text("no volume at all " * 50)
        assert failure(file_case(tmp_path / name, "volume")) in ("damaged_header", "crc")


def test_a_header_that_announces_too_much_is_refused_before_reading(
    tmp_path: Path, hu_volume: Any, file_case: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "x.nii", hu_volume())
    data = bytearray(path.read_bytes())
    struct.pack_into("<3h", data, 42, 30000, 30000, 30000)
    path.write_bytes(data)
    monkeypatch.setattr(sitk, "ImageFileReader", lambda: pytest.fail("read"))
    assert failure(file_case(path, "volume")) == "too_large"


def test_a_gzip_bomb_is_not_inflated_to_its_end(
    tmp_path: Path, hu_volume: Any, file_case: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "x.nii.gz", hu_volume())
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(content + bytes(2**26)))
    read = gzip.GzipFile.read
    inflated: list[int] = []

    def counted(self: gzip.GzipFile, size: int | None = -1) -> bytes:
        data = read(self, size)
        inflated.append(len(data))
        return data

    monkeypatch.setattr(gzip.GzipFile, "read", counted)
    read_scan(file_case(path, "volume"))
    assert sum(inflated) < 2**23


@pytest.mark.parametrize("target", ["../x.raw", "/etc/passwd", "slice%03d.raw", "LIST"])
def test_headers_may_only_name_a_neighbour(
    tmp_path: Path, hu_volume: Any, file_case: Any, target: str
) -> None:
    path = write(tmp_path / "x.mhd", hu_volume())
    path.write_text(path.read_text().replace("x.raw", target))
    assert failure(file_case(path, "volume")) == "unsupported_pixels"


def test_budget_counts_all_dimensions(
    tmp_path: Path, hu_volume: Any, file_case: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(values, "MAX_SAMPLES", 719)
    assert failure(file_case(write(tmp_path / "x.nrrd", hu_volume()), "volume")) == "too_large"
