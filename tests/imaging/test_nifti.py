"""NIfTI-1, NIfTI-2 and Analyze headers written by hand, field by field."""

from __future__ import annotations

import gzip
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medcli.errors import ScanError
from medcli.imaging.discovery import find_scans
from medcli.imaging.reader import read_scan
from medcli.imaging.volume import read_volume_header
from medcli.records import Case, Failure, Scan

CODES = {"u1": 2, "i2": 4, "i4": 8, "f4": 16, "f8": 64, "i1": 256, "u2": 512, "u4": 768, "i8": 1024}
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def write_nifti(
    path: Path,
    voxels: np.ndarray,
    *,
    version: int = 1,
    order: str = "<",
    pair: bool = False,
    code: int | None = None,
    size: tuple[int, ...] | None = None,
    pixdim: tuple[float, ...] = (1, 0.7, 0.8, 2.5, 1, 1, 1, 1),
    slope: float = 0,
    intercept: float = 0,
    qform: tuple[int, tuple[float, ...]] = (0, (0.0,) * 6),
    sform: tuple[int, np.ndarray] | None = None,
    units: int = 2,
    intent: int = 0,
    magic: bytes | None = None,
    start: int | None = None,
) -> Path:
    """Write (…, z, y, x) voxels; fields stand where nifti1.h and nifti2.h put them."""
    kind = voxels.dtype.newbyteorder(order)
    code = code or CODES[f"{kind.kind}{kind.itemsize}"]
    size = size or voxels.shape[::-1]
    dim = (len(size), *size, *([1] * (7 - len(size))))
    scode, matrix = sform or (0, np.zeros((3, 4)))
    rows = np.asarray(matrix, float)[:3].ravel().tolist()
    qcode, quaternion = qform
    header = bytearray(348 if version == 1 else 540)
    magic = magic or (b"ni" if pair else b"n+") + str(version).encode()
    start = start if start is not None else 0 if pair else len(header) + 4
    put = [
        (0, "i", len(header)), (40, "8h", dim), (68, "h", intent), (70, "h", code),
        (72, "h", kind.itemsize * 8), (76, "8f", pixdim), (108, "3f", (start, slope, intercept)),
        (123, "B", units), (252, "2h", (qcode, scode)), (256, "6f", quaternion),
        (280, "12f", rows), (344, "3s", magic),
    ] if version == 1 else [
        (0, "i", len(header)), (4, "8s", magic + b"\0\r\n\x1a\n"), (12, "h", code),
        (14, "h", kind.itemsize * 8), (16, "8q", dim), (104, "8d", pixdim), (168, "q", start),
        (176, "2d", (slope, intercept)), (344, "2i", (qcode, scode)), (352, "6d", quaternion),
        (400, "12d", rows), (500, "i", units), (504, "i", intent),
    ]  # fmt: skip
    for offset, layout, value in put:
        values = value if isinstance(value, tuple | list) else (value,)
        struct.pack_into(order + layout, header, offset, *values)
    data = voxels.astype(kind).tobytes()
    if pair:
        path.with_suffix(".img").write_bytes(data)
        path.write_bytes(header)
    else:
        whole = bytes(header) + bytes(4) + data
        path.write_bytes(gzip.compress(whole) if path.suffix == ".gz" else whole)
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


def rotation(quaternion: tuple[float, float, float, float]) -> np.ndarray:
    """Rodrigues' formula, other than the expansion in nifti1.h."""
    a, *vector = np.array(quaternion) / np.linalg.norm(quaternion)
    b, c, d = vector
    cross = np.array([[0, -d, c], [d, 0, -b], [-c, b, 0]])
    return np.eye(3) + 2 * a * cross + 2 * cross @ cross


