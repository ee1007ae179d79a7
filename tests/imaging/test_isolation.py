"""Scans read by workers are the ones read in process; what passes the wire is checked."""

from __future__ import annotations

import io
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.uid import JPEGLSLossless, RLELossless

from medcli.errors import MedcliError, ScanError
from medcli.imaging.batch import AHEAD, read_all
from medcli.imaging.discovery import find_scans
from medcli.imaging.isolation import pool, wire
from medcli.imaging.isolation.pool import Pool, Worker
from medcli.imaging.isolation.together import Batch
from medcli.imaging.reader import read_here, read_scan
from medcli.records import Case, Failure, Scan, ScanWarning


def assert_same(scan: Scan, other: Scan) -> None:
    for field in fields(Scan):
        one, two = getattr(scan, field.name), getattr(other, field.name)
        if isinstance(one, np.ndarray):
            assert one.dtype == two.dtype
            np.testing.assert_array_equal(one, two)
        else:
            assert one == two, field.name
            assert type(one) is type(two)


def compressed(make_dicom: Any, tmp_path: Path, syntax: str, **tags: Any) -> str:
    dataset = pydicom.dcmread(make_dicom(**tags))
    dataset.compress(syntax)
    path = tmp_path / f"{syntax}.dcm"
    dataset.save_as(path)
    return str(path)


@pytest.fixture
def all_kinds(make_dicom: Any, write_ct_series: Any, hu_volume: Any, tmp_path: Path) -> list[Case]:
    """A case of every kind that workers read."""
    import SimpleITK as sitk

    tags = {"RescaleSlope": 1, "RescaleIntercept": -1024, "PatientID": "P1", "KVP": "120"}
    write_ct_series(tmp_path / "series", hu_volume(), drop=[2], PatientID="Ä1")
    compressed(make_dicom, tmp_path, RLELossless, **tags)
    compressed(make_dicom, tmp_path, JPEGLSLossless, **tags)
    Image.fromarray(np.arange(80, dtype=np.uint8).reshape(8, 10)).save(tmp_path / "x\udce9.png")
    sitk.WriteImage(sitk.GetImageFromArray(hu_volume()), str(tmp_path / "x.nii.gz"))
    return [found for found in find_scans([str(tmp_path)]) if isinstance(found, Case)]


def test_a_scan_from_a_worker_equals_the_one_read_here(
    all_kinds: list[Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    workers = Pool()
    try:
        scans = [workers.read(case, Batch()) for case in all_kinds]
    finally:
        workers.close()
    monkeypatch.setattr("medcli.imaging.isolation.inside._in_worker", True)
    assert {case.kind for case in all_kinds} == {"dicom", "picture", "volume"}
    for case, scan in zip(all_kinds, scans, strict=True):
        assert_same(scan, read_here(case))


def test_compressed_pixels_are_never_decoded_in_the_process_that_asks(
    make_dicom: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = compressed(make_dicom, tmp_path, RLELossless)
    (case,) = find_scans([path])
    assert isinstance(case, Case)
    monkeypatch.setattr("medcli.imaging.series.read_image", lambda _: pytest.fail("decoded here"))
    assert read_scan(case).transfer_syntax == RLELossless


def test_one_plain_slice_is_read_without_a_worker(
    make_dicom: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "Worker", lambda: pytest.fail("a worker was started"))
    (answer,) = (scan for _, scan in read_all(find_scans([make_dicom()])))
    assert isinstance(answer, Scan)


def test_a_big_batch_is_read_by_workers(
    make_dicom: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(AHEAD + 1):
        make_dicom(f"{number}.dcm", Modality="CR")
    monkeypatch.setattr("medcli.imaging.batch.read_safely", lambda *_: pytest.fail("read here"))
    answers = [scan for _, scan in read_all(find_scans([str(tmp_path)]))]
    assert len(answers) == AHEAD + 1
    assert all(isinstance(answer, Scan) for answer in answers)


def test_the_error_of_a_worker_is_the_one_of_this_process(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n")
    case = Case(str(path), (str(path),), "picture", "x")
    errors: list[MedcliError] = []
    for read in (read_here, lambda case: pool.read_in_worker(case, Batch())):
        with pytest.raises(ScanError) as caught:
            read(case)
        errors.append(caught.value)
    assert errors[0].code == errors[1].code  # type: ignore[attr-defined]
    assert str(errors[0]) == str(errors[1])


def round_trip(message: object) -> Any:
    stream = io.BytesIO()
    wire.send(stream, message)
    stream.seek(0)
    return wire.receive(stream)


@pytest.mark.parametrize(
    "message",
    [
        None,
        [True, 2, 0.5, "ä\udcff"],
        (1, (None, "x")),
        {"a": ("b",)},
        ScanWarning("gap", "a slice"),
        Failure("p", "crc", "m", files=("a", "b")),
        float("inf"),
    ],
)
def test_plain_messages_come_back_as_they_were(message: object) -> None:
    back = round_trip(message)
    assert back == message
    assert type(back) is type(message)


@pytest.mark.parametrize("kind", ["u1", "<i2", ">f4", "?", "f8"])
@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3, 4)])
def test_arrays_come_back_as_they_were(kind: str, shape: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape)).reshape(shape).astype(kind)
    back = round_trip([array, array.T])
    np.testing.assert_array_equal(back[0], array)
    np.testing.assert_array_equal(back[1], array.T)
    assert back[0].dtype == array.dtype


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 7,
        b"\xff" * 20,
        b"\0\0\0\0\0\0\0\x02{]",
        b"\0\0\0\0\0\0\0\x0f" + b'{"evil": "rm *"}'[:15],
        b"\0\0\0\0\0\0\0\x15" + b'{"record": ["exec", 1]}'[:21],
        b"\0\0\0\0\0\0\0\x18" + b'{"array": ["O", [1]]}   ',
        b"\0\0\0\0\0\0\0\x21" + b'{"array": ["u1", [99999999999]]} ',
        b"\0\0\0\0\0\0\0\x18" + b'{"array": ["u1", [100]]}',
    ],
)
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(wire.WireError):
        wire.receive(io.BytesIO(data))


def test_what_is_neither_record_nor_number_is_not_sent() -> None:
    with pytest.raises(TypeError):
        wire.send(io.BytesIO(), object())


def test_a_worker_follows_its_parent_to_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case("scan.png", ("scan.png",), "picture", "scan")
    worker = Worker()
    try:
        for value in (10, 200):
            folder = tmp_path / str(value)
            folder.mkdir()
            monkeypatch.chdir(folder)
            Image.fromarray(np.full((4, 4), value, np.uint8)).save("scan.png")
            scan = worker.ask(case)
            assert isinstance(scan, Scan)
            assert (scan.pixels == value).all()
    finally:
        worker.kill()
        worker.bury()
