"""Headers are read once for finding and reading, and again where their file has changed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medcli.errors import ScanError
from medcli.imaging import dicom_header, header_memory
from medcli.imaging.discovery import find_scans
from medcli.imaging.header_memory import found_header, kept_headers, known_header
from medcli.imaging.isolation.pool import read_in_worker
from medcli.imaging.isolation.together import Batch
from medcli.imaging.reader import read_scan
from medcli.records import Case


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files whose header is read, in order."""
    paths: list[str] = []
    usual = dicom_header.read_header

    def read_header(path: str) -> Any:
        paths.append(path)
        return usual(path)

    monkeypatch.setattr(dicom_header, "read_header", read_header)
    return paths


def test_the_header_of_a_found_file_is_read_once(make_dicom: Any, read: list[str]) -> None:
    path = make_dicom()
    (case,) = find_scans([path])
    assert isinstance(case, Case)
    read_scan(case)
    assert read == [path]


def test_a_file_that_was_written_to_is_read_anew(make_dicom: Any) -> None:
    path = make_dicom("x.dcm", np.zeros((4, 5), np.uint16))
    (case,) = find_scans([path])
    assert isinstance(case, Case)
    make_dicom("x.dcm", np.ones((6, 7), np.uint16))
    assert read_scan(case).pixels.shape == (1, 6, 7, 1)


def test_a_file_of_the_same_size_and_time_is_read_anew(make_dicom: Any) -> None:
    path = make_dicom("x.dcm", np.zeros((4, 6), np.uint16), SOPInstanceUID="1.2.3")
    before = os.stat(path)
    assert found_header(path).rows == 4
    make_dicom("x.dcm", np.zeros((6, 4), np.uint16), SOPInstanceUID="1.2.3")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert os.stat(path).st_size == before.st_size
    assert known_header(path).rows == 6


def test_a_file_that_is_gone_is_missed(make_dicom: Any) -> None:
    path = make_dicom()
    found_header(path)
    Path(path).unlink()
    with pytest.raises(ScanError) as caught:
        known_header(path)
    assert caught.value.code == "not_found"


def test_old_headers_make_room(make_dicom: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(header_memory, "_kept", {})
    monkeypatch.setattr(header_memory, "KEPT", 2)
    paths = [make_dicom(f"{i}.dcm") for i in range(3)]
    for path in paths:
        found_header(path)
    assert [known.header.path for known in kept_headers(paths)] == paths[1:]


def test_a_worker_is_handed_the_headers(make_dicom: Any) -> None:
    path = make_dicom()
    (case,) = find_scans([path])
    assert isinstance(case, Case)
    here, there = read_scan(case), read_in_worker(case, Batch())
    np.testing.assert_array_equal(here.pixels, there.pixels)
    assert (here.metadata, here.affine is None, here.warnings) == (
        there.metadata, there.affine is None, there.warnings,
    )  # fmt: skip
