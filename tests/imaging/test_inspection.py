"""What is told of a scan: shape, spacing, intensities and digests."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medcli.errors import ScanError
from medcli.imaging.discovery import find_scans
from medcli.imaging.inspection import Inspection, inspect_all, inspect_scan
from medcli.imaging.reader import read_scan
from medcli.records import Case, Failure, Scan


def read(path: Path) -> Scan:
    (case,) = find_scans([str(path)])
    assert isinstance(case, Case)
    return read_scan(case)


def test_a_series_is_told_of_as_a_volume(sample_folder: Path) -> None:
    folder = sample_folder / "ct" / "SYN-0001-1"
    told = inspect_scan(read(folder))
    digests = sorted(hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir())
    together = hashlib.sha256("".join(f"{digest}\n" for digest in digests).encode())
    assert told.sha256 == together.hexdigest()
    assert (told.format, told.modality, told.photometric) == ("dicom", "CT", "MONOCHROME2")
    assert told.shape == (len(digests), 80, 80, 1)
    assert told.intensity.unit == "HU"
    assert told.transfer_syntax == "1.2.840.10008.1.2.1"
    assert None not in told.spacing_mm


def test_a_picture_has_no_spacing_and_the_digest_of_its_file(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.array([[3, 250, 7]], np.uint8)).save(path)
    told = inspect_scan(read(path))
    assert told.shape == (1, 1, 3, 1)
    assert told.spacing_mm == (None, None, None)
    assert (told.intensity.min, told.intensity.max, told.intensity.unit) == (3, 250, "display")
    assert told.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_one_picture_in_two_formats_differs_in_its_file_only(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (9, 7), np.uint8)
    for name in ("a.png", "a.bmp"):
        Image.fromarray(pixels).save(tmp_path / name)
    png, bmp = (inspect_scan(read(tmp_path / name)) for name in ("a.png", "a.bmp"))
    assert png.pixel_sha256 == bmp.pixel_sha256
    assert png.sha256 != bmp.sha256


def test_the_digest_of_an_archive_is_that_of_its_file_now(tmp_path: Path) -> None:
    path = tmp_path / "set.npz"
    digests = set()
    for value in (1, 2):
        np.savez(path, train_images=np.full((3, 8, 8), value, np.uint8))
        case = Case("x", (str(path),), "array", "x", member="train_images/2")
        told = inspect_scan(read_scan(case))
        assert told.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        digests.add(told.sha256)
    assert len(digests) == 2


def test_a_file_that_vanished_after_reading_is_named(tmp_path: Path, sample_folder: Path) -> None:
    path = tmp_path / "query.png"
    path.write_bytes((sample_folder / "query.png").read_bytes())
    scan = read(path)
    path.unlink()
    with pytest.raises(ScanError, match=r"query\.png"):
        inspect_scan(scan)


def test_one_bad_scan_does_not_stop_the_others(sample_folder: Path) -> None:
    cases = find_scans(["gone.png", str(sample_folder / "query.png")])
    results = [result for _, result in inspect_all(cases)]
    assert [type(result) for result in results] == [Failure, Inspection]
