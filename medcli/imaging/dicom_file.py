"""DICOM file → dataset: parsed quietly, and refused where it is cut short or a bomb."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

from pydicom import config as pydicom_config
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.filereader import _read_file_meta_info, dcmread, read_preamble
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from medcli.errors import ScanError
from medcli.imaging.decoders import DEFLATED, is_supported
from medcli.imaging.dicom_bounds import (
    ReadAllError,
    bounded,
    bounded_values,
    check_bounds,
    up_to_zeros,
)
from medcli.imaging.dicom_tags import integer, tag_of, text
from medcli.imaging.files import MEMBER, check_size, open_file
from medcli.imaging.quiet import Note, Shared, collected_warnings
from medcli.imaging.values import MAX_SAMPLES
from medcli.records import ScanWarning

PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")

_IMAGES = re.compile(r"Image Storage|^(Segmentation|Parametric Map) Storage")
"""Names of the SOP classes that hold pixels, but for RT Dose, which may hold histograms only."""

_DOSE = "1.2.840.10008.5.1.4.1.1.481.2"
"""RT Dose Storage. It always names a DoseSummationType (DICOM PS3.3 C.8.8.3)."""

_SIZES = ("Rows", "Columns", "BitsAllocated", "SamplesPerPixel", "NumberOfFrames")

HEADER_BYTES = 2**24
"""Of a deflated file so much is inflated in search of its pixels."""


def read_tags(path: str, keywords: Sequence[str]) -> FileDataset:
    """Read some tags of a file that holds an image, without reading its pixels.

    To be called inside `quiet()`, like everything here.

    Raises
    ------
    ScanError : not_found, unreadable, damaged_header, truncated, too_large,
        unsupported_transfer_syntax, no_pixels where the object is none that holds an image
    """
    with open_file(path, start_only=True) as file:
        dataset, source = _parse(file, path, [*keywords, *PIXELS])
        if not _holds_pixels(source, dataset):
            raise _without_pixels(source, path)
        syntax, _ = transfer_syntax(dataset)
        if not is_supported(syntax):
            raise unsupported_syntax(path, syntax)
    return dataset


def read_dataset(path: str) -> FileDataset:
    """Read a file that holds an image whole.

    Raises
    ------
    ScanError : as `read_tags`
    """
    if MEMBER in path:
        _check_member(path)
    with open_file(path) as file:
        dataset, source = _parse(file, path)
        if not any(keyword in dataset for keyword in PIXELS):
            raise _without_pixels(source, path)
    return dataset


@contextlib.contextmanager
def quiet() -> Iterator[list[Note]]:
    """Collect what pydicom warns of, and keep it out of Python's warnings and logs.

    Its messages quote tag values, so only their number may be told. Values are not
    validated against their VR: nothing here depends on it and it doubles the time.
    """
    with collected_warnings() as notes, _silent_pydicom(), bounded():
        yield notes


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Pydicom without logging and validation but with bounds, for the whole process."""
    logger = logging.getLogger("pydicom")
    was_disabled, logger.disabled = logger.disabled, True
    try:
        with pydicom_config.disable_value_validation(), bounded_values():
            yield
    finally:
        logger.disabled = was_disabled


_silent_pydicom = Shared(_silence)


def conformance_warning(notes: Sequence[object]) -> tuple[ScanWarning, ...]:
    """One redacted warning for all of pydicom's, none where there were none."""
    if not notes:
        return ()
    places = f"{len(notes)} place{'s' * (len(notes) > 1)}"
    message = f"the header breaks the standard in {places}; read as far as possible"
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


def _parse(
    file: BinaryIO, path: str, keywords: list[str] | None = None
) -> tuple[FileDataset, BinaryIO]:
    """The dataset of an open file, and the bytes it was read from, which stand behind it.

    With `keywords` only those, up to the pixels.
    """
    header_only, source = keywords is not None, file
    try:
        if not header_only and _size(file) > 4 * MAX_SAMPLES + HEADER_BYTES:
            raise ScanError("too_large", f"{path}: the file is larger than any image may be")
        try:
            dataset = _parse_plain(file, path, keywords)
        except ReadAllError:  # pydicom would inflate without a limit
            source = _inflated(file, path, header_only=header_only)
            dataset = _parse_plain(source, path, keywords)
            dataset.file_meta.TransferSyntaxUID = UID(DEFLATED)
    except ScanError:
        raise
    except Exception as error:  # a damaged file can raise anything, RecursionError included
        check_bounds()
        if not isinstance(error, RecursionError) and not source.read(1):
            raise _ends_early(path, "its header does") from error
        raise damaged_header(path) from error
    return dataset, source


def _parse_plain(source: BinaryIO, path: str, keywords: Sequence[str] | None) -> FileDataset:
    """As `_parse`, of a file that is not deflated.

    Raises
    ------
    ReadAllError : it is
    """
    return dcmread(
        up_to_zeros(source, path),
        force=True,
        specific_tags=None if keywords is None else [tag_of(keyword) for keyword in keywords],
        stop_before_pixels=keywords is not None,
    )


