"""One DICOM file → a `Header`: what medcli needs of its tags, as plain values.

Tag values leave this module by name only; free text, names, dates and
identifiers other than those of `Header` never do, and neither do the messages
of pydicom, which quote values.
"""

from __future__ import annotations

import contextlib
import logging
import math
import warnings
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, cast

from pydicom import config as pydicom_config
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.filereader import dcmread
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from medcli.errors import ScanError
from medcli.imaging.files import open_file
from medcli.imaging.values import MAX_SAMPLES
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
PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")

Vector = tuple[float, ...]


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
    ScanError : not_found, unreadable, damaged_header, truncated, too_large (inflated),
        no_pixels where the object is none that holds an image
    """
    with open_file(path) as file, quiet() as notes:
        dataset = _parse(file, path, [*_KEYWORDS, *PIXELS])
        if not _holds_pixels(file, dataset):
            raise _without_pixels(file, path)
        try:
            return _header(path, dataset, notes)
        except Exception as error:  # converting a damaged value can raise anything
            raise _damaged(path) from error


def read_dataset(path: str) -> FileDataset:
    """Read one DICOM file whole; call it inside `quiet()`.

    Raises
    ------
    ScanError : as `read_header`, truncated also where the pixel data are missing
    """
    with open_file(path) as file:
        dataset = _parse(file, path)
        if not any(keyword in dataset for keyword in PIXELS):
            raise _without_pixels(file, path)
    return dataset


@contextlib.contextmanager
def quiet() -> Iterator[list[warnings.WarningMessage]]:
    """Collect what pydicom warns of, and keep it out of Python's warnings and logs.

    Its messages quote tag values, so only their number may be told. Values are not
    validated against their VR: nothing here depends on it and it doubles the time.
    The filters of `warnings` belong to the whole process: not for use in threads.
    """
    logger = logging.getLogger("pydicom")
    was_disabled, logger.disabled = logger.disabled, True
    try:
        with (
            warnings.catch_warnings(record=True) as notes,
            pydicom_config.disable_value_validation(),
        ):
            warnings.simplefilter("always")
            yield notes
    finally:
        logger.disabled = was_disabled


def conformance_warning(notes: Sequence[object]) -> tuple[ScanWarning, ...]:
    """One redacted warning for all of pydicom's, none where there were none."""
    if not notes:
        return ()
    message = f"the header breaks the standard in {len(notes)} place(s); read as far as possible"
    return (ScanWarning("nonconformant_header", message),)


def transfer_syntax(dataset: FileDataset) -> tuple[UID, bool]:
    """The transfer syntax, and whether it was guessed because the header names none."""
    named = text(dataset.file_meta, "TransferSyntaxUID")
    if named:
        return UID(named), False
    implicit, little_endian = dataset.original_encoding
    if implicit:
        return ImplicitVRLittleEndian, True
    return (ExplicitVRLittleEndian if little_endian else ExplicitVRBigEndian), True


def value(dataset: Dataset, keyword: str) -> Any:
    """A tag's value; None where it is absent, blank or cannot be converted."""
    try:
        found = dataset.get(keyword)
    except Exception:  # pydicom's converters raise whatever a damaged value leads to
        warnings.warn(f"{keyword} is unreadable", stacklevel=2)  # counted by `quiet`
        return None
    return None if found is None or found == "" else found


def text(dataset: Dataset, keyword: str) -> str | None:
    """A tag as text without padding and control characters; None where blank."""
    found = value(dataset, keyword)
    if found is None:
        return None
    if isinstance(found, Sequence) and not isinstance(found, str | bytes):
        found = "\\".join(str(part) for part in found)
    cleaned = "".join(character for character in str(found) if character.isprintable()).strip()
    return cleaned or None


def numbers(dataset: Dataset, keyword: str, count: int) -> Vector | None:
    """A tag as `count` finite numbers; None where it holds anything else."""
    found = value(dataset, keyword)
    if found is None:
        return None
    parts = found if isinstance(found, Sequence) and not isinstance(found, str) else [found]
    try:
        result = tuple(float(part) for part in parts)
    except (TypeError, ValueError, OverflowError):
        warnings.warn(f"{keyword} is no number", stacklevel=2)  # counted by `quiet`
        return None
    return result if len(result) == count and all(map(math.isfinite, result)) else None


def integer(dataset: Dataset, keyword: str, default: int = 0) -> int:
    """A tag as one whole number, `default` where it holds anything else."""
    found = numbers(dataset, keyword, 1)
    return default if found is None else int(found[0])


