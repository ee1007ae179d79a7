"""Files that end in zeros, as interrupted copies and bombs do: told of at once."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from medcli.errors import ScanError
from medcli.imaging.dicom import read_image
from medcli.imaging.dicom_directory import referenced_files
from medcli.imaging.discovery import find_scans
from medcli.records import Failure

ZEROS = bytes(4 * 2**20)  # half a million empty elements (0000,0000), seconds of parsing


def only_code(path: str) -> str:
    (found,) = find_scans([path])
    assert isinstance(found, Failure)
    return found.code


@pytest.mark.parametrize("before", ["prefix", "meta", "an element", "half an element", "an item"])
def test_zeros_instead_of_elements_are_told_of_at_once(make_dicom: Any, before: str) -> None:
    item = Dataset()
    item.CodeValue = "1"
    item.is_undefined_length_sequence_item = True
    items = Sequence([item])
    items.is_undefined_length = True
    path = make_dicom(ProcedureCodeSequence=items, StudyDescription="mark")
    data = Path(path).read_bytes()
    start = {
        "prefix": 132,
        "meta": data.index(b"\x08\0\x16\0UI"),
        "an element": data.index(b"\x08\0\x30\x10LO"),
        "half an element": data.index(b"\x08\0\x30\x10LO") + 6,
        "an item": data.index(b"\xfe\xff\x0d\xe0"),
    }[before]
    Path(path).write_bytes(data[:start] + ZEROS)
    began = time.monotonic()
    assert only_code(path) in ("truncated", "damaged_header")
    with pytest.raises(ScanError):
        read_image(path)
    assert time.monotonic() - began < 2


def test_zeros_behind_the_pixels_change_nothing(make_dicom: Any) -> None:
    path = make_dicom()
    sound = read_image(path)
    with Path(path).open("ab") as file:
        file.write(ZEROS)
    began = time.monotonic()
    padded = read_image(path)
    assert time.monotonic() - began < 2
    np.testing.assert_array_equal(padded.pixels, sound.pixels)
    assert padded.warnings == sound.warnings


def test_a_value_of_zero_in_eight_bytes_ends_nothing(make_dicom: Any) -> None:
    path = make_dicom(
        "x.dcm", np.zeros((2, 2), np.uint16), ExposureTimeInms=0.0,
        DistanceSourceToDataCollectionCenter=0.0, ReconstructionAngle=0.0,
    )  # fmt: skip
    assert read_image(path).pixels.shape == (1, 2, 2, 1)


def test_a_directory_that_ends_in_zeros_is_read_at_once(tmp_path: Path, make_dicom: Any) -> None:
    path = make_dicom("DICOMDIR")
    data = Path(path).read_bytes()
    Path(path).write_bytes(data[: data.index(b"\x08\0\x60\0CS")] + ZEROS)
    began = time.monotonic()
    assert referenced_files(path) == ([], {})
    assert time.monotonic() - began < 2
