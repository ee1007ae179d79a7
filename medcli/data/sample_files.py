"""Files of the synthetic sample data: DICOM, NIfTI, PNG and JPEG, the same bytes each time.

Pixels are those of `medcli.data.phantoms`. Every DICOM file says that it is synthetic.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import SimpleITK as sitk
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    CTImageStorage,
    ExplicitVRLittleEndian,
)

Point = tuple[float, float, float]

_LABEL = "SYNTHETIC"
_INTERCEPT = -1024
_FILM_MM = 350.0


def derived_uid(*parts: str) -> UID:
    """A UID under 2.25 that the same parts always give (DICOM PS3.5 B.2, as from a UUID)."""
    digest = hashlib.sha256("/".join(parts).encode()).digest()
    return UID(f"2.25.{int.from_bytes(digest[:16])}")


def write_ct_series(
    folder: Path, hu: np.ndarray, origin_mm: Point, spacing_mm: Point, key: tuple[str, str]
) -> None:
    """An axial CT series, one file a slice.

    Parameters
    ----------
    hu : (S, H, W) HU, slices from feet to head
    origin_mm : (x, y, z) LPS of the first voxel's centre
    spacing_mm : (z, y, x)
    key : PatientID, and a text from which UIDs are derived
    """
    for position in range(len(hu)):
        # Scanners number from head to feet: file names do not follow the slice normal.
        name = f"{len(hu) - position:03d}.dcm"
        write_ct_slice(folder / name, hu, position, origin_mm, spacing_mm, key)


def write_ct_slice(
    path: Path,
    hu: np.ndarray,
    position: int,
    origin_mm: Point,
    spacing_mm: Point,
    key: tuple[str, str],
) -> None:
    """One slice of a series; parameters as in `write_ct_series`."""
    number = len(hu) - position
    dataset = _dataset(CTImageStorage, "CT", key, number)
    x, y, z = origin_mm
    dataset.ImageType = ["DERIVED", "PRIMARY", "AXIAL"]
    dataset.FrameOfReferenceUID = derived_uid("frame", key[1])
    dataset.ImagePositionPatient = [x, y, round(z + position * spacing_mm[0], 3)]
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.PixelSpacing = list(spacing_mm[1:])
    dataset.SliceThickness = spacing_mm[0]
    dataset.KVP = 120
    dataset.RescaleIntercept = _INTERCEPT
    dataset.RescaleSlope = 1
    dataset.RescaleType = "HU"
    dataset.WindowCenter = -600
    dataset.WindowWidth = 1500
    stored = hu[position].astype(np.int32) - _INTERCEPT
    _write(path, dataset, stored.astype(np.uint16), "MONOCHROME2")


def write_radiograph(
    path: Path, pixels: np.ndarray, photometric: str, key: tuple[str, str]
) -> None:
    """A radiograph with 12 bits stored; `pixels` (H, W) 0–4095, larger is brighter."""
    dataset = _dataset(ComputedRadiographyImageStorage, "CR", key, 1)
    dataset.ImageType = ["DERIVED", "PRIMARY"]
    dataset.BodyPartExamined = "CHEST"
    dataset.ViewPosition = "PA"
    dataset.ImagerPixelSpacing = [round(_FILM_MM / len(pixels), 4)] * 2
    dataset.WindowCenter = 2048
    dataset.WindowWidth = 4096
    stored = 4095 - pixels if photometric == "MONOCHROME1" else pixels
    _write(path, dataset, stored.astype(np.uint16), photometric)


def write_nifti(path: Path, hu: np.ndarray, origin_mm: Point, spacing_mm: Point) -> None:
    """A volume in HU; parameters as in `write_ct_series`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image: Any = sitk.GetImageFromArray(hu)
    image.SetOrigin(origin_mm)
    image.SetSpacing(spacing_mm[::-1])
    image.SetMetaData("descrip", _LABEL)
    sitk.WriteImage(image, str(path), useCompression=True)


def write_png(path: Path, pixels: np.ndarray) -> None:
    """A grey picture, (H, W) uint8 or uint16."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_jpeg(path: Path, pixels: np.ndarray) -> None:
    """A colour picture, (H, W, 3) uint8 RGB."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=90, comment=_LABEL)


def _dataset(sop_class: UID, modality: str, key: tuple[str, str], number: int) -> Dataset:
    """What all synthetic DICOM files have: who, which study, series and instance."""
    patient_id, scan_key = key
    dataset = Dataset()
    dataset.SOPClassUID = sop_class
    dataset.SOPInstanceUID = derived_uid("instance", scan_key, str(number))
    dataset.StudyInstanceUID = derived_uid("study", scan_key)
    dataset.SeriesInstanceUID = derived_uid("series", scan_key)
    dataset.StudyDate = "20000101"
    dataset.StudyTime = "000000"
    dataset.StudyID = "1"
    dataset.AccessionNumber = ""
    dataset.ReferringPhysicianName = ""
    dataset.Modality = modality
    dataset.Manufacturer = "medcli"
    dataset.StudyDescription = _LABEL
    dataset.SeriesDescription = _LABEL
    dataset.ImageComments = f"{_LABEL}: drawn by a program, no patient"
    dataset.PatientName = f"{_LABEL}^{patient_id}"
    dataset.PatientID = patient_id
    dataset.PatientBirthDate = ""
    dataset.PatientSex = ""
    dataset.SeriesNumber = 1
    dataset.InstanceNumber = number
    return dataset


def _write(path: Path, dataset: Dataset, stored: np.ndarray, photometric: str) -> None:
    """Add the pixels, (H, W) uint16 with 12 bits used, and write the file."""
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = photometric
    dataset.Rows, dataset.Columns = stored.shape
    dataset.BitsAllocated = 16
    dataset.BitsStored = 12
    dataset.HighBit = 11
    dataset.PixelRepresentation = 0
    dataset.BurnedInAnnotation = "NO"
    dataset.PixelData = stored.astype("<u2").tobytes()
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    # Named here, since pydicom would write its own version into the file.
    meta.ImplementationClassUID = derived_uid("medcli synthetic")
    meta.ImplementationVersionName = "MEDCLI_SYNTH"
    dataset.file_meta = meta
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)