def functional_groups(dataset: Dataset) -> list[list[Dataset]]:
    """For each frame of an enhanced object, where to look for its macros: itself, then shared.

    References
    ----------
    DICOM PS3.3 C.7.6.16, Multi-frame Functional Groups Module
    """
    per_frame = value(dataset, "PerFrameFunctionalGroupsSequence") or []
    shared = list(value(dataset, "SharedFunctionalGroupsSequence") or [])[:1]
    return [[frame, *shared] for frame in per_frame]


def macro(groups: Sequence[Dataset], keyword: str) -> Dataset | None:
    """The first item of a functional group's sequence, None where no group has it."""
    for group in groups:
        items = value(group, keyword)
        if items:
            return cast(Dataset, items[0])
    return None


def _parse(file: BinaryIO, path: str, keywords: list[str] | None = None) -> FileDataset:
    """The dataset of an open file; with `keywords` only those, without reading the pixels."""
    deflated = _check_inflation(file, path)
    try:
        return dcmread(
            file,
            force=True,
            specific_tags=cast(Any, keywords),
            stop_before_pixels=keywords is not None and not deflated,
        )
    except Exception as error:  # a damaged file can raise anything, RecursionError included
        raise _damaged(path) from error


def _check_inflation(file: BinaryIO, path: str) -> bool:
    """Whether the file is deflated; refuses one that would inflate beyond the budget.

    Raises
    ------
    ScanError : too_large, truncated, damaged_header
    """
    marker = DeflatedExplicitVRLittleEndian.encode()
    head = file.read(4096)
    file.seek(0)
    # The next syntax UID that starts alike is …1.2.1.98, so the marker is unmistakable.
    if marker not in head:
        return False
    meta_length = int.from_bytes(head[140:144], "little")
    file.seek(144 + meta_length)
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated, chunk = 0, file.read(2**16)
    try:
        while chunk and not inflater.eof:
            inflated += len(inflater.decompress(chunk, 2**22))
            if inflated > 4 * MAX_SAMPLES:
                raise ScanError("too_large", f"{path}: inflates beyond {4 * MAX_SAMPLES:,} bytes")
            chunk = inflater.unconsumed_tail or file.read(2**16)
    except zlib.error as error:
        raise _damaged(path) from error
    if not inflater.eof:
        raise ScanError("truncated", f"{path}: the deflated data end early", "Copy it again")
    file.seek(0)
    return True


def _holds_pixels(file: BinaryIO, dataset: Dataset) -> bool:
    """Whether pixel data follow the header that was just read from `file`."""
    if any(keyword in dataset for keyword in PIXELS):
        return True
    tag = file.read(4)  # the parser stops in front of group 7FE0
    return tag[:2] in (b"\xe0\x7f", b"\x7f\xe0")


def _without_pixels(file: BinaryIO, path: str) -> ScanError:
    """Tell an object that holds no image from an image that was cut before its pixels."""
    file.seek(0)
    with quiet() as notes:
        dataset = _parse(file, path)
        class_uid = text(dataset, "SOPClassUID") or text(
            dataset.file_meta, "MediaStorageSOPClassUID"
        )
        if class_uid is None and text(dataset, "SOPInstanceUID") is None:
            return _damaged(path)
        if integer(dataset, "Rows") or notes or _ends_within_element(file, dataset):
            message = f"{path}: the file ends before its pixel data"
            return ScanError("truncated", message, "Copy it again")
    return ScanError("no_pixels", f"{path}: a DICOM object without an image")


def _ends_within_element(file: BinaryIO, dataset: FileDataset) -> bool:
    """Whether the last element of a dataset ends elsewhere than its file."""
    if transfer_syntax(dataset)[0] == DeflatedExplicitVRLittleEndian:
        return False  # its length was checked while inflating
    tags = list(dataset.keys())  # in the order of the file
    last: Any = dataset.get_item(tags[-1]) if tags else None
    if not isinstance(last, RawDataElement):
        return last is None
    return last.value_tell + last.length != file.seek(0, 2)


def _damaged(path: str) -> ScanError:
    return ScanError(
        "damaged_header", f"{path}: the DICOM header is damaged", "Copy or export the file again"
    )


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
        metadata={name: found[:64] for name in METADATA if (found := text(dataset, name))},
        warnings=(*_guess_warning(syntax, guessed), *conformance_warning(notes)),
    )


def _guess_warning(syntax: UID, guessed: bool) -> tuple[ScanWarning, ...]:
    if not guessed:
        return ()
    message = f"the header names no transfer syntax; read as {syntax.name}"
    return (ScanWarning("transfer_syntax_assumed", message),)


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
