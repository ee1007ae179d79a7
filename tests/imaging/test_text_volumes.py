"""NRRD and MetaImage: headers written by hand, and what SimpleITK says of them."""

from __future__ import annotations

import gzip
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from medcli.errors import ScanError
from medcli.imaging.discovery import find_scans
from medcli.imaging.reader import read_scan
from medcli.records import Case, Failure, Scan

NRRD = {"type": "short", "dimension": "3", "sizes": "4 3 2", "encoding": "raw", "endian": "little"}
LPS = {
    "space": "left-posterior-superior",
    "space directions": "(0.7,0,0) (0,0.8,0) (0,0,2.5)",
    "space origin": "(1,2,3)",
}
META = {
    "ObjectType": "Image", "NDims": "3", "DimSize": "4 3 2", "ElementSpacing": "0.7 0.8 2.5",
    "Offset": "1 2 3", "TransformMatrix": "1 0 0 0 1 0 0 0 1", "ElementType": "MET_SHORT",
}  # fmt: skip
VALUES = np.arange(24, dtype="<i2").reshape(2, 3, 4)


def write_nrrd(path: Path, data: bytes = VALUES.tobytes(), **fields: str | None) -> Path:
    lines = {key.replace("_", " "): value for key, value in {**NRRD, **LPS, **fields}.items()}
    text = "".join(f"{key}: {value}\n" for key, value in lines.items() if value is not None)
    path.write_bytes(b"NRRD0004\n# a comment\n" + text.encode() + b"\n" + data)
    return path


def write_meta(path: Path, data: bytes = VALUES.tobytes(), **fields: str | None) -> Path:
    data_file = fields.pop("ElementDataFile", "LOCAL")  # it ends the header
    lines = {**META, **fields, "ElementDataFile": data_file}
    text = "".join(f"{key} = {value}\n" for key, value in lines.items() if value is not None)
    path.write_bytes(text.encode() + data)
    return path


def read(path: Path, **changes: Any) -> Scan:
    (case,) = find_scans([str(path)])
    assert isinstance(case, Case)
    return read_scan(replace(case, **changes))


def failure(path: Path) -> str:
    (found,) = find_scans([str(path)])
    if isinstance(found, Failure):
        return found.code
    with pytest.raises(ScanError) as caught:
        read_scan(found)
    return caught.value.code


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    name=st.sampled_from(["x.nrrd", "x.mha"]),
    turns=st.tuples(*[st.floats(-0.7, 0.7)] * 3),
    axes=st.permutations(range(3)),
    signs=st.tuples(*[st.sampled_from([1, -1])] * 3),
)
def test_oblique_volumes_agree_with_simpleitk(
    tmp_path_factory: Any, hu_volume: Any, name: str, turns: Any, axes: list[int], signs: Any
) -> None:
    image = sitk.GetImageFromArray(hu_volume())
    image.SetSpacing((0.7, 0.8, 2.5))
    image.SetOrigin((10, -20, 30))
    turn = np.reshape(sitk.Euler3DTransform((0, 0, 0), *turns).GetMatrix(), (3, 3))
    image.SetDirection((turn @ (np.eye(3)[:, axes] * signs)).ravel().tolist())
    path = tmp_path_factory.mktemp("x") / name
    sitk.WriteImage(image, str(path))
    scan, expected = read(path), sitk.DICOMOrient(image, "LPS")
    np.testing.assert_array_equal(scan.pixels[..., 0], sitk.GetArrayFromImage(expected))
    np.testing.assert_allclose(scan.spacing_mm, expected.GetSpacing()[::-1], rtol=1e-6)
    assert scan.affine is not None
    np.testing.assert_allclose(scan.affine[:3, 3], expected.GetOrigin(), atol=1e-4)
    direction = np.reshape(expected.GetDirection(), (3, 3)) * expected.GetSpacing()
    np.testing.assert_allclose(scan.affine[:3, 2::-1], direction, atol=1e-5)