def _size(file: BinaryIO) -> int:
    """Bytes in a file; it stands at its beginning then."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    return size


def _inflated(file: BinaryIO, path: str, *, header_only: bool) -> BinaryIO:
    """A deflated file as pydicom reads it without inflating it, since pydicom knows no limit.

    The header may take `HEADER_BYTES`, the pixels what it announces.

    Raises
    ------
    ScanError : too_large, truncated, damaged_header
    """
    file.seek(0)
    limit = HEADER_BYTES
    if not header_only:
        limit += _announced_bytes(_parse(file, path, list(_SIZES))[0])
        file.seek(0)
    meta = _meta(file, path)
    limit += len(meta)
    plain = ExplicitVRLittleEndian.encode().ljust(len(DEFLATED), b"\0")
    inflated = io.BytesIO(meta.replace(DEFLATED.encode(), plain))
    inflated.seek(len(meta))
    inflater, chunk = zlib.decompressobj(-zlib.MAX_WBITS), file.read(2**16)
    try:
        while chunk and not inflater.eof and inflated.tell() <= limit:
            inflated.write(inflater.decompress(chunk, 2**20))
            chunk = inflater.unconsumed_tail or file.read(2**16)
    except zlib.error as error:
        raise damaged_header(path) from error
    if not inflater.eof and not chunk:
        raise ScanError("truncated", f"{path}: the deflated data end early", "Copy it again")
    if inflated.tell() > limit and not header_only:
        message = f"{path}: inflates beyond {limit:,} bytes, more than its image"
        raise ScanError("too_large", message)
    inflated.seek(0)
    return inflated


def _meta(file: BinaryIO, path: str) -> bytes:
    """The preamble and the File Meta Information of a file, which stands behind them then."""
    source = up_to_zeros(file, path)
    read_preamble(source, force=True)
    _read_file_meta_info(source)
    size = file.tell()
    file.seek(0)
    return file.read(size)


def _check_member(path: str) -> None:
    """Refuse a member of an archive that is far larger than its image, before it is inflated."""
    with open_file(path, start_only=True) as file:
        check_size(path, _announced_bytes(_parse(file, path, list(_SIZES))[0]))


def _announced_bytes(header: Dataset) -> int:
    """Bytes of the pixels that a header announces, within the budget."""
    rows, columns, bits = (integer(header, name) for name in _SIZES[:3])
    samples, frames = (integer(header, name, 1) for name in _SIZES[3:])
    return min(max(0, rows * columns * samples * frames * bits // 8), 4 * MAX_SAMPLES)


def _holds_pixels(file: BinaryIO, dataset: Dataset) -> bool:
    """Whether pixel data follow the header that was just read from `file`."""
    if any(keyword in dataset for keyword in PIXELS):
        return True
    tag = file.read(4)  # the parser stops in front of group 7FE0
    return tag[:2] in (b"\xe0\x7f", b"\x7f\xe0")


def _without_pixels(source: BinaryIO, path: str) -> ScanError:
    """Tell an object that holds no image from an image that was cut before its pixels.

    An image object without pixel data counts as cut even where its header ends cleanly:
    the standard requires them, and a cut between two elements looks just so. Of a dose,
    which need not be an image, the last of what it must have is looked for.
    """
    source.seek(0)
    with quiet() as notes:
        dataset, _ = _parse(source, path)
        cut = _ends_within_element(source, dataset)  # before values are converted
        class_uid = text(dataset, "SOPClassUID") or text(
            dataset.file_meta, "MediaStorageSOPClassUID"
        )
        if dataset and class_uid is None and text(dataset, "SOPInstanceUID") is None:
            return damaged_header(path)
        is_image = integer(dataset, "Rows") > 0 or _IMAGES.search(UID(class_uid or "").name)
        cut |= class_uid == _DOSE and text(dataset, "DoseSummationType") is None
        ended_early = any("end of file" in str(note).lower() for note in notes)
        if cut or ended_early:
            return _ends_early(path, "its pixel data")
        if is_image:
            return ScanError(
                "truncated",
                f"{path}: an image without pixel data: they were taken out, or it is cut off there",
                "Copy or export it again",
            )
    return ScanError("no_pixels", f"{path}: a DICOM object without an image")


def _ends_within_element(source: BinaryIO, dataset: FileDataset) -> bool:
    """Whether the last element of a dataset ends elsewhere than its file."""
    tags = list(dataset.keys())  # in the order of the file
    last: Any = dataset.get_item(tags[-1]) if tags else None
    if not isinstance(last, RawDataElement):
        return last is None
    return last.value_tell + last.length != source.seek(0, os.SEEK_END)


def _ends_early(path: str, what: str) -> ScanError:
    return ScanError("truncated", f"{path}: the file ends before {what}", "Copy it again")


def damaged_header(path: str) -> ScanError:
    """The error of a header that cannot be made sense of."""
    return ScanError(
        "damaged_header", f"{path}: the DICOM header is damaged", "Copy or export the file again"
    )


def unsupported_syntax(path: str, syntax: UID) -> ScanError:
    """The error of pixel data that medcli cannot read whatever is installed."""
    return ScanError(
        "unsupported_transfer_syntax",
        f"{path}: transfer syntax {syntax.name} ({syntax}) is not supported",
        "Export it as Explicit VR Little Endian",
    )