def as_array_affine(ras: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """(4, 4) RAS by (x, y, z) → LPS by (z, y, x)."""
    affine = LPS @ ras
    affine[:, :3] = affine[:, 2::-1]
    return affine


unit = st.floats(-1, 1, allow_nan=False)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
@given(
    quaternion=st.tuples(unit, unit, unit, unit).filter(lambda q: np.linalg.norm(q) > 0.1),
    spacing=st.tuples(*[st.floats(0.2, 8)] * 3),
    origin=st.tuples(*[st.floats(-400, 400)] * 3),
    version=st.sampled_from([1, 2]),
    order=st.sampled_from("<>"),
    name=st.sampled_from(["x.nii", "x.nii.gz", "x.hdr"]),
    form=st.sampled_from(["sform", "qform"]),
    flipped=st.booleans(),
)
def test_every_voxel_lies_where_it_lay(
    tmp_path_factory: Any, hu_volume: Any, quaternion: Any, spacing: Any, origin: Any,
    version: int, order: str, name: str, form: str, flipped: bool,
) -> None:  # fmt: skip
    """Any oblique volume of any version, byte order and form: the same value at the same mm."""
    volume = hu_volume(4, 5, 6)
    ras = np.eye(4)
    ras[:3, :3] = rotation(quaternion) @ np.diag([1, 1, -1 if flipped else 1]) @ np.diag(spacing)
    ras[:3, 3] = origin
    a = np.array(quaternion) / np.linalg.norm(quaternion) * (1 if quaternion[0] >= 0 else -1)
    forms = {"sform": {"sform": (1, ras)}, "qform": {"qform": (1, (*a[1:], *origin))}}
    path = write_nifti(
        tmp_path_factory.mktemp("x") / name, volume, version=version, order=order,
        pair=name == "x.hdr", pixdim=(-1 if flipped else 1, *spacing, 0, 0, 0, 0), **forms[form],
    )  # fmt: skip
    scan = read(path)
    assert scan.affine is not None
    assert not [each for each in scan.warnings if each.code != "assumed_hu"]
    index = np.indices(volume.shape).reshape(3, -1)
    there = as_array_affine(ras, volume.shape) @ np.vstack([index, np.ones(index.shape[1])])
    back = np.linalg.solve(scan.affine, there)[:3]
    rounded = np.rint(back).astype(int)
    np.testing.assert_allclose(back, rounded, atol=5e-3)
    np.testing.assert_array_equal(scan.pixels[(*rounded, 0)], volume.ravel())
    np.testing.assert_allclose(
        np.linalg.norm(scan.affine[:3, :3], axis=0), scan.spacing_mm, rtol=1e-5
    )
    # Each axis runs along the patient's axis it is nearest to.
    unit_axes = scan.affine[:3, 2::-1] / np.linalg.norm(scan.affine[:3, 2::-1], axis=0)
    assert np.trace(unit_axes) > 1


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    axes=st.permutations(range(3)),
    signs=st.tuples(*[st.sampled_from([1, -1])] * 3),
    slope=st.sampled_from([0.0, 1.0, 2.0, 0.5]),
)
def test_volumes_agree_with_simpleitk(
    tmp_path_factory: Any, hu_volume: Any, axes: list[int], signs: tuple[int, ...], slope: float
) -> None:
    ras = np.eye(4)
    ras[:3, :3] = np.eye(3)[:, axes] * signs * (0.7, 0.8, 2.5)
    ras[:3, 3] = (10, -20, 30)
    path = tmp_path_factory.mktemp("x") / "x.nii.gz"
    write_nifti(path, hu_volume(), sform=(1, ras), slope=slope, intercept=-3 * slope)
    scan = read(path)
    image = sitk.DICOMOrient(sitk.ReadImage(str(path)), "LPS")
    np.testing.assert_allclose(scan.pixels[..., 0], sitk.GetArrayFromImage(image))
    np.testing.assert_allclose(scan.spacing_mm, image.GetSpacing()[::-1], rtol=1e-6)
    np.testing.assert_allclose(scan.affine[:3, 3], image.GetOrigin(), atol=1e-4)  # type: ignore[index]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", sorted(CODES))
def test_every_number_type_reads_back(tmp_path: Path, kind: str, order: str) -> None:
    values = np.arange(24).reshape(2, 3, 4) * (-2 if kind[0] in "if" else 2)
    scan = read(write_nifti(tmp_path / "x.nii", values.astype(kind), order=order))
    np.testing.assert_array_equal(scan.pixels[..., 0], values)
    assert scan.pixels.dtype.isnative


@pytest.mark.parametrize(("slope", "expected"), [(0, 1), (np.nan, 1), (2.5, 2.5), (-1, -1)])
def test_a_slope_of_zero_means_no_scaling(
    tmp_path: Path, codes: Any, slope: float, expected: float
) -> None:
    values = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    scan = read(write_nifti(tmp_path / "x.nii", values, slope=slope, intercept=7))
    shift = 7 if slope and np.isfinite(slope) else 0
    np.testing.assert_allclose(scan.pixels[..., 0], values * expected + shift)
    assert codes(scan) == ["orientation_missing"]