@pytest.mark.parametrize("big", [False, True])
def test_both_byte_orders_are_read(tmp_path: Path, big: bool) -> None:
    data = VALUES.astype(">i2" if big else "<i2").tobytes()
    nrrd = write_nrrd(tmp_path / "x.nrrd", data, endian="big" if big else "little")
    meta = write_meta(tmp_path / "x.mha", data, BinaryDataByteOrderMSB=str(big))
    for path in (nrrd, meta):
        np.testing.assert_array_equal(read(path).pixels[..., 0], VALUES)
        assert read(path).pixels.dtype.isnative


@pytest.mark.parametrize(
    ("space", "signs"),
    [
        ("left-posterior-superior", (1, 1)),
        ("RAS", (-1, -1)),
        ("right-anterior-superior-time", (-1, -1)),
        ("LAS", (1, -1)),
    ],
)
def test_the_space_of_a_nrrd_is_turned_to_lps(
    tmp_path: Path, codes: Any, space: str, signs: tuple[int, int]
) -> None:
    scan = read(write_nrrd(tmp_path / "x.nrrd", space=space))
    x, y = signs
    np.testing.assert_array_equal(scan.pixels[..., 0], VALUES[:, ::y, ::x])
    assert scan.affine is not None
    corner = (1 if x > 0 else -(1 + 3 * 0.7), 2 if y > 0 else -(2 + 2 * 0.8), 3)
    np.testing.assert_allclose(scan.affine[:3, 3], corner)
    assert codes(scan) == []


@pytest.mark.parametrize("missing", ["space", "directions", "matrix"])
def test_a_missing_orientation_is_said(tmp_path: Path, codes: Any, missing: str) -> None:
    if missing == "matrix":
        path = write_meta(tmp_path / "x.mha", TransformMatrix=None)
    elif missing == "space":
        path = write_nrrd(tmp_path / "x.nrrd", space=None)
    else:
        none = dict.fromkeys(("space", "space directions", "space origin"))
        path = write_nrrd(tmp_path / "x.nrrd", **none, spacings="0.7 0.8 2.5")
    scan = read(path)
    assert codes(scan) == ["orientation_missing"]
    np.testing.assert_array_equal(scan.pixels[..., 0], VALUES)
    assert scan.spacing_mm == pytest.approx((2.5, 0.8, 0.7))


def test_sheared_directions_are_named(tmp_path: Path, codes: Any) -> None:
    sheared = write_nrrd(tmp_path / "x.nrrd", space_directions="(1,0,0) (0.2,1,0) (0,0,1)")
    assert codes(read(sheared)) == ["tilt"]


@pytest.mark.parametrize(
    ("sizes", "kinds", "directions", "code"),
    [
        ("2 4 3 2", "list space space space", "none (1,0,0) (0,1,0) (0,0,1)", "first_time_point"),
        ("4 3 2 2", "space space space time", "(1,0,0) (0,1,0) (0,0,1) none", "first_time_point"),
        ("2 4 3 2", "vector space space space", "none (1,0,0) (0,1,0) (0,0,1)", "first_channel"),
        ("4 3 2 2", "space space space vector", "(1,0,0) (0,1,0) (0,0,1) none", "first_channel"),
    ],
)
def test_the_fourth_axis_of_a_nrrd_is_what_its_kind_says(
    tmp_path: Path, codes: Any, sizes: str, kinds: str, directions: str, code: str
) -> None:
    parts = np.stack([VALUES, VALUES + 100])
    stored = np.moveaxis(parts, 0, -1) if sizes.startswith("2") else parts
    path = write_nrrd(
        tmp_path / "x.nrrd", stored.tobytes(), dimension="4", sizes=sizes, kinds=kinds,
        space_directions=directions,
    )  # fmt: skip
    scan = read(path)
    np.testing.assert_array_equal(scan.pixels[..., 0], VALUES)
    assert codes(scan) == [code]
    if code == "first_time_point":
        np.testing.assert_array_equal(read(path, time_point=1).pixels[..., 0], VALUES + 100)


