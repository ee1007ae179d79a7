"""DICOM file → dataset: parsed quietly, and refused where it is cut short or a bomb."""

from __future__ import annotations

import contextlib
import logging
import zlib
from collections.abc import Iterator, Sequence
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
from medcli.imaging.dicom_tags import integer, text
from medcli.imaging.files import open_file
from medcli.imaging.quiet import Note, Shared, collected_warnings
from medcli.imaging.values import MAX_SAMPLES
from medcli.records import ScanWarning

PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")


def read_tags(path: str, keywords: Sequence[str]) -> FileDataset:
    """Read some tags of a file that holds an image, without reading its pixels.

    To be called inside `quiet()`, like everything here.

    Raises
    ------
    ScanError : not_found, unreadable, damaged_header, truncated, too_large (inflated),
        no_pixels where the object is none that holds an image
    """
    with open_file(path) as file:
        dataset = _parse(file, path, [*keywords, *PIXELS])
        if not _holds_pixels(file, dataset):
            raise _without_pixels(file, path)
    return dataset


def read_dataset(path: str) -> FileDataset:
    """Read a file that holds an image whole.

    Raises
    ------
    ScanError : as `read_tags`
    """
    with open_file(path) as file:
        dataset = _parse(file, path)
        if not any(keyword in dataset for keyword in PIXELS):
            raise _without_pixels(file, path)
    return dataset


@contextlib.contextmanager
def quiet() -> Iterator[list[Note]]:
    """Collect what pydicom warns of, and keep it out of Python's warnings and logs.

    Its messages quote tag values, so only their number may be told. Values are not
    validated against their VR: nothing here depends on it and it doubles the time.
    """
    with collected_warnings() as notes, _silent_pydicom():
        yield notes


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Pydicom without logging and validation, for the whole process."""
    logger = logging.getLogger("pydicom")
    was_disabled, logger.disabled = logger.disabled, True
    try:
        with pydicom_config.disable_value_validation():
            yield
    finally:
        logger.disabled = was_disabled


_silent_pydicom = Shared(_silence)


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
        raise damaged_header(path) from error


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
        raise damaged_header(path) from error
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
    """Tell an object that holds no image from an image that was cut before its pixels.

    An image object without pixel data counts as cut even where its header ends cleanly:
    the standard requires them, and a cut between two elements looks just so.
    """
    file.seek(0)
    with quiet() as notes:
        dataset = _parse(file, path)
        class_uid = text(dataset, "SOPClassUID") or text(
            dataset.file_meta, "MediaStorageSOPClassUID"
        )
        if class_uid is None and text(dataset, "SOPInstanceUID") is None:
            return damaged_header(path)
        is_image = integer(dataset, "Rows") > 0 or "Image Storage" in UID(class_uid or "").name
        ended_early = any("end of file" in str(note).lower() for note in notes)
        if is_image or ended_early or _ends_within_element(file, dataset):
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


def damaged_header(path: str) -> ScanError:
    """The error of a header that cannot be made sense of."""
    return ScanError(
        "damaged_header", f"{path}: the DICOM header is damaged", "Copy or export the file again"
    )
