"""NIfTI written by hand: fields where the standard puts them, the same volume read back."""

from __future__ import annotations

import gzip
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from medcli.errors import ScanError
from medcli.imaging.discovery import find_scans
from medcli.imaging.nifti_writer import write_nifti
from medcli.imaging.reader import read_scan
from medcli.records import Case, Scan

SPACING = (2.5, 0.75, 0.5)
AXIAL = np.array([[0, 0, 0.5, -100], [0, 0.75, 0, -50], [2.5, 0, 0, 30], [0, 0, 0, 1]], float)


def scan_of(pixels: np.ndarray, affine: np.ndarray | None = AXIAL) -> Scan:
    return Scan(
        pixels=pixels,
        path="x",
        files=("x",),
        slice_files=("x",) * len(pixels),
        scan_id="x",
        format="dicom",
        spacing_mm=SPACING if affine is not None else (None, None, None),
        affine=affine,
    )


def noise(kind: str, channels: int = 1) -> np.ndarray:
    rng = np.random.default_rng(0)
    if kind == "float32":
        return rng.normal(size=(4, 5, 6, channels)).astype(np.float32)
    limits = np.iinfo(kind)
    return rng.integers(limits.min, limits.max, (4, 5, 6, channels), kind)


def read_back(path: Path) -> Scan:
    (case,) = find_scans([str(path)])
    assert isinstance(case, Case)
    return read_scan(case)


@pytest.mark.parametrize("kind", ["uint8", "int16", "uint16", "float32"])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_values_and_geometry_come_back(tmp_path: Path, kind: str, name: str) -> None:
    scan = scan_of(noise(kind))
    write_nifti(tmp_path / name, scan)
    back = read_back(tmp_path / name)
    np.testing.assert_array_equal(back.pixels, scan.pixels)
    np.testing.assert_allclose(back.affine, AXIAL, atol=1e-5)
    assert back.spacing_mm == pytest.approx(SPACING)


def test_colour_comes_back(tmp_path: Path) -> None:
    scan = scan_of(noise("uint8", channels=3))
    write_nifti(tmp_path / "a.nii.gz", scan)
    np.testing.assert_array_equal(read_back(tmp_path / "a.nii.gz").pixels, scan.pixels)


@pytest.mark.parametrize("turn", [(1, 0, 2), (2, 0, 1), (0, 2, 1)])
def test_itk_sees_each_voxel_where_it_lies(tmp_path: Path, turn: tuple[int, int, int]) -> None:
    # Sagittal, coronal and other stacks: the axes of the patient in another order.
    affine = AXIAL.copy()
    affine[:3, :3] = AXIAL[list(turn), :3]
    if np.linalg.det(affine[:3, :3]) * np.linalg.det(AXIAL[:3, :3]) < 0:
        affine[:3, 1] *= -1
    scan = scan_of(noise("int16"), affine)
    write_nifti(tmp_path / "a.nii", scan)
    image = sitk.ReadImage(str(tmp_path / "a.nii"))
    for z, y, x in ((0, 0, 0), (3, 4, 5), (1, 3, 2)):
        place = (affine @ [z, y, x, 1])[:3]
        index = image.TransformPhysicalPointToIndex(place.tolist())
        assert image[index] == scan.pixels[z, y, x, 0]


def test_fields_stand_where_the_standard_puts_them(tmp_path: Path) -> None:
    write_nifti(tmp_path / "a.nii.gz", scan_of(noise("int16")))
    raw = gzip.decompress((tmp_path / "a.nii.gz").read_bytes())
    assert struct.unpack_from("<i", raw, 0) == (348,)
    assert struct.unpack_from("<4h", raw, 40) == (3, 6, 5, 4)
    assert struct.unpack_from("<2h", raw, 70) == (4, 16)
    assert struct.unpack_from("<4f", raw, 76) == (1, 0.5, 0.75, 2.5)
    assert struct.unpack_from("<f", raw, 108) == (352,)
    assert struct.unpack_from("<2h", raw, 252) == (0, 1)
    assert raw[344:348] == b"n+1\0"
    assert len(raw) == 352 + 4 * 5 * 6 * 2


def test_the_shear_of_a_tilted_gantry_is_kept(tmp_path: Path) -> None:
    tilted = AXIAL.copy()
    tilted[1, 0] = 0.4  # each slice lies 0.4 mm further back
    write_nifti(tmp_path / "a.nii", scan_of(noise("int16"), tilted))
    raw = (tmp_path / "a.nii").read_bytes()
    srow = np.array(struct.unpack_from("<12f", raw, 280)).reshape(3, 4)
    for index in ((0, 0, 0), (2, 3, 4)):
        lps = tilted @ [*index, 1]
        ras = srow @ [*reversed(index), 1]
        np.testing.assert_allclose(ras, [-lps[0], -lps[1], lps[2]], atol=1e-5)


def test_an_unknown_position_is_not_made_up(tmp_path: Path) -> None:
    write_nifti(tmp_path / "a.nii", scan_of(noise("uint8"), affine=None))
    raw = (tmp_path / "a.nii").read_bytes()
    assert struct.unpack_from("<2h", raw, 252) == (0, 0)
    assert raw[123] == 0  # no unit


def test_the_same_scan_gives_the_same_bytes(tmp_path: Path) -> None:
    scan = scan_of(noise("int16"))
    for name in ("a.nii.gz", "b.nii.gz"):
        write_nifti(tmp_path / name, scan)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_a_side_that_nifti_cannot_count_is_refused(tmp_path: Path) -> None:
    wide = replace(scan_of(np.zeros((1, 1, 2**15, 1), np.uint8)), path="wide.png")
    with pytest.raises(ScanError, match=r"wide\.png") as refused:
        write_nifti(tmp_path / "a.nii", wide)
    assert refused.value.code == "unsupported_pixels"
    assert not (tmp_path / "a.nii").exists()