def test_whole_factors_keep_whole_numbers(tmp_path: Path) -> None:
    values = np.arange(24, dtype=np.uint16).reshape(2, 3, 4)
    scan = read(write_nifti(tmp_path / "x.nii", values, slope=1, intercept=-1024))
    assert scan.pixels.dtype == np.int16
    np.testing.assert_array_equal(scan.pixels[..., 0], values.astype(int) - 1024)


@pytest.mark.parametrize("scaled", [False, True])
def test_nan_and_infinity_are_counted_and_replaced(
    tmp_path: Path, codes: Any, scaled: bool
) -> None:
    values = np.arange(5, 29, dtype=np.float32).reshape(2, 3, 4)
    values[0, 0, :3] = np.nan, np.inf, -np.inf
    scan = read(write_nifti(tmp_path / "x.nii", values, slope=2 if scaled else 0))
    assert codes(scan) == ["orientation_missing", "nan_replaced"]
    assert scan.warnings[1].message.startswith("3 of 24")
    assert scan.pixels[0, 0, :3, 0].tolist() == [16 if scaled else 8] * 3


@pytest.mark.parametrize("code", [128, 2304])
def test_colours_stay_colours(tmp_path: Path, codes: Any, code: int) -> None:
    values = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 3 if code == 128 else 4), np.uint8)
    scan = read(write_nifti(tmp_path / "x.nii", values, code=code, size=(5, 4, 3), slope=2))
    np.testing.assert_array_equal(scan.pixels, values[..., :3])
    assert codes(scan) == ["orientation_missing"]


@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz"])
def test_any_time_point_can_be_chosen(
    tmp_path: Path, hu_volume: Any, codes: Any, name: str
) -> None:
    times = np.stack([hu_volume(seed=seed) for seed in range(3)])
    path = write_nifti(tmp_path / name, times, sform=(1, np.diag([-1.0, -1.0, 1.0, 1.0])))
    assert codes(read(path)) == ["first_time_point", "assumed_hu"]
    for point in range(3):
        scan = read(path, time_point=point)
        np.testing.assert_array_equal(scan.pixels[..., 0], times[point])
        assert codes(scan) == ["assumed_hu"]
    with pytest.raises(ScanError, match="no time point 3") as caught:
        read(path, time_point=3)
    assert caught.value.code == "not_found"


def test_of_a_vector_the_first_value_is_read(tmp_path: Path, hu_volume: Any, codes: Any) -> None:
    field = np.stack([hu_volume(seed=seed) for seed in range(3)])
    path = write_nifti(tmp_path / "x.nii", field[:, np.newaxis], sform=(1, LPS))
    scan = read(path)
    np.testing.assert_array_equal(scan.pixels[..., 0], field[0])
    assert codes(scan) == ["first_channel", "assumed_hu"]


def test_without_a_form_the_axes_are_taken_as_they_are(
    tmp_path: Path, hu_volume: Any, codes: Any
) -> None:
    volume = hu_volume()
    scan = read(write_nifti(tmp_path / "x.nii", volume))
    assert codes(scan) == ["orientation_missing", "assumed_hu"]
    np.testing.assert_array_equal(scan.pixels[..., 0], volume)
    assert scan.spacing_mm == pytest.approx((2.5, 0.8, 0.7))


@pytest.mark.parametrize(
    ("change", "warned"),
    [
        (lambda affine: affine, False),
        (lambda affine: affine + np.eye(4)[:, [3, 3, 3, 0]] * 0.3, False),  # under half a voxel
        (lambda affine: affine @ np.diag([1, 1, 1.4, 1]), True),
        (lambda affine: affine[:, [1, 0, 2, 3]], True),
        (lambda affine: affine * 0, True),
        (lambda affine: affine * np.nan, True),
    ],
)
def test_forms_that_disagree_are_named(
    tmp_path: Path, hu_volume: Any, codes: Any, change: Any, warned: bool
) -> None:
    qform = LPS @ np.diag([0.7, 0.8, 2.5, 1])
    sform = change(qform)
    path = write_nifti(
        tmp_path / "x.nii", hu_volume(), sform=(2, sform), qform=(1, (0, 0, 1, 0, 0, 0))
    )
    scan = read(path)
    assert codes(scan) == [*(["orientation_conflict"] if warned else []), "assumed_hu"]
    usable = np.isfinite(sform).all() and sform[:3, :3].any()
    lengths = np.linalg.norm((sform if usable else qform)[:3, :3], axis=0)
    assert sorted(scan.spacing_mm) == pytest.approx(sorted(lengths.tolist()))  # type: ignore[type-var]


