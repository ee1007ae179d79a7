"""MINC-2 volumes, which SimpleITK reads for us."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from medcli.errors import ScanError
from medcli.imaging.discovery import find_scans
from medcli.imaging.reader import read_scan
from medcli.records import Case, Scan

VALUES = np.random.default_rng(0).integers(0, 999, (4, 5, 6)).astype(np.float32)


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    image = sitk.GetImageFromArray(VALUES)
    image.SetSpacing((0.7, 0.8, 2.5))
    image.SetOrigin((-10, 20, 30))
    path = tmp_path / "x.mnc"
    sitk.WriteImage(image, str(path), imageIO="MINCImageIO")
    return path


def read(path: str) -> Scan:
    (case,) = find_scans([path])
    assert isinstance(case, Case)
    return read_scan(case)


def test_a_volume_reads_back_in_lps(volume: Path) -> None:
    scan = read(str(volume))
    expected = sitk.DICOMOrient(sitk.ReadImage(str(volume)), "LPS")
    np.testing.assert_allclose(scan.pixels[..., 0], sitk.GetArrayFromImage(expected), atol=0.02)
    assert scan.format == "minc"
    assert scan.spacing_mm == pytest.approx((2.5, 0.8, 0.7))
    assert scan.affine is not None
    np.testing.assert_allclose(scan.affine[:3, 3], expected.GetOrigin(), atol=1e-4)


def test_a_member_of_an_archive_is_read_through_a_copy_that_goes(
    volume: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies = tmp_path / "copies"
    copies.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(copies))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(volume, "x.mnc")
    np.testing.assert_array_equal(
        read(f"{tmp_path / 'a.zip'}!/x.mnc").pixels, read(str(volume)).pixels
    )
    assert list(copies.iterdir()) == []


@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_a_truncated_volume_is_named_as_such(volume: Path, kept: float) -> None:
    data = volume.read_bytes()
    volume.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(ScanError) as caught:
        read(str(volume))
    assert caught.value.code == "truncated"


def test_a_damaged_volume_fails_without_a_word_on_standard_error(
    volume: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = bytearray(volume.read_bytes())
    data[100:400] = b"\xff" * 300
    volume.write_bytes(data)
    with pytest.raises(ScanError) as caught:
        read(str(volume))
    assert caught.value.code == "damaged_pixels"
    assert capfd.readouterr() == ("", "")
