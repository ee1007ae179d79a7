"""One DICOM file → a `Header`: what medcli needs of its tags, as plain values.

Tag values leave this module by name only; free text, names, dates and
identifiers other than those of `Header` never do, and neither do the messages
of pydicom, which quote values.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import UID

from medcli.errors import ScanError
from medcli.imaging.dicom_file import (
    conformance_warning,
    damaged_header,
    quiet,
    read_tags,
    transfer_syntax,
)
from medcli.imaging.dicom_marks import MARKS, read_marks
from medcli.imaging.dicom_tags import (
    Vector,
    functional_groups,
    integer,
    macro,
    numbers,
    text,
    value,
)
from medcli.imaging.header import Header, Plane
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


LOCALIZERS = frozenset({"LOCALIZER", "SCOUT", "SURVIEW", "REF_SURVIEW", "TOPOGRAM"})
"""Values of ImageType that mark a localizer: the standard's own, and what makers write."""


_KEYWORDS = (
    *METADATA,
    *(mark.keyword for mark in MARKS),
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "StudyDate",
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
    "GridFrameOffsetVector",
    "SequenceOfUltrasoundRegions",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
)


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
        except ScanError:
            raise
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
        is_localizer=not LOCALIZERS.isdisjoint(_image_type(dataset)),
        planes=_planes(dataset, frames),
        marks=read_marks(dataset, frames),
        modality=text(dataset, "Modality"),
        sop_class=text(dataset, "SOPClassUID"),
        series_number=integer(dataset, "SeriesNumber", -1),
        instance_number=integer(dataset, "InstanceNumber", -1),
        sop_uid=text(dataset, "SOPInstanceUID"),
        series_uid=text(dataset, "SeriesInstanceUID"),
        study_uid=text(dataset, "StudyInstanceUID"),
        study_date=text(dataset, "StudyDate"),
        frame_of_reference=text(dataset, "FrameOfReferenceUID"),
        photometric=text(dataset, "PhotometricInterpretation"),
        transfer_syntax=str(syntax),
        patient_id=_patient_id(dataset),
        slice_step=_slice_step(dataset),
        metadata={name: found[:64] for name in METADATA if (found := text(dataset, name))}
        | _burned_in(dataset),
        warnings=(*_guess_warning(syntax, guessed), *conformance_warning(notes)),
    )


def _image_type(dataset: Dataset) -> list[str]:
    return (text(dataset, "ImageType") or "").upper().split("\\")


def _guess_warning(syntax: UID, guessed: bool) -> tuple[ScanWarning, ...]:
    if not guessed:
        return ()
    message = f"the header names no transfer syntax; read as {syntax.name}"
    return (ScanWarning("transfer_syntax_assumed", message),)


SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
"""Secondary Capture, and the beginning of its multi-frame kin: often screens, no slices."""


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
        told = "YES" if sop_class.startswith(f"{SECONDARY_CAPTURE}.") else ""
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
    if frames == 1:
        return (plane,)
    return _grid_planes(dataset, plane, frames) or (Plane(spacing=plane.spacing),) * frames


def _grid_planes(dataset: Dataset, plane: Plane, frames: int) -> tuple[Plane, ...]:
    """The planes of a dose grid; none where the frames are no grid.

    Offsets that begin with 0 count along the normal from the first frame; those of an
    axial grid may also be the z coordinates themselves.

    References
    ----------
    DICOM PS3.3 C.8.8.3.2, Grid Frame Offset Vector
    """
    offsets = numbers(dataset, "GridFrameOffsetVector", frames)
    if offsets is None or plane.position is None or plane.orientation is None:
        return ()
    row, column = np.reshape(plane.orientation, (2, 3))
    normal = np.cross(row, column)
    along = np.array(offsets) - (offsets[0] if offsets[0] else 0.0)
    if offsets[0] and normal[2] < 0:
        along = -along  # z coordinates grow against the normal
    places = np.array(plane.position) + along[:, np.newaxis] * normal
    return tuple(Plane(tuple(place), plane.orientation, plane.spacing) for place in places.tolist())


def _frame_plane(groups: Sequence[Dataset]) -> Plane:
    """The plane of one frame of an enhanced object.

    An ultrasound volume may lie in a space of its own only (PS3.3 C.8.24.3.3, 3.4).
    """
    measures = macro(groups, "PixelMeasuresSequence")
    spacing = None if measures is None else _spacing(measures)
    position = macro(groups, "PlanePositionSequence")
    orientation = macro(groups, "PlaneOrientationSequence")
    own_position = macro(groups, "PlanePositionVolumeSequence")
    own_orientation = macro(groups, "PlaneOrientationVolumeSequence")
    if position is None and own_position is not None and own_orientation is not None:
        return Plane(
            numbers(own_position, "ImagePositionVolume", 3),
            _orientation(own_orientation, "ImageOrientationVolume"),
            spacing,
            in_patient=False,
        )
    return Plane(
        None if position is None else numbers(position, "ImagePositionPatient", 3),
        None if orientation is None else _orientation(orientation),
        spacing,
    )


def _orientation(dataset: Dataset, keyword: str = "ImageOrientationPatient") -> Vector | None:
    """The directions of rows and columns where they are perpendicular unit vectors (to 1 %)."""
    found = numbers(dataset, keyword, 6)
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
    return _ultrasound_spacing(dataset)


def _ultrasound_spacing(dataset: Dataset) -> tuple[float, float] | None:
    """Distance of rows and of columns in the only 2-D region of an ultrasound image.

    References
    ----------
    DICOM PS3.3 C.8.5.5, US Region Calibration: spatial format 1 is 2-D, unit 3 is cm
    """
    regions = value(dataset, "SequenceOfUltrasoundRegions") or ()
    flat = [region for region in regions if integer(region, "RegionSpatialFormat") == 1]
    if len(flat) != 1:
        return None
    units = [integer(flat[0], f"PhysicalUnits{axis}Direction") for axis in "XY"]
    steps = [numbers(flat[0], f"PhysicalDelta{axis}", 1) for axis in "YX"]
    if units != [3, 3] or not all(steps):
        return None
    y, x = (abs(step[0]) * 10 for step in steps if step)
    return (y, x) if min(y, x) > 0 else None


def _slice_step(dataset: Dataset) -> float | None:
    """SpacingBetweenSlices, mm; used only where slices carry no positions."""
    groups = functional_groups(dataset)[:1]
    measures = macro(groups[0], "PixelMeasuresSequence") if groups else None
    found = numbers(measures or dataset, "SpacingBetweenSlices", 1)
    return abs(found[0]) if found and found[0] else None
