"""What a DICOM object that medcli makes takes over from the images it was made of.

Such an object must be filed beside its images: it carries their patient and their study,
a new series and a new instance, and names each image it was made from. Nothing else of the
source goes into it: no device, no institution, no operator, no protocol, no private tag.

References
----------
DICOM PS3.3 C.7.1.1 Patient, C.7.2.1 General Study, C.12.4 Image Reference Macros
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import UID

from medcli.errors import ScanError, UsageError
from medcli.files import write_file
from medcli.imaging.dicom_file import quiet, read_tags
from medcli.imaging.dicom_tags import text, value
from medcli.imaging.header import MAKER
from medcli.records import Scan

SERIES_NUMBER = 9000  # far behind those that a scanner gives
PATIENT = (
    "PatientID",
    "IssuerOfPatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
)
STUDY = (
    "StudyInstanceUID",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "StudyDescription",
    "AccessionNumber",
    "ReferringPhysicianName",
)
_INSTANCE = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "Modality")
_SHOWN = ("Rows", "Columns", "NumberOfFrames", "BurnedInAnnotation", "FrameOfReferenceUID")
_EXPECTED = {"PatientID", "PatientName", "PatientBirthDate", "PatientSex", *STUDY}  # may be blank
_DATES = {"PatientBirthDate": r"\d{8}", "StudyDate": r"\d{8}", "StudyTime": r"\d{2,6}(\.\d{1,6})?"}


def check_extra() -> None:
    """Whether highdicom is there.

    Raises
    ------
    UsageError : it is not
    """
    try:
        with _muted():
            import highdicom  # noqa: F401
    except ImportError as error:
        raise UsageError(
            "DICOM objects are written with highdicom, which is not installed",
            "pip install 'medcli[highdicom]'",
        ) from error


def source_headers(scan: Scan) -> list[Dataset]:
    """Patient, study and identity of each file of a scan, in the order of its slices.

    Raises
    ------
    UsageError : the scan is not of DICOM files
    ScanError : a file cannot be read any more, or does not say which instance it is
    """
    if scan.format != "dicom":
        raise UsageError(
            f"{scan.path} is no DICOM, so that there is no patient and no study to file "
            "a DICOM object under",
            "Choose another output: .png, .nii.gz, --json",
        )
    return [_header(path) for path in dict.fromkeys(scan.slice_files)]


def _header(path: str) -> Dataset:
    """The tags of one file that a derived object may know."""
    kept = Dataset()
    with quiet():
        read = read_tags(path, [*PATIENT, *STUDY, *_INSTANCE, *_SHOWN, "SpecificCharacterSet"])
        for keyword in ("SpecificCharacterSet", *PATIENT, *STUDY, *_INSTANCE, *_SHOWN):
            found = value(read, keyword)
            pattern = _DATES.get(keyword)
            if pattern and not re.fullmatch(pattern, str(found or "")):
                found = None
            if keyword == "PatientSex" and found not in ("M", "F", "O"):
                found = None
            if found is not None or keyword in _EXPECTED:
                setattr(kept, keyword, found)
    folder = str(Path(path).parent)  # files in it without a UID are taken for one series
    kept.StudyInstanceUID = kept.StudyInstanceUID or _made_uid(folder, "study")
    kept.SeriesInstanceUID = text(kept, "SeriesInstanceUID") or _made_uid(folder, "series")
    if not text(kept, "SOPInstanceUID") or not text(kept, "SOPClassUID"):
        raise ScanError("damaged_header", f"{path}: the file does not say which instance it is")
    return kept


def _made_uid(*parts: str) -> UID:
    """The same UID for the same parts (DICOM PS3.5 B.2, from a hash)."""
    from pydicom.uid import generate_uid

    return generate_uid(prefix="2.25.", entropy_srcs=["medcli", *parts])


def references(headers: Sequence[Dataset]) -> list[Dataset]:
    """Each image as an item of a sequence that names instances."""
    items = []
    for header in headers:
        item = Dataset()
        item.ReferencedSOPClassUID = header.SOPClassUID
        item.ReferencedSOPInstanceUID = header.SOPInstanceUID
        items.append(item)
    return items


def take_over(derived: Dataset, header: Dataset) -> None:
    """Put what is known of patient and study into an object that is about to be written."""
    for keyword in (*PATIENT, *STUDY):
        found = value(header, keyword)
        if found is not None:
            setattr(derived, keyword, found)


def made_by(fingerprint: str) -> dict[str, Any]:
    """The equipment: medcli, and which model."""
    return {
        "manufacturer": MAKER,
        "manufacturer_model_name": MAKER,
        "software_versions": version("medcli"),
        "device_serial_number": fingerprint,
    }


@contextlib.contextmanager
def building(scan: Scan) -> Iterator[None]:
    """Run highdicom: its warnings quote tags and stay inside, its refusals are translated.

    Raises
    ------
    ScanError : highdicom or pydicom cannot put the tags of the source into a new object
    """
    try:
        with quiet(), _muted():
            yield
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise ScanError(
            "damaged_header",
            f"{scan.path}: its patient or study tags cannot be taken over into a DICOM object",
            "Choose another output: .png, .nii.gz, --json",
        ) from error


@contextlib.contextmanager
def _muted() -> Iterator[None]:
    """No logging and no Python warnings of the libraries: both may quote tags."""
    import logging
    import warnings

    logger = logging.getLogger("highdicom")
    before, logger.disabled = logger.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = before


def save(path: Path, dataset: Dataset) -> None:
    """Write a whole object, or nothing."""
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    write_file(path, stream.getvalue())
