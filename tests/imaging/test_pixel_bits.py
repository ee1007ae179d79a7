"""Pixel cells of every width, against values that were packed by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.uid import ExplicitVRBigEndian, RLELossless

from medcli.errors import ScanError
from medcli.imaging.dicom import read_image

ROWS, COLUMNS = 3, 5


def packed(values: np.ndarray, allocated: int, stored: int, low: int, junk: int) -> bytes:
    """Whole numbers in cells of `allocated` bits, with `junk` in the bits that hold no value."""
    mask = ((1 << stored) - 1) << low
    total = 0
    for place, number in enumerate(values.ravel().tolist()):
        cell = (number << low) & mask | (junk ^ number * 0x9E3779B1) & ~mask & (1 << allocated) - 1
        total |= cell << allocated * place
    size = -(-values.size * allocated // 8)
    return total.to_bytes(size + size % 2, "little")


def cells_tags(allocated: int, stored: int, low: int, signed: bool) -> dict[str, Any]:
    return {
        "Modality": "OT",
        "BitsAllocated": allocated,
        "BitsStored": stored,
        "HighBit": stored + low - 1,
        "PixelRepresentation": int(signed),
    }


@st.composite
def cells(draw: st.DrawFn) -> tuple[np.ndarray, int, int, int, int, bool]:
    """Values of an image, and how they are to be stored."""
    allocated = draw(st.integers(2, 32))
    stored = draw(st.integers(1, allocated))
    low = draw(st.integers(0, allocated - stored))
    signed = draw(st.booleans())
    first, last = (-(1 << stored - 1), (1 << stored - 1) - 1) if signed else (0, (1 << stored) - 1)
    numbers = st.integers(first, last)
    values = draw(st.lists(numbers, min_size=ROWS * COLUMNS, max_size=ROWS * COLUMNS))
    junk = draw(st.integers(0, 2**32 - 1))
    return np.array(values).reshape(ROWS, COLUMNS), allocated, stored, low, junk, signed


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(cells())
def test_any_bits_in_any_cells_are_read_and_junk_is_not(
    make_dicom: Any, drawn: tuple[np.ndarray, int, int, int, int, bool]
) -> None:
    values, allocated, stored, low, junk, signed = drawn
    tags = cells_tags(allocated, stored, low, signed)
    data = packed(values, allocated, stored, low, junk)
    path = make_dicom("x.dcm", np.zeros((ROWS, COLUMNS), np.uint8), PixelData=data, **tags)
    image = read_image(path)
    np.testing.assert_array_equal(image.pixels[0, ..., 0], values.astype(image.pixels.dtype))
    named = [warning.code for warning in image.warnings]
    assert named == (["nonconformant_header"] if low else [])


@pytest.mark.parametrize("bits", [10, 12, 20, 24])
def test_cells_larger_than_a_part_are_read_in_parts(
    make_dicom: Any, monkeypatch: pytest.MonkeyPatch, bits: int
) -> None:
    monkeypatch.setattr("medcli.imaging.dicom_cells._CELLS_AT_ONCE", 8)
    values = np.random.default_rng(bits).integers(0, 1 << bits, (9, 7))
    data = packed(values, bits, bits, 0, 0)
    tags = cells_tags(bits, bits, 0, signed=False)
    path = make_dicom("x.dcm", np.zeros((9, 7), np.uint8), PixelData=data, **tags)
    np.testing.assert_array_equal(read_image(path).pixels[0, ..., 0], values)


@pytest.mark.parametrize("dtype", [np.uint64, np.int64])
def test_sixty_four_bits_are_rounded_to_floats(make_dicom: Any, dtype: type) -> None:
    values = np.array([[0, 2**40 + 1], [7, 2**24]], dtype)
    path = make_dicom("x.dcm", values, Modality="OT")
    np.testing.assert_array_equal(read_image(path).pixels[0, ..., 0], values.astype(np.float32))


def test_run_length_coded_cells_follow_the_high_bit(make_dicom: Any, tmp_path: Any) -> None:
    cells = np.random.default_rng(0).integers(0, 2**16, (6, 8), np.uint16)
    dataset = pydicom.dcmread(make_dicom("raw.dcm", cells, Modality="MR"))
    dataset.compress(RLELossless)
    dataset.BitsStored, dataset.HighBit = 12, 15
    dataset.save_as(tmp_path / "x.dcm")
    image = read_image(str(tmp_path / "x.dcm"))
    np.testing.assert_array_equal(image.pixels[0, ..., 0], cells >> 4)


@pytest.mark.parametrize("high", [5, 16, 300])
def test_a_high_bit_that_cannot_be_is_ignored(make_dicom: Any, high: int) -> None:
    cells = np.arange(48, dtype=np.uint16).reshape(6, 8)
    path = make_dicom("x.dcm", cells, Modality="MR", BitsStored=12, HighBit=high)
    np.testing.assert_array_equal(read_image(path).pixels[0, ..., 0], cells)


def test_an_overlay_in_the_unused_bits_is_not_seen(make_dicom: Any) -> None:
    """Retired in 2004, and still met: overlay 6000 in bit 12 of each pixel."""
    grey = np.random.default_rng(0).integers(0, 4096, (6, 8), np.uint16)
    overlay = np.uint16(1 << 12) * (np.indices((6, 8)).sum(0) % 2).astype(np.uint16)
    path = make_dicom("x.dcm", grey | overlay, Modality="MR", BitsStored=12, HighBit=11)
    np.testing.assert_array_equal(read_image(path).pixels[0, ..., 0], grey)


def test_frames_of_odd_cells_follow_each_other_without_a_gap(make_dicom: Any) -> None:
    values = np.random.default_rng(0).integers(0, 4096, (3, 3, 5))
    tags = cells_tags(12, 12, 0, signed=False) | {"NumberOfFrames": 3}
    data = packed(values, 12, 12, 0, 0)
    path = make_dicom("x.dcm", np.zeros((3, 5), np.uint8), PixelData=data, **tags)
    np.testing.assert_array_equal(read_image(path).pixels[..., 0], values)


def test_single_bits_of_odd_frames_agree_with_pydicom(make_dicom: Any) -> None:
    bits = np.random.default_rng(0).integers(0, 2, (3, 3, 5))
    tags = cells_tags(1, 1, 0, signed=False) | {"NumberOfFrames": 3}
    data = packed(bits, 1, 1, 0, 0)
    path = make_dicom("x.dcm", np.zeros((3, 5), np.uint8), PixelData=data, **tags)
    np.testing.assert_array_equal(pydicom.dcmread(path).pixel_array, bits)
    np.testing.assert_array_equal(read_image(path).pixels[..., 0], bits)


def code_of(path: str) -> str:
    with pytest.raises(ScanError) as caught:
        read_image(path)
    return caught.value.code


def test_odd_cells_that_end_early_are_truncated(make_dicom: Any) -> None:
    tags = cells_tags(12, 12, 0, signed=False)
    path = make_dicom("x.dcm", np.zeros((3, 5), np.uint8), PixelData=bytes(22), **tags)
    assert code_of(path) == "truncated"


@pytest.mark.parametrize("syntax", [ExplicitVRBigEndian, RLELossless])
def test_odd_cells_are_read_from_plain_little_endian_data_only(
    make_dicom: Any, tmp_path: Any, syntax: str
) -> None:
    dataset = pydicom.dcmread(make_dicom())
    if syntax == RLELossless:
        dataset.compress(syntax)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.BitsAllocated = dataset.BitsStored = 12
    pydicom.dcmwrite(tmp_path / "x.dcm", dataset, implicit_vr=None, little_endian=None)
    assert code_of(str(tmp_path / "x.dcm")) == "unsupported_pixels"


def test_what_lies_behind_the_frames_is_ignored(make_dicom: Any) -> None:
    grey = np.arange(80, dtype=np.uint16).reshape(8, 10)
    path = make_dicom("x.dcm", grey, Modality="MR", PixelData=grey.tobytes() * 3)
    np.testing.assert_array_equal(read_image(path).pixels[:, ..., 0], [grey])
