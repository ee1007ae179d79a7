"""Damaged archives, DICOMDIRs and volume headers end in a listed code; nothing is lost."""

from __future__ import annotations

import random
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, MediaStorageDirectoryStorage, generate_uid

from medcli.codes import ERRORS
from medcli.errors import ScanError
from medcli.imaging.discovery import find_scans
from medcli.imaging.reader import read_scan
from medcli.records import Case

MUTANTS = 80
HEAD = 400


def write_directory(path: Path) -> None:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    record = Dataset()
    record.DirectoryRecordType, record.ReferencedFileID = "IMAGE", ["DATA", "SLICE"]
    dataset.DirectoryRecordSequence = Sequence([record])
    dataset.save_as(path, enforce_file_format=True)


@pytest.fixture(params=["a.zip", "DICOMDIR", "x.hdr", "x.nii", "x.nrrd", "x.nhdr", "x.mhd"])
def whole_file(request: pytest.FixtureRequest, tmp_path: Path, write_dicom: Any) -> Path:
    """A sound file of each kind, with what it refers to beside it."""
    path = tmp_path / request.param
    grey = np.random.default_rng(0).integers(0, 999, (5, 6, 7)).astype(np.int16)
    if path.name in ("a.zip", "DICOMDIR"):
        (tmp_path / "DATA").mkdir()
        write_dicom(tmp_path / "DATA" / "SLICE", grey[0])
    if path.name == "DICOMDIR":
        write_directory(path)
    elif path.name == "a.zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            content = (tmp_path / "DATA" / "SLICE").read_bytes()
            archive.writestr(zipfile.ZipInfo("SLICE"), content, zipfile.ZIP_DEFLATED)
    else:
        sitk.WriteImage(sitk.GetImageFromArray(grey), str(path))
    return path


def mutated(data: bytes, rng: random.Random) -> bytes:
    """`data` cut short, or with some bytes changed, most of them in its header."""
    if rng.random() < 0.2:
        return data[: rng.randrange(len(data))]
    changed = bytearray(data)
    for _ in range(rng.choice((1, 3, 10))):
        reach = rng.choice((min(HEAD, len(data)), len(data)))
        changed[rng.randrange(reach)] = rng.choice((0, 127, 128, 255, rng.randrange(256)))
    return bytes(changed)


def outcomes(path: Path) -> list[str]:
    codes = []
    for found in find_scans([str(path)]):
        try:
            codes.append("ok" if isinstance(found, Case) and read_scan(found) else "")
        except ScanError as error:
            codes.append(error.code)
        if not isinstance(found, Case):
            codes[-1] = found.code
    return codes


def test_damage_ends_as_ok_or_with_a_listed_code(whole_file: Path) -> None:
    data, rng = whole_file.read_bytes(), random.Random(7)
    assert outcomes(whole_file) == ["ok"]
    seen: Counter[str] = Counter()
    for _ in range(MUTANTS):
        whole_file.write_bytes(mutated(data, rng))
        ended = outcomes(whole_file)
        assert ended
        seen.update(ended)
    assert set(seen) <= {"ok", *ERRORS}
    assert seen.total() > seen["ok"]
