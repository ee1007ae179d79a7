"""Encapsulated pixel data, frame by frame: checked before a decoder is called.

References
----------
DICOM PS3.5 A.4, Encapsulation of Encoded Pixel Data
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from pydicom.dataset import FileDataset
from pydicom.encaps import generate_frames
from pydicom.uid import ExplicitVRLittleEndian

from medcli.errors import ScanError
from medcli.imaging import decoders
from medcli.imaging.codestream import (
    CodestreamError,
    FrameHeader,
    check_fragments,
    jpeg2000_header,
    jpeg_header,
    rle_decode,
    rle_segments,
)
from medcli.imaging.dicom_tags import value

if TYPE_CHECKING:
    from medcli.imaging.dicom_pixels import Layout

PLAIN_VALUES = 2**24
"""A frame of so many values, such as 4096², is decoded whatever its compression."""

DENSEST = 2**14
"""Values in a byte beyond which a larger frame is a bomb; a black CT slice has 1,700."""

_JPEG2000 = ("1.2.840.10008.1.2.4.9", "1.2.840.10008.1.2.4.20")


def check_frames(path: str, dataset: FileDataset, image: Layout) -> None:
    """Hold every encoded frame against the header, without decoding it.

    Raises
    ------
    ScanError : truncated (fragments or frames are missing or end early), damaged_pixels (no
        codestream, or one of another size), too_large (a bomb)
    """
    syntax, count = str(dataset.file_meta.TransferSyntaxUID), 0
    try:
        for data in _frames(dataset, image.frames):
            count += 1
            _check_frame(path, data, syntax, image)
    except CodestreamError as error:
        raise _unfit(path, error.code, str(error)) from error
    if count < image.frames:
        raise _unfit(path, "truncated", f"{count} frames of {image.frames}")


def unpack_frames(path: str, dataset: FileDataset, image: Layout) -> None:
    """Replace deflated frames, or single bits in RLE, by native pixel data.

    Call `check_frames` before.

    Raises
    ------
    ScanError : truncated, damaged_pixels, too_large (frames that inflate beyond their size)
    """
    rle = str(dataset.file_meta.TransferSyntaxUID) == decoders.RLE
    size = _plane_bytes(image) if rle else _frame_bytes(image)
    try:
        frames = [
            _unpack_bits(data, size) if rle else _inflate(data, size)
            for data in _frames(dataset, image.frames)
        ]
    except CodestreamError as error:
        raise _unfit(path, error.code, str(error)) from error
    if image.bits_allocated == 1:  # native frames share bytes, encoded ones do not
        pixels = image.rows * image.columns * image.samples
        stored = np.frombuffer(b"".join(frames), np.uint8).reshape(len(frames), size)
        bits = np.unpackbits(stored, axis=1, count=pixels, bitorder="little")
        frames = [np.packbits(bits, bitorder="little").tobytes()]
    dataset.PixelData = b"".join(frames)
    dataset["PixelData"].is_undefined_length = False
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian


def _frames(dataset: FileDataset, count: int) -> Iterator[bytes]:
    """The first `count` encoded frames.

    Raises
    ------
    CodestreamError : the encapsulation is damaged
    """
    data = value(dataset, "PixelData") or b""
    fragments = check_fragments(data)
    if fragments < count:
        raise CodestreamError("truncated", f"{fragments} fragments of {count} frames")
    offsets = value(dataset, "ExtendedOffsetTable"), value(dataset, "ExtendedOffsetTableLengths")
    extended = offsets if offsets[0] and offsets[1] else None
    try:
        frames = generate_frames(data, number_of_frames=count, extended_offsets=extended)
        yield from itertools.islice(frames, count)
    except CodestreamError:
        raise
    except Exception as error:  # damaged offset tables lead pydicom astray
        raise CodestreamError("damaged_pixels", "the frames cannot be told apart") from error


def _check_frame(path: str, data: bytes, syntax: str, image: Layout) -> None:
    """Hold one encoded frame against the header."""
    samples = image.rows * image.columns * image.samples
    if samples > max(PLAIN_VALUES, DENSEST * len(data)):
        message = f"{path}: {len(data):,} bytes announce a frame of {samples:,} values"
        raise ScanError("too_large", message, "No scanner writes such a file")
    if syntax == decoders.RLE:
        planes = image.samples * max(1, image.bits_allocated // 8)
        rle_segments(data, _plane_bytes(image), planes)
    elif syntax != decoders.DEFLATED_FRAMES:
        read = jpeg2000_header if syntax.startswith(_JPEG2000) else jpeg_header
        _compare(path, read(data), len(data), image)


def _compare(path: str, found: FrameHeader, size: int, image: Layout) -> None:
    """Refuse a codestream of another size than the header's, or too short for its own."""
    announced = found.rows, found.columns, found.components
    expected = image.rows, image.columns, image.samples
    if announced != expected:
        told, asked = ("×".join(map(str, sizes)) for sizes in (announced, expected))
        raise _unfit(path, "damaged_pixels", f"a frame of {told} where the header says {asked}")
    if found.precision > image.bits_allocated:
        raise _unfit(path, "damaged_pixels", f"{found.precision} bits a value are not allocated")
    if size < found.least_bytes:
        raise _unfit(path, "truncated", f"{size:,} bytes cannot hold a frame")


def _plane_bytes(image: Layout) -> int:
    """Bytes of an RLE segment, decoded: one byte of every pixel of a sample, or its bits."""
    pixels = image.rows * image.columns
    return -(-pixels // 8) if image.bits_allocated == 1 else pixels


def _frame_bytes(image: Layout) -> int:
    """Bytes of a frame that stands alone."""
    return -(-image.rows * image.columns * image.samples * image.bits_allocated // 8)


def _unpack_bits(data: bytes, size: int) -> bytes:
    ((begin, end),) = rle_segments(data, size, 1)
    return rle_decode(data[begin:end], size)


def _inflate(data: bytes, size: int) -> bytes:
    """A deflated frame of `size` bytes; an even length is padded after the deflated data."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        frame = inflater.decompress(data, size + 2)
    except zlib.error as error:
        raise CodestreamError("damaged_pixels", "a deflated frame is damaged") from error
    if len(frame) < size:
        raise CodestreamError("truncated", "a deflated frame ends early")
    if len(frame) > size + 1:
        raise CodestreamError("damaged_pixels", "a deflated frame is larger than its image")
    return frame[:size]


def _unfit(path: str, code: str, what: str) -> ScanError:
    """The error of a frame."""
    return ScanError(code, f"{path}: {what}", "Copy or export the file again")
