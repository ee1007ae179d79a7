"""Floods of tiny elements: refused by their number, wherever in a header they stand."""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from medcli.errors import ScanError
from medcli.imaging import dicom_bounds
from medcli.imaging.dicom import read_image
from medcli.imaging.dicom_directory import referenced_files
from medcli.imaging.dicom_file import quiet
from medcli.imaging.dicom_header import read_header
from medcli.imaging.discovery import find_scans
from medcli.records import Failure

ITEM, END = b"\xfe\xff\0\xe0\0\0\0\0", b"\xfe\xff\xdd\xe0\0\0\0\0"
PER_FRAME, PRIVATE = b"\x00\x52\x30\x92", b"\x09\0\x10\x10"


def sequence(tag: bytes, body: bytes, *, undefined: bool = False) -> bytes:
    length = b"\xff" * 4 if undefined else struct.pack("<I", len(body))
    return tag + b"SQ\0\0" + length + body + (END if undefined else b"")


def distinct(count: int) -> bytes:
    return b"".join(struct.pack("<HH2sH", 0x11, 0x1000 + i, b"LO", 0) for i in range(count))


FLOODS: dict[str, Callable[[int], bytes]] = {
    "one element again and again": lambda count: b"\x09\0\x10\x10LO\0\0" * count,
    "elements of two bytes": lambda count: b"\x09\0\x10\x10LO\x02\0ab" * count,
    "many elements": distinct,
    "private items": lambda count: sequence(PRIVATE, ITEM * (count // 8), undefined=True),
    "items of frames": lambda count: sequence(PER_FRAME, ITEM * (count // 8)),
    "items of frames without a length": lambda count: sequence(
        PER_FRAME, ITEM * (count // 8), undefined=True
    ),
    "elements of a frame": lambda count: sequence(
        PER_FRAME, ITEM[:4] + struct.pack("<I", 8 * count) + distinct(count)
    ),
    "sequences": lambda count: sequence(PRIVATE, b"", undefined=True) * count,
}


def flooded(path: str, flood: bytes) -> str:
    data = Path(path).read_bytes()
    place = data.index(b"\xe0\x7f\x10\0")  # in front of the pixels
    Path(path).write_bytes(data[:place] + flood + data[place:])
    return path


def code_of(read: Callable[[str], object], path: str) -> str:
    with pytest.raises(ScanError) as caught:
        read(path)
    assert path in str(caught.value)
    return caught.value.code


@pytest.mark.parametrize("kind", FLOODS)
def test_a_flood_is_refused(make_dicom: Any, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(dicom_bounds, "MAX_ELEMENTS", 2000)
    path = flooded(make_dicom(), FLOODS[kind](4000))
    assert code_of(read_header, path) == "too_large"
    (found,) = find_scans([path])
    assert isinstance(found, Failure)
    assert found.code == "too_large"


@pytest.mark.parametrize("kind", FLOODS)
def test_less_than_a_flood_changes_nothing(
    make_dicom: Any, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(dicom_bounds, "MAX_ELEMENTS", 2000)
    sound = read_image(make_dicom("sound.dcm"))
    image = read_image(flooded(make_dicom(), FLOODS[kind](500)))
    np.testing.assert_array_equal(image.pixels, sound.pixels)


@pytest.mark.parametrize("keyword", ["PixelSpacing", "ImageType", "WindowCenter"])
def test_a_list_without_end_is_refused(
    make_dicom: Any, monkeypatch: pytest.MonkeyPatch, keyword: str
) -> None:
    monkeypatch.setattr(dicom_bounds, "MAX_ELEMENTS", 2000)
    path = make_dicom(**{keyword: ["1"] * 10_000})
    assert code_of(read_image if keyword == "WindowCenter" else read_header, path) == "too_large"


def test_items_in_a_directory_are_counted(make_dicom: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicom_bounds, "MAX_ELEMENTS", 2000)
    path = make_dicom("DICOMDIR")
    flooded(path, sequence(b"\x04\0\x20\x12", ITEM * 4000))
    assert code_of(referenced_files, path) == "too_large"


def enhanced(frames: int, groups: int) -> bytes:
    """Functional groups of so many frames."""
    group = sequence(PRIVATE, ITEM[:4] + struct.pack("<I", 80) + distinct(10))
    frame = ITEM[:4] + struct.pack("<I", groups * len(group)) + group * groups
    return sequence(PER_FRAME, frame * frames)


def test_frames_that_are_announced_may_take_their_share(
    make_dicom: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dicom_bounds, "MAX_ELEMENTS", 1000)
    pixels = np.zeros((60, 2, 2), np.uint16)
    path = make_dicom("many.dcm", pixels, NumberOfFrames=60)
    assert read_header(flooded(path, enhanced(60, 15))).frames == 60
    one = flooded(make_dicom("one.dcm", pixels[0]), enhanced(60, 15))
    assert code_of(read_header, one) == "too_large"


def test_each_file_has_a_budget_of_its_own(
    make_dicom: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dicom_bounds, "MAX_ELEMENTS", 700)
    paths = [flooded(make_dicom(f"{i}.dcm"), distinct(500)) for i in range(3)]
    assert [read_header(path).rows for path in paths] == [read_header(paths[0]).rows] * 3


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["one element again and again", "items of frames"])
def test_a_flood_at_the_limit_takes_seconds(make_dicom: Any, kind: str) -> None:
    path = flooded(make_dicom(), FLOODS[kind](2**20))
    began = time.process_time()
    assert code_of(read_header, path) == "too_large"
    assert time.process_time() - began < 8


def test_other_threads_keep_pydicoms_own_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicom_bounds, "MAX_ELEMENTS", 0)
    dataset = Dataset()
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    buffer = pydicom.filebase.DicomBytesIO()
    pydicom.dcmwrite(buffer, dataset, implicit_vr=True, little_endian=True)
    found: list[object] = []

    def elsewhere() -> None:
        buffer.seek(0)
        found.append(pydicom.dcmread(buffer, force=True).ImageType)

    with quiet():
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
    assert found == [["ORIGINAL", "PRIMARY", "AXIAL"]]
