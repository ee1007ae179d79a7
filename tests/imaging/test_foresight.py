"""Workers come up early where a look at the inputs says that they will be needed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import MPEG2MPML, RLELossless

from medcli.errors import StorageError
from medcli.imaging.discovery import find_scans
from medcli.imaging.isolation import pool
from medcli.imaging.isolation.foresight import foresee
from medcli.imaging.isolation.pool import Pool, Worker
from medcli.imaging.isolation.together import Batch
from medcli.records import Case


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    counts: list[int] = []
    monkeypatch.setattr(pool, "start_workers", counts.append)
    return counts


@pytest.fixture
def compressed(make_dicom: Any, tmp_path: Path) -> str:
    dataset = pydicom.dcmread(make_dicom())
    dataset.compress(RLELossless)
    path = tmp_path / "disk" / "study" / "series" / "I10"
    path.parent.mkdir(parents=True)
    dataset.save_as(path)
    return str(path)


def test_a_compressed_file_starts_one(compressed: str, started: list[int]) -> None:
    foresee([compressed])
    assert started == [1]


def test_a_compressed_file_in_a_folder_starts_one(compressed: str, started: list[int]) -> None:
    foresee([str(Path(compressed).parents[2])])
    assert started == [1]


def test_plain_and_unknown_files_start_none(
    make_dicom: Any, tmp_path: Path, started: list[int]
) -> None:
    video = pydicom.dcmread(make_dicom("video.dcm"))
    video.file_meta.TransferSyntaxUID = MPEG2MPML
    video.PixelData = encapsulate([b"\0\0"])
    video.save_as(tmp_path / "video.dcm", implicit_vr=False, little_endian=True)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    foresee([make_dicom(), str(tmp_path / "video.dcm"), str(tmp_path / "missing"), str(tmp_path)])
    assert started == []


def test_a_big_batch_starts_as_many_as_it_uses(make_dicom: Any, started: list[int]) -> None:
    foresee([make_dicom()] * 9)
    assert started == [2]


def test_no_process_to_be_had_is_told_by_who_needs_it(
    compressed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(count: int) -> None:
        raise StorageError("cannot start a process")

    monkeypatch.setattr(pool, "start_workers", fail)
    foresee([compressed])


def test_a_worker_that_waits_is_asked_first(
    compressed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers = Pool()
    workers.start(1)
    (case,) = find_scans([compressed])
    assert isinstance(case, Case)

    def another() -> Worker:
        raise AssertionError("a second worker was started")

    monkeypatch.setattr(pool, "Worker", another)
    assert workers.read(case, Batch()).pixels.size
    workers.start(1)  # it is there already
    workers.close()
