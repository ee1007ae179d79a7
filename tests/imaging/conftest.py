"""Makers of the files under test, as fixtures that give functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import (
    BasicTextSRStorage,
    CTImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    SecondaryCaptureImageStorage,
    generate_uid,
)

from medcli.records import Case, Scan

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def _write_dicom(
    path: Path | str, pixels: np.ndarray, syntax: str = ExplicitVRLittleEndian, **tags: Any
) -> str:
    """Write `pixels`, (H, W), (F, H, W) or (H, W, 3), as one DICOM file; None removes a tag."""
    modality = tags.get("Modality", "CT")
    classes = {"CT": CTImageStorage, "MR": MRImageStorage, "SR": BasicTextSRStorage}
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    meta.MediaStorageSOPClassUID = classes.get(modality, SecondaryCaptureImageStorage)
    meta.MediaStorageSOPInstanceUID = tags.get("SOPInstanceUID") or generate_uid()
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID = meta.MediaStorageSOPClassUID
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    dataset.Modality = modality
    colour = pixels.ndim >= 3 and pixels.shape[-1] == 3
    height, width = pixels.shape[-3:-1] if colour else pixels.shape[-2:]
    frames = pixels.size // (height * width * (3 if colour else 1))
    if frames > 1:
        dataset.NumberOfFrames = frames
    dataset.Rows, dataset.Columns = height, width
    dataset.SamplesPerPixel = 3 if colour else 1
    if colour:
        dataset.PlanarConfiguration = 0
    dataset.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    bits = pixels.dtype.itemsize * 8
    dataset.BitsAllocated = dataset.BitsStored = bits
    dataset.HighBit = bits - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    data = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
    dataset.PixelData = data + b"\0" * (len(data) % 2)
    dataset["PixelData"].VR = "OB" if bits == 8 else "OW"
    for keyword, value in tags.items():
        if value is None:
            if keyword in dataset:
                delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    dataset.save_as(path, enforce_file_format=True)
    return str(path)


def _write_ct_series(
    folder: Path,
    volume: np.ndarray,
    *,
    spacing: tuple[float, float, float] = (2.5, 0.7, 0.8),
    orientation: Sequence[float] = AXIAL,
    origin: Sequence[float] = (-100.0, -120.0, 50.0),
    order: Sequence[int] | None = None,
    drop: Sequence[int] = (),
    **tags: Any,
) -> list[str]:
    """Write HU (S, H, W) as a CT series along row × column; file i holds slice order[i].

    Names and InstanceNumbers follow `order`, so they say nothing about positions.
    """
    folder.mkdir(parents=True, exist_ok=True)
    row, column = np.array(orientation, dtype=float).reshape(2, 3)
    normal = np.cross(row, column)
    common = {"SeriesInstanceUID": generate_uid(), "FrameOfReferenceUID": generate_uid()}
    common |= {"StudyInstanceUID": generate_uid()}
    paths = []
    for number, index in enumerate(order or range(len(volume))):
        if index in drop:
            continue
        position = np.array(origin) + normal * spacing[0] * index
        paths.append(
            _write_dicom(
                folder / f"IM{number:04d}",
                (volume[index].astype(np.int32) + 1024).astype(np.uint16),
                **common
                | {
                    "RescaleSlope": 1,
                    "RescaleIntercept": -1024,
                    "RescaleType": "HU",
                    "PixelSpacing": [spacing[1], spacing[2]],
                    "ImageOrientationPatient": [round(float(part), 10) for part in orientation],
                    "ImagePositionPatient": [round(float(part), 10) for part in position],
                    "InstanceNumber": number + 1,
                    "WindowCenter": [40, -600],
                    "WindowWidth": [400, 1500],
                }
                | tags,
            )
        )
    return paths


def _hu_volume(slices: int = 6, rows: int = 10, columns: int = 12, seed: int = 0) -> np.ndarray:
    """(S, H, W) HU in which no two slices, rows or columns are alike."""
    values = np.random.default_rng(seed).integers(-1000, 2000, (slices, rows, columns))
    return values.astype(np.int16)


def _dicom_case(files: Sequence[str], **fields: Any) -> Case:
    """The case of a series whose files are given."""
    return Case(path="series", files=tuple(files), kind="dicom", scan_id="scan", **fields)


def _file_case(path: Path | str, kind: Any) -> Case:
    """The case of one file."""
    return Case(path=str(path), files=(str(path),), kind=kind, scan_id=str(path))


def _scan_of(pixels: np.ndarray, **fields: Any) -> Scan:
    """A scan in memory, (S, H, W, C)."""
    names = tuple(f"slice{number}" for number in range(len(pixels)))
    return Scan(pixels, "scan", names, names, "scan", "dicom", **fields)


def _codes(scan: Scan) -> list[str]:
    """The codes of a scan's warnings."""
    return [warning.code for warning in scan.warnings]


@pytest.fixture(scope="session")
def write_dicom() -> Callable[..., Any]:
    return _write_dicom


@pytest.fixture(scope="session")
def write_ct_series() -> Callable[..., Any]:
    return _write_ct_series


@pytest.fixture(scope="session")
def hu_volume() -> Callable[..., Any]:
    return _hu_volume


@pytest.fixture(scope="session")
def dicom_case() -> Callable[..., Any]:
    return _dicom_case


@pytest.fixture(scope="session")
def file_case() -> Callable[..., Any]:
    return _file_case


@pytest.fixture(scope="session")
def scan_of() -> Callable[..., Any]:
    return _scan_of


@pytest.fixture(scope="session")
def codes() -> Callable[..., Any]:
    return _codes


@pytest.fixture
def make_dicom(tmp_path: Path) -> Callable[..., str]:
    """`write_dicom` into the test's folder, by name, with a default slice of 0 to 79."""

    def make(name: str = "scan.dcm", pixels: np.ndarray | None = None, **tags: Any) -> str:
        grey = np.arange(80, dtype=np.uint16).reshape(8, 10) if pixels is None else pixels
        return _write_dicom(tmp_path / name, grey, **tags)

    return make
