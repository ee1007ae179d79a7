"""DICOMDIR media."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, MediaStorageDirectoryStorage, generate_uid

from medcli.imaging.discovery import Found, find_scans
from medcli.imaging.reader import read_scan
from medcli.records import Case, Failure


def write_directory(path: Path, file_ids: list[list[str]]) -> str:
    """A DICOMDIR whose records refer to the given files."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    with disable_value_validation():  # identifiers may be hostile
        records = []
        for parts in [[], *file_ids]:
            record = Dataset()
            record.DirectoryRecordType = "IMAGE" if parts else "PATIENT"
            if parts:
                record.ReferencedFileID = parts
            records.append(record)
        dataset.DirectoryRecordSequence = Sequence(records)
        dataset.save_as(path, enforce_file_format=True)
    return str(path)


@pytest.fixture
def medium(tmp_path: Path, write_ct_series: Any, hu_volume: Any) -> tuple[Path, np.ndarray]:
    """A series spread over two folders of a medium, and its voxels."""
    volume = hu_volume(4)
    paths = write_ct_series(tmp_path / "DATA", volume, SeriesInstanceUID="1.2.3")
    for number, path in enumerate(paths):
        folder = tmp_path / "DATA" / f"SE{number // 2}"
        folder.mkdir(exist_ok=True)
        Path(path).rename(folder / f"IM{number}")
    return tmp_path, volume


FILE_IDS = [["DATA", f"SE{number // 2}", f"IM{number}"] for number in range(4)]


def cases(found: list[Found]) -> list[Case]:
    return [each for each in found if isinstance(each, Case)]


def failures(found: list[Found]) -> dict[str, tuple[str, str]]:
    return {each.path: (each.status, each.code) for each in found if isinstance(each, Failure)}


def test_a_dicomdir_named_by_itself_stands_for_its_scans(medium: tuple[Path, np.ndarray]) -> None:
    root, volume = medium
    (case,) = cases(find_scans([write_directory(root / "DICOMDIR", FILE_IDS)]))
    assert (case.path, case.scan_id) == (str(root / "DATA"), "1.2.3")
    assert case.files == tuple(str(root.joinpath(*parts)) for parts in FILE_IDS)
    np.testing.assert_array_equal(read_scan(case).pixels[..., 0], volume)


def test_missing_files_of_a_medium_are_named_each(medium: tuple[Path, np.ndarray]) -> None:
    root, _ = medium
    missing = [["DATA", "SE9", "IM9"], ["..", "outside"]]
    (root.parent / "outside").touch()
    found = find_scans([write_directory(root / "DICOMDIR", [*FILE_IDS, *missing])])
    assert failures(found) == {
        str(root.joinpath(*parts)): ("failed", "not_found") for parts in missing
    }
    assert len(cases(found)) == 1


def test_a_medium_copied_to_lower_case_is_found(medium: tuple[Path, np.ndarray]) -> None:
    root, volume = medium
    for number in range(4):
        old = root.joinpath(*FILE_IDS[number])
        old.rename(old.with_name(f"im{number}"))
    (root / "DATA").rename(root / "data")
    (case,) = cases(find_scans([write_directory(root / "dicomdir", FILE_IDS)]))
    np.testing.assert_array_equal(read_scan(case).pixels[..., 0], volume)


def test_directories_of_a_directory_are_followed_once(medium: tuple[Path, np.ndarray]) -> None:
    root, _ = medium
    write_directory(root / "DATA" / "DIRFILE", [*FILE_IDS, ["DICOMDIR"], ["DATA", "DIRFILE"]])
    found = find_scans([write_directory(root / "DICOMDIR", [["DATA", "DIRFILE"]])])
    assert [len(each.files) for each in found] == [4]


def test_a_folder_with_a_dicomdir_is_searched_by_content(
    medium: tuple[Path, np.ndarray], hu_volume: Any, write_ct_series: Any
) -> None:
    root, _ = medium
    write_directory(root / "DICOMDIR", FILE_IDS[:1])
    found = find_scans([str(root)])
    assert failures(found) == {str(root / "DICOMDIR"): ("skipped", "no_pixels")}
    assert [len(case.files) for case in cases(found)] == [4]


def test_a_dicomdir_of_nothing_is_named(tmp_path: Path) -> None:
    path = write_directory(tmp_path / "DICOMDIR", [])
    assert failures(find_scans([path])) == {path: ("failed", "no_scans")}


def test_a_damaged_dicomdir_is_named(medium: tuple[Path, np.ndarray]) -> None:
    path = Path(write_directory(medium[0] / "DICOMDIR", FILE_IDS))
    path.write_bytes(path.read_bytes()[:300] + b"\xff" * 400)
    assert set(failures(find_scans([str(path)])).values()) <= {
        ("failed", "damaged_header"),
        ("failed", "no_scans"),
        ("failed", "not_found"),
    }


@pytest.mark.real
@pytest.mark.parametrize("name", ["DICOMDIR", "DICOMDIR-bigEnd", "DICOMDIR-implicit"])
def test_a_real_medium_is_found_through_its_directory(real_data: Path, name: str) -> None:
    folder = real_data / "dicom" / "pydicom_test_files" / "test_files" / "dicomdirtests"
    found = find_scans([str(folder / name)])
    assert sum(len(each.files) for each in found) == 31
    assert not any(isinstance(each, Failure) for each in found)
