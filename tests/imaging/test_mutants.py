"""A part of the fuzzing that runs with every test: damage ends in a listed code, never else."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from PIL import Image
from pydicom.uid import RLELossless

from medcli.codes import ERRORS
from medcli.errors import ScanError
from medcli.imaging.discovery import find_scans
from medcli.imaging.reader import read_scan
from medcli.records import Case

MUTANTS = 60


@pytest.fixture(params=["raw.dcm", "rle.dcm", "x.nii.gz", "x.mha", "x.png", "x.jpg", "x.tif"])
def whole_file(request: pytest.FixtureRequest, tmp_path: Path, write_dicom: Any) -> Path:
    """A sound file of each kind, whose decoder is pure Python or hardened."""
    path = tmp_path / request.param
    grey = np.random.default_rng(0).integers(0, 255, (16, 24)).astype(np.uint8)
    if path.suffix == ".dcm":
        write_dicom(path, grey.astype(np.uint16), RescaleSlope=1, RescaleIntercept=-1024)
        if path.stem == "rle":
            dataset = pydicom.dcmread(path)
            dataset.compress(RLELossless)
            dataset.save_as(path)
    elif path.suffix in (".gz", ".mha"):
        sitk.WriteImage(sitk.GetImageFromArray(np.stack([grey] * 5)), str(path))
    else:
        Image.fromarray(grey).save(path)
    return path


def mutated(data: bytes, rng: random.Random) -> bytes:
    """`data` cut short, with some bytes changed, or with a part taken out."""
    kind, changed = rng.choice(("cut", "change", "change", "gap")), bytearray(data)
    if kind == "cut":
        return data[: rng.randrange(len(data))]
    if kind == "gap":
        start = rng.randrange(len(data))
        del changed[start : start + rng.randrange(1, 100)]
    else:
        for _ in range(rng.choice((1, 3, 10))):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def outcome(path: Path) -> str:
    (found,) = find_scans([str(path)])
    if not isinstance(found, Case):
        return found.code
    try:
        read_scan(found)
    except ScanError as error:
        return error.code
    return "ok"


def test_mutants_end_as_ok_or_with_a_listed_code(whole_file: Path) -> None:
    data, rng = whole_file.read_bytes(), random.Random(7)
    assert outcome(whole_file) == "ok"
    seen: Counter[str] = Counter()
    for _ in range(MUTANTS):
        whole_file.write_bytes(mutated(data, rng))
        seen[outcome(whole_file)] += 1
    assert set(seen) <= {"ok", *ERRORS}
    assert seen["ok"] < MUTANTS