def test_a_sheared_form_is_named(tmp_path: Path, hu_volume: Any, codes: Any) -> None:
    sheared = LPS @ np.diag([1.0, 1.0, 3.0, 1.0])
    sheared[1, 2] = 0.3
    scan = read(write_nifti(tmp_path / "x.nii", hu_volume(), sform=(1, sheared)))
    assert codes(scan) == ["tilt", "assumed_hu"]
    assert "5.7°" in scan.warnings[0].message


@pytest.mark.parametrize(("units", "factor"), [(0, 1), (1, 1000), (2, 1), (3, 0.001), (8 + 2, 1)])
def test_metres_and_micrometres_become_millimetres(
    tmp_path: Path, hu_volume: Any, units: int, factor: float
) -> None:
    scan = read(
        write_nifti(tmp_path / "x.nii", hu_volume(), units=units, sform=(1, np.diag([1, 2, 3, 1])))
    )
    assert scan.spacing_mm == pytest.approx((3 * factor, 2 * factor, factor))


def test_analyze_files_are_read_and_their_orientation_is_missing(
    tmp_path: Path, hu_volume: Any, codes: Any
) -> None:
    volume = hu_volume()
    path = write_nifti(tmp_path / "x.hdr", volume, pair=True, magic=b"\0\0\0", order=">")
    scan = read(path)
    np.testing.assert_array_equal(scan.pixels[..., 0], volume)
    assert (scan.format, codes(scan)) == ("analyze", ["orientation_missing", "assumed_hu"])
    assert scan.spacing_mm == pytest.approx((2.5, 0.8, 0.7))


def test_a_pair_is_one_scan_by_either_name(tmp_path: Path, hu_volume: Any) -> None:
    write_nifti(tmp_path / "x.hdr", hu_volume(), pair=True)
    pair = (str(tmp_path / "x.hdr"), str(tmp_path / "x.img"))
    for name in (str(tmp_path), *pair):
        (case,) = find_scans([name])
        assert isinstance(case, Case)
        assert (case.path, case.files) == (pair[0], pair)


def test_a_header_without_its_data_names_them(tmp_path: Path, hu_volume: Any) -> None:
    path = write_nifti(tmp_path / "x.hdr", hu_volume(), pair=True)
    (tmp_path / "x.img").unlink()
    (case,) = find_scans([str(path)])
    assert isinstance(case, Case)
    with pytest.raises(ScanError, match=r"x\.img is missing") as caught:
        read_scan(case)
    assert caught.value.code == "not_found"


def test_a_gzipped_data_file_belongs_to_its_header(tmp_path: Path, hu_volume: Any) -> None:
    path = write_nifti(tmp_path / "x.hdr", hu_volume(), pair=True)
    (tmp_path / "x.img.gz").write_bytes(gzip.compress((tmp_path / "x.img").read_bytes()))
    (tmp_path / "x.img").unlink()
    np.testing.assert_array_equal(read(path).pixels[..., 0], hu_volume())


def test_other_files_named_hdr_are_no_volumes(tmp_path: Path) -> None:
    (tmp_path / "x.hdr").write_bytes(b"#?RADIANCE\n" * 60)
    assert failure(tmp_path / "x.hdr") == "not_an_image"


def test_content_makes_a_nifti_whatever_the_name(tmp_path: Path, hu_volume: Any) -> None:
    np.testing.assert_array_equal(
        read(write_nifti(tmp_path / "x.img", hu_volume(), version=2)).pixels[..., 0], hu_volume()
    )


