"""Members of MedMNIST-like archives."""

from __future__ import annotations

import os
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medcli.errors import ScanError
from medcli.imaging import arrays, values
from medcli.imaging.reader import read_scan
from medcli.records import Case

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (4, 28, 28), np.uint8)
COLOUR = RNG.integers(0, 256, (4, 28, 28, 3), np.uint8)
VOLUME = RNG.integers(0, 256, (4, 28, 28, 28), np.uint8)


@pytest.fixture
def archive(tmp_path: Path) -> str:
    path = tmp_path / "set.npz"
    np.savez(path, train_images=GREY, val_images=COLOUR, test_images=VOLUME)
    return str(path)


def case(path: str, member: str) -> Case:
    return Case(f"{path}!/{member}", (path,), "array", member, member=member, patient_id="p")


@pytest.mark.parametrize(
    ("member", "expected"),
    [
        ("train_images/2", GREY[2][None, ..., None]),
        ("val_images/1", COLOUR[1][None]),
        ("test_images/3", VOLUME[3][..., None]),
    ],
)
def test_members_are_grey_colour_or_volumes_by_their_shape(
    archive: str, member: str, expected: np.ndarray
) -> None:
    scan = read_scan(case(archive, member))
    np.testing.assert_array_equal(scan.pixels, expected)
    assert (scan.format, scan.unit, scan.patient_id) == ("npz", "display", "p")
    assert scan.slice_files == (archive,) * len(expected)


def test_an_item_without_a_finite_value_is_damaged_and_one_of_one_value_is_told_of(
    tmp_path: Path,
) -> None:
    images = np.full((2, 4, 4), np.nan, np.float32)
    images[1] = 3
    path = str(tmp_path / "set.npz")
    np.savez(path, train_images=images)
    with pytest.raises(ScanError) as caught:
        read_scan(case(path, "train_images/0"))
    assert caught.value.code == "damaged_pixels"
    scan = read_scan(case(path, "train_images/1"))
    assert [warning.code for warning in scan.warnings] == ["constant"]


def test_the_archive_is_inflated_once_for_all_members(
    archive: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []
    read = arrays.npy.read_array
    monkeypatch.setattr(arrays.npy, "read_array", lambda *a, **k: calls.append(a) or read(*a, **k))
    for number in range(4):
        read_scan(case(archive, f"train_images/{number}"))
    assert len(calls) == 1


def test_a_changed_archive_is_read_again(archive: str) -> None:
    read_scan(case(archive, "train_images/0"))
    np.savez(archive, train_images=GREY + np.uint8(1))
    os.utime(archive, ns=(1, 1))
    scan = read_scan(case(archive, "train_images/0"))
    np.testing.assert_array_equal(scan.pixels[0, ..., 0], GREY[0] + np.uint8(1))


@pytest.mark.parametrize("member", ["train_images/9", "train_images/x", "nothing/0", ""])
def test_a_missing_member_is_named(archive: str, member: str) -> None:
    with pytest.raises(ScanError) as caught:
        read_scan(case(archive, member))
    assert caught.value.code == "not_found"


def failure(path: str) -> str:
    with pytest.raises(ScanError) as caught:
        read_scan(case(path, "train_images/0"))
    return caught.value.code


def test_truncation_and_a_wrong_checksum_are_told_apart(archive: str) -> None:
    data = bytearray(Path(archive).read_bytes())
    Path(archive).write_bytes(data[:-200])
    assert failure(archive) == "truncated"
    data[400] ^= 1
    Path(archive).write_bytes(data)
    assert failure(archive) == "crc"


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, train_images=np.array([{"a": 1}], dtype=object))
    assert failure(str(path)) == "damaged_header"


def test_the_budget_is_checked_before_inflating(
    archive: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(values, "MAX_SAMPLES", 100)
    assert failure(archive) == "too_large"


@pytest.mark.parametrize("shape", [(0, 28), (28, 28, 2), (28, 28, 4), (9, 9, 9, 3), (0, 9, 9)])
def test_items_of_a_shape_that_means_nothing_are_refused(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, train_images=np.zeros((2, *shape), np.uint8))
    assert failure(str(path)) == "unsupported_pixels"


@pytest.mark.parametrize("shape", [(), (5,), (5, 28)])
def test_arrays_without_items_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, train_images=np.zeros(shape, np.uint8))
    assert failure(str(path)) == "unsupported_pixels"


def test_one_channel_is_grey_and_not_a_narrow_volume(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, train_images=GREY[..., np.newaxis])
    np.testing.assert_array_equal(
        read_scan(case(str(path), "train_images/1")).pixels, GREY[1][None, ..., None]
    )


@pytest.mark.parametrize(
    ("dtype", "read"), [(">u2", np.int16), ("?", np.uint8), ("<f8", np.float32), ("<c8", None)]
)
def test_numbers_of_any_real_type_are_read(tmp_path: Path, dtype: str, read: Any) -> None:
    path = tmp_path / "x.npz"
    values = np.arange(2 * 3 * 4).reshape(2, 3, 4).astype(dtype)
    np.savez(path, train_images=values)
    if read is None:
        assert failure(str(path)) == "unsupported_pixels"
        return
    pixels = read_scan(case(str(path), "train_images/0")).pixels
    assert pixels.dtype == read
    np.testing.assert_array_equal(pixels[0, ..., 0], values[0])


def test_a_header_that_announces_more_than_there_is_ends_in_a_code(tmp_path: Path) -> None:
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (9, 9, 9), }"
    member = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(100)
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("train_images.npy", member)
    assert failure(str(path)) == "damaged_header"
