"""Digests of files and pixels."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medcli.errors import ScanError
from medcli.imaging.hashing import file_sha256, files_sha256, pixel_sha256


def test_a_file_is_hashed_as_sha256sum_does(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc" * 1000)
    assert file_sha256(str(tmp_path / "x")) == hashlib.sha256(b"abc" * 1000).hexdigest()
    assert files_sha256([str(tmp_path / "x")]) == file_sha256(str(tmp_path / "x"))


def test_a_series_has_one_digest_in_any_order(tmp_path: Path) -> None:
    paths = []
    for name in "abc":
        (tmp_path / name).write_text(name)
        paths.append(str(tmp_path / name))
    listed = sorted(hashlib.sha256(name.encode()).hexdigest() for name in "abc")
    expected = hashlib.sha256("".join(f"{each}\n" for each in listed).encode()).hexdigest()
    assert files_sha256(paths) == files_sha256(paths[::-1]) == expected


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ScanError, match="gone"):
        file_sha256(str(tmp_path / "gone"))


def test_pixels_are_hashed_by_value_not_by_number_type(scan_of: Any) -> None:
    values = np.random.default_rng(0).integers(0, 256, (2, 5, 6, 1))
    digests = {
        pixel_sha256(scan_of(values.astype(kind))) for kind in ("u1", "<i2", ">u2", "f4", "f8")
    }
    plain = hashlib.sha256(
        np.array(values.shape, "<u8").tobytes() + values.astype("<f4").tobytes()
    ).hexdigest()
    assert digests == {plain}


def test_negative_zero_is_zero(scan_of: Any) -> None:
    zeros = np.zeros((1, 2, 2, 1), np.float32)
    assert pixel_sha256(scan_of(zeros)) == pixel_sha256(scan_of(-zeros))


def test_shape_and_values_count(scan_of: Any) -> None:
    values = np.arange(24, dtype=np.int16).reshape(2, 3, 4, 1)
    other = [values.reshape(1, 6, 4, 1), values + 1, values[:, ::-1]]
    assert len({pixel_sha256(scan_of(each)) for each in (values, *other)}) == 4