@pytest.mark.parametrize("name", ["x.nrrd", "x.mha"])
def test_colour_stays_colour_and_loses_transparency(tmp_path: Path, name: str) -> None:
    colour = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 4), np.uint8)
    if name == "x.nrrd":
        path = write_nrrd(
            tmp_path / name, colour.tobytes(), type="uchar", dimension="4", sizes="4 4 3 2",
            kinds="RGBA-color domain domain domain",
            space_directions="none (1,0,0) (0,1,0) (0,0,1)",
        )  # fmt: skip
    else:
        path = write_meta(
            tmp_path / name, colour.tobytes(), ElementType="MET_UCHAR", ElementNumberOfChannels="4"
        )
    np.testing.assert_array_equal(read(path).pixels, colour[..., :3])


@pytest.mark.parametrize("skip", ["5", "-1"])
def test_bytes_before_the_data_are_skipped(tmp_path: Path, skip: str) -> None:
    (tmp_path / "x.raw").write_bytes(b"12345" + VALUES.tobytes())
    nrrd = write_nrrd(tmp_path / "x.nhdr", b"", data_file="x.raw", byte_skip=skip)
    meta = write_meta(tmp_path / "x.mhd", b"", ElementDataFile="x.raw", HeaderSize=skip)
    for path in (nrrd, meta):
        scan = read(path)
        np.testing.assert_array_equal(scan.pixels[..., 0], VALUES)
        assert scan.files == (str(path), str(tmp_path / "x.raw"))


def test_a_header_and_its_data_file_are_one_scan_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "x.raw").write_bytes(VALUES.tobytes())
    write_meta(tmp_path / "x.mhd", b"", ElementDataFile="x.raw")
    (case,) = find_scans([str(tmp_path)])
    assert case.files == (str(tmp_path / "x.mhd"), str(tmp_path / "x.raw"))


def test_compressed_data_are_read(tmp_path: Path) -> None:
    data = VALUES.tobytes()
    nrrd = write_nrrd(tmp_path / "x.nrrd", gzip.compress(data), encoding="gzip")
    meta = write_meta(tmp_path / "x.mha", zlib.compress(data), CompressedData="True")
    for path in (nrrd, meta):
        np.testing.assert_array_equal(read(path).pixels[..., 0], VALUES)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"encoding": "ascii"}, "unsupported_pixels"),
        ({"type": "block"}, "damaged_header"),
        ({"sizes": "4 3"}, "damaged_header"),
        ({"sizes": "4 3 x"}, "damaged_header"),
        ({"sizes": None}, "damaged_header"),
        ({"endian": "middle"}, "damaged_header"),
        ({"space_directions": "(1,0,0) (0,1,0) (0,0,nan)"}, "damaged_header"),
        ({"space_directions": "(1,0,0) (0,1,0) (0,0,0)"}, "damaged_header"),
        ({"line_skip": "2"}, "unsupported_pixels"),
        ({"sizes": "4 3 3"}, "truncated"),
        ({"sizes": "9999 9999 9999"}, "too_large"),
        ({"data_file": "missing.raw"}, "not_found"),
    ],
)
def test_what_a_nrrd_cannot_be_is_named(
    tmp_path: Path, fields: dict[str, str | None], code: str
) -> None:
    assert failure(write_nrrd(tmp_path / "x.nrrd", **fields)) == code


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"BinaryData": "False"}, "unsupported_pixels"),
        ({"ElementType": "MET_OTHER"}, "damaged_header"),
        ({"DimSize": "4 3 -2"}, "damaged_header"),
        ({"DimSize": None}, "damaged_header"),
        ({"TransformMatrix": "1 0 0 1 0 0 0 0 1"}, "damaged_header"),
        ({"TransformMatrix": "1 0 0 0 1 0 0 0 nan"}, "damaged_header"),
        ({"DimSize": "4 3 3"}, "truncated"),
        ({"ElementDataFile": "missing.raw"}, "not_found"),
    ],
)
def test_what_a_metaimage_cannot_be_is_named(
    tmp_path: Path, fields: dict[str, str | None], code: str
) -> None:
    assert failure(write_meta(tmp_path / "x.mha", **fields)) == code