@pytest.mark.parametrize("orientation", ["axial", "coronal", "sagittal"])
def test_a_lone_slice_keeps_its_plane_and_is_turned_as_it_is_looked_at(
    tmp_path: Path, orientation: str
) -> None:
    """RAS columns of the axes x (in a row), y (down the rows) and z of the stored slice."""
    stored = {
        "axial": np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1]]),  # runs to the right and the front
        "coronal": np.array([[1, 0, 0], [0, 0, 1], [0, 1, 0]]),  # to the right and the head
        "sagittal": np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0]]),  # to the front and the head
    }[orientation]
    ras = np.eye(4)
    ras[:3, :3] = stored
    values = np.arange(12, dtype=np.uint8).reshape(1, 3, 4)
    scan = read(write_nifti(tmp_path / "x.nii", values, sform=(1, ras)))
    np.testing.assert_array_equal(scan.pixels[..., 0], values[:, ::-1, ::-1])
    assert scan.affine is not None
    down, along = scan.affine[:3, 1], scan.affine[:3, 2]
    expected = {
        "axial": ((0, 1, 0), (1, 0, 0)),  # to the back; to the left
        "coronal": ((0, 0, -1), (1, 0, 0)),  # to the feet; to the left
        "sagittal": ((0, 0, -1), (0, 1, 0)),  # to the feet; to the back
    }[orientation]
    assert (tuple(down), tuple(along)) == expected


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"code": 1}, "unsupported_pixels"),
        ({"code": 32}, "unsupported_pixels"),
        ({"intent": 3001}, "unsupported_pixels"),
        ({"size": (0, 3, 4)}, "damaged_header"),
        ({"size": (-2, 3, 4)}, "damaged_header"),
        ({"size": (12, 3, 4)}, "truncated"),
        ({"size": (4000, 4000, 4000)}, "too_large"),
        ({"magic": b"xxx"}, "damaged_header"),
        ({"start": 100}, "damaged_header"),
        ({"start": -8}, "damaged_header"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, change: dict[str, Any], code: str) -> None:
    values = np.zeros((2, 3, 4), np.int16)
    assert failure(write_nifti(tmp_path / "x.nii", values, **change)) == code


@pytest.mark.parametrize("version", [1, 2])
def test_an_offset_of_zero_and_unused_axes_of_zero_are_common(
    tmp_path: Path, hu_volume: Any, version: int
) -> None:
    volume = hu_volume()
    size = (*volume.shape[::-1], 0)
    scan = read(write_nifti(tmp_path / "x.nii", volume, version=version, start=0, size=size))
    np.testing.assert_array_equal(scan.pixels[..., 0], volume)


@pytest.mark.parametrize("version", [1, 2])
def test_a_damaged_number_of_dimensions_is_named(tmp_path: Path, version: int) -> None:
    path = write_nifti(tmp_path / "x.nii", np.zeros((2, 3, 4), np.int16), version=version)
    data = bytearray(path.read_bytes())
    struct.pack_into("<h", data, 40 if version == 1 else 16, 9)
    path.write_bytes(data)
    assert failure(path) == "damaged_header"


def test_an_unknown_pixdim_is_an_unknown_spacing(tmp_path: Path, hu_volume: Any) -> None:
    path = write_nifti(tmp_path / "x.nii", hu_volume(), pixdim=(1, 0.7, 0.8, 0, 0, 0, 0, 0))
    assert read(path).spacing_mm == (None, pytest.approx(0.8), pytest.approx(0.7))


def test_a_compressed_volume_is_inflated_once(
    tmp_path: Path, hu_volume: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = hu_volume(40, 100, 100)
    path = write_nifti(tmp_path / "x.nii.gz", volume, sform=(1, LPS))
    inflated: list[int] = []
    plain = gzip.GzipFile.read

    def counted(self: gzip.GzipFile, size: int | None = -1) -> bytes:
        data = plain(self, size)
        inflated.append(len(data))
        return data

    monkeypatch.setattr(gzip.GzipFile, "read", counted)
    read(path)
    assert sum(inflated) < 1.1 * volume.nbytes


def test_odd_matrices_print_nothing(tmp_path: Path, hu_volume: Any) -> None:
    """ITK writes its opinion of a header to standard error, past Python."""
    path = write_nifti(
        tmp_path / "x.hdr", hu_volume(), pair=True, sform=(1, np.ones((3, 4))), magic=b"\0\0\0"
    )
    program = (
        "import sys; from medcli import find_scans, read_scan; read_scan(*find_scans(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("", "")


def test_headers_tell_their_time_points(tmp_path: Path) -> None:
    values = np.zeros((5, 2, 3, 4), np.int16)
    assert read_volume_header(str(write_nifti(tmp_path / "x.nii", values))).time_points == 5
