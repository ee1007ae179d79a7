"""A drawn picture as a DICOM secondary capture, filed with the images it was drawn from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from medcli.imaging.dicom_derived import (
    SERIES_NUMBER,
    building,
    check_extra,
    made_by,
    references,
    save,
    source_headers,
    take_over,
)
from medcli.imaging.dicom_tags import text
from medcli.records import Scan

_LONGEST = 64  # characters of a description (VR LO)


def write_capture(
    path: Path, scan: Scan, picture: np.ndarray, *, description: str, fingerprint: str
) -> None:
    """Write (h, w, 3) uint8 RGB as a Secondary Capture Image of the scan's study.

    Parameters
    ----------
    description : of the series and of the derivation
    fingerprint : of the model that the picture comes from

    Raises
    ------
    UsageError : highdicom is not installed, or the scan is not of DICOM files
    ScanError : as `source_headers` and `building`

    References
    ----------
    DICOM PS3.3 A.8.1, Secondary Capture Image IOD
    """
    check_extra()
    headers = source_headers(scan)
    with building(scan):
        import highdicom
        from highdicom.sc import SCImage

        capture = SCImage.from_ref_dataset(
            headers[0],
            pixel_array=np.ascontiguousarray(picture),
            photometric_interpretation="RGB",
            bits_allocated=8,
            coordinate_system="PATIENT",
            patient_orientation=("L", "P"),
            series_instance_uid=highdicom.UID(),
            series_number=SERIES_NUMBER,
            sop_instance_uid=highdicom.UID(),
            instance_number=1,
            transfer_syntax_uid="1.2.840.10008.1.2.1",
            series_description=description[:_LONGEST],
            **made_by(fingerprint),
        )
        take_over(capture, headers[0])
        capture.PatientOrientation = []  # a sheet of slices with words above has none
        capture.ConversionType = "WSD"  # from a workstation
        capture.BurnedInAnnotation = "YES" if _burned_in(headers) else "NO"
        capture.DerivationDescription = f"{description}. Research use."
        capture.SourceImageSequence = references(headers)
        save(path, capture)


def _burned_in(headers: Sequence[Dataset]) -> bool:
    """Whether an image says that words about the patient are among its pixels."""
    return any(text(header, "BurnedInAnnotation") == "YES" for header in headers)
