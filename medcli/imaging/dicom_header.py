"""One DICOM file → a `Header`: what medcli needs of its tags, as plain values.

Tag values leave this module by name only; free text, names, dates and
identifiers other than those of `Header` never do, and neither do the messages
of pydicom, which quote values.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import UID

from medcli.imaging.dicom_file import (
    conformance_warning,
    damaged_header,
    quiet,
    read_tags,
    transfer_syntax,
)
from medcli.imaging.dicom_tags import Vector, functional_groups, integer, macro, numbers, text
from medcli.records import ScanWarning

METADATA = (
    "Manufacturer",
    "ManufacturerModelName",
    "BodyPartExamined",
    "KVP",
    "SliceThickness",
    "ConvolutionKernel",
    "ImageLaterality",
    "Laterality",
    "ViewPosition",
    "PatientSex",
)
"""Tags that may leave the reader: none identifies a person or place or is free text."""

_KEYWORDS = (
    *METADATA,
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
    "PatientID",
    "IssuerOfPatientID",
    "BurnedInAnnotation",
    "Modality",
    "ImageType",
    "SeriesNumber",
    "InstanceNumber",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "ImagerPixelSpacing",
    "NominalScannedPixelSpacing",
    "SpacingBetweenSlices",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
)


@dataclass(frozen=True, slots=True)
class Plane:
    """Where one frame lies.

    Parameters
    ----------
    position : LPS mm of the centre of the first pixel
    orientation : direction of a row (x, y, z), then of a column, LPS unit vectors
    spacing : mm between rows, between columns

    References
    ----------
    DICOM PS3.3 C.7.6.2, Image Plane Module
    """

    position: Vector | None = None
    orientation: Vector | None = None
    spacing: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Header:
    """A DICOM file without its pixels; blank tags are None.

    `planes` has one entry a frame.
    """

    path: str
    rows: int
    columns: int
    samples: int
    frames: int
    is_localizer: bool
    planes: tuple[Plane, ...] = field(repr=False)
    modality: str | None = None
    series_number: int = -1
    instance_number: int = -1
    sop_uid: str | None = None
    series_uid: str | None = None
    study_uid: str | None = None
    frame_of_reference: str | None = None
    photometric: str | None = None
    transfer_syntax: str | None = None
    patient_id: str | None = field(default=None, repr=False)
    slice_step: float | None = None
    metadata: dict[str, str] = field(default_factory=dict, repr=False)
    warnings: tuple[ScanWarning, ...] = ()


def read_header(path: str) -> Header:
    """Read the header of one DICOM file, with or without preamble.

    Raises
    ------
    ScanError : as `medcli.imaging.dicom_file.read_tags`
    """
    with quiet() as notes:
        dataset = read_tags(path, _KEYWORDS)
        try:
            return _header(path, dataset, notes)
        except Exception as error:  # converting a damaged value can raise anything
            raise damaged_header(path) from error


def _header(path: str, dataset: FileDataset, notes: Sequence[object]) -> Header:
    """The record of a parsed header."""
    frames = max(1, integer(dataset, "NumberOfFrames", 1))
    syntax, guessed = transfer_syntax(dataset)
    return Header(
        path=path,
        rows=integer(dataset, "Rows"),
        columns=integer(dataset, "Columns"),
        samples=integer(dataset, "SamplesPerPixel", 1),
        frames=frames,
        is_localizer="LOCALIZER" in (text(dataset, "ImageType") or "").upper().split("\\"),
        planes=_planes(dataset, frames),
        modality=text(dataset, "Modality"),
        series_number=integer(dataset, "SeriesNumber", -1),
        instance_number=integer(dataset, "InstanceNumber", -1),
        sop_uid=text(dataset, "SOPInstanceUID"),
        series_uid=text(dataset, "SeriesInstanceUID"),
        study_uid=text(dataset, "StudyInstanceUID"),
        frame_of_reference=text(dataset, "FrameOfReferenceUID"),
        photometric=text(dataset, "PhotometricInterpretation"),
        transfer_syntax=str(syntax),
        patient_id=_patient_id(dataset),
        slice_step=_slice_step(dataset),
        metadata={name: found[:64] for name in METADATA if (found := text(dataset, name))}
        | _burned_in(dataset),
        warnings=(*_guess_warning(syntax, guessed), *conformance_warning(notes)),
    )


def _guess_warning(syntax: UID, guessed: bool) -> tuple[ScanWarning, ...]:
    if not guessed:
        return ()
    message = f"the header names no transfer syntax; read as {syntax.name}"
    return (ScanWarning("transfer_syntax_assumed", message),)


_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"  # and what lies below it


def _burned_in(dataset: Dataset) -> dict[str, str]:
    """Whether text may stand in the pixels, as YES or NO; empty where nothing says so.

    By BurnedInAnnotation, else YES for a secondary capture: a screen shot or a scanned film.

    References
    ----------
    DICOM PS3.3 C.7.6.1.1; PS3.3 A.8
    """
    told = (text(dataset, "BurnedInAnnotation") or "").upper()
    if told not in ("YES", "NO"):
        sop_class = f"{text(dataset, 'SOPClassUID')}."
        told = "YES" if sop_class.startswith(f"{_SECONDARY_CAPTURE}.") else ""
    return {"BurnedInAnnotation": told} if told else {}


def _patient_id(dataset: Dataset) -> str | None:
    """PatientID with its issuer in front; a backslash, which no issuer holds, parts them."""
    patient = text(dataset, "PatientID")
    if patient is None:
        return None
    issuer = (text(dataset, "IssuerOfPatientID") or "").replace("\\", " ")
    return f"{issuer}\\{patient}" if issuer or "\\" in patient else patient


def _plane(dataset: Dataset) -> Plane:
    """The plane of a single-frame image."""
    return Plane(
        numbers(dataset, "ImagePositionPatient", 3),
        _orientation(dataset),
        _spacing(dataset),
    )


def _planes(dataset: Dataset, frames: int) -> tuple[Plane, ...]:
    """The plane of every frame, from the functional groups where there are any."""
    groups = functional_groups(dataset)[:frames]
    if groups:
        planes = tuple(_frame_plane(group) for group in groups)
        return planes + (Plane(),) * (frames - len(planes))
    plane = _plane(dataset)
    return (plane,) if frames == 1 else (Plane(spacing=plane.spacing),) * frames


def _frame_plane(groups: Sequence[Dataset]) -> Plane:
    """The plane of one frame of an enhanced object."""
    position = macro(groups, "PlanePositionSequence")
    orientation = macro(groups, "PlaneOrientationSequence")
    measures = macro(groups, "PixelMeasuresSequence")
    return Plane(
        None if position is None else numbers(position, "ImagePositionPatient", 3),
        None if orientation is None else _orientation(orientation),
        None if measures is None else _spacing(measures),
    )


def _orientation(dataset: Dataset) -> Vector | None:
    """ImageOrientationPatient where it is two perpendicular unit vectors (to 1 %)."""
    found = numbers(dataset, "ImageOrientationPatient", 6)
    if found is None:
        return None
    row, column = found[:3], found[3:]
    lengths = (math.hypot(*row), math.hypot(*column))
    angle = sum(a * b for a, b in zip(row, column, strict=True))
    sound = all(abs(length - 1) < 0.01 for length in lengths) and abs(angle) < 0.01
    return found if sound else None


def _spacing(dataset: Dataset) -> tuple[float, float] | None:
    """Distance of rows and of columns, mm; for projections that on the detector."""
    for keyword in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        found = numbers(dataset, keyword, 2)
        if found is not None and min(found) > 0:
            return found[0], found[1]
    return None


def _slice_step(dataset: Dataset) -> float | None:
    """SpacingBetweenSlices, mm; used only where slices carry no positions."""
    groups = functional_groups(dataset)[:1]
    measures = macro(groups[0], "PixelMeasuresSequence") if groups else None
    found = numbers(measures or dataset, "SpacingBetweenSlices", 1)
    return abs(found[0]) if found and found[0] else None
