"""What Pillow does not check of a picture: that the file is whole, and its checksums.

Only headers are parsed here, and nothing is decoded. References: PNG (ISO/IEC 15948) 5.3;
JPEG (ISO/IEC 10918-1) B.1 and B.2; TIFF 6.0, section 2, and BigTIFF; the headers of BMP.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import BinaryIO

import numpy as np

from medcli.errors import ScanError
from medcli.imaging.formats import PictureFormat
from medcli.records import ScanWarning

_MAX_SEGMENTS = 10_000  # of a JPEG header; real ones have some dozens

# TIFF field type → bytes of one value
_TIFF_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8,
               13: 4, 16: 8, 17: 8, 18: 8}  # fmt: skip
_TIFF_NUMBERS = {3: "u2", 4: "u4", 13: "u4", 16: "u8", 18: "u8"}
_BITS, _COMPRESSION, _SAMPLES, _PLANAR = 258, 259, 277, 284
_STRIPS = ((273, 279), (324, 325))  # (offsets, byte counts) of strips, of tiles
_NEEDED = (_BITS, _COMPRESSION, _SAMPLES, _PLANAR, *_STRIPS[0], *_STRIPS[1])
_MOST_SAMPLES = 6  # a pixel that Pillow reads, which else writes to its log

Warnings = tuple[ScanWarning, ...]


def check_picture(path: str, file: BinaryIO, kind: PictureFormat) -> Warnings:
    """Refuse a picture that is cut short or has a wrong checksum.

    Raises
    ------
    ScanError : truncated, crc, damaged_header, unsupported_pixels
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    try:
        if kind == "png":
            _check_png(path, file)
        elif kind == "jpeg":
            _check_jpeg(path, file)
        elif kind == "tiff":
            return _check_tiff(path, file, size)
        else:
            _check_bmp(path, file, size)
        return ()
    except (EOFError, struct.error) as error:
        raise truncated(path) from error


def truncated(path: str) -> ScanError:
    """The error of a picture that is shorter than its header says."""
    return ScanError("truncated", f"{path}: the file ends early", "Copy it again")


def _read(file: BinaryIO, count: int) -> bytes:
    """`count` bytes; EOFError where the file has fewer."""
    data = file.read(count)
    if len(data) < count:
        raise EOFError
    return data


def _check_png(path: str, file: BinaryIO) -> None:
    """Walk through the chunks to the last one, and compare their checksums."""
    file.seek(8)
    kind = b""
    while kind != b"IEND":
        length = int.from_bytes(_read(file, 4), "big")
        kind = _read(file, 4)
        checksum = zlib.crc32(kind)
        for part in _parts(file, length):
            checksum = zlib.crc32(part, checksum)
        if checksum != int.from_bytes(_read(file, 4), "big"):
            raise ScanError("crc", f"{path}: a checksum is wrong", "Copy it again")


def _parts(file: BinaryIO, length: int) -> Iterator[bytes]:
    """The next `length` bytes, some at a time."""
    while length:
        part = _read(file, min(length, 2**16))
        length -= len(part)
        yield part


def _check_jpeg(path: str, file: BinaryIO) -> None:
    """Walk through the segments to the first scan, from where on Pillow notices the end."""
    file.seek(2)
    for _ in range(_MAX_SEGMENTS):
        fill, marker = _read(file, 2)
        while marker == 0xFF:
            marker = _read(file, 1)[0]
        if fill != 0xFF:  # Pillow resynchronises
            return
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:  # markers without a segment
            continue
        body = _read(file, max(0, int.from_bytes(_read(file, 2), "big") - 2))
        if marker == 0xDA:
            return
        is_frame = 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)
        if is_frame and body[:1] != b"\x08":
            message = f"{path}: a JPEG of other than 8 bits a channel"
            raise ScanError("unsupported_pixels", message, "Save it as PNG or TIFF")
    raise ScanError("damaged_header", f"{path}: the header is damaged", "Copy it again")


def _check_tiff(path: str, file: BinaryIO, size: int) -> Warnings:
    """Compare what the first directory points to with the size of the file."""
    order = "<" if _read(file, 2) == b"II" else ">"
    is_big = struct.unpack(f"{order}H", _read(file, 2))[0] == 43
    count_form, entry_form, offset_form = ("Q", "HHQ8s", "Q") if is_big else ("H", "HHI4s", "I")
    file.seek(8 if is_big else 4)
    directory = _number(file, order + offset_form)
    if directory >= size:
        raise EOFError
    file.seek(directory)
    count, width = _number(file, order + count_form), struct.calcsize(order + entry_form)
    if count * width > size:
        raise EOFError
    entries = struct.iter_unpack(order + entry_form, _read(file, count * width))
    next_directory = _number(file, order + offset_form)
    found = {
        tag: _tiff_values(file, size, order, tag, kind, length, inline)
        for tag, kind, length, inline in entries
    }
    if max(next_directory + 1, *_ends(found)) > size:
        raise EOFError
    if max(found.get(_SAMPLES, ()), default=1) > _MOST_SAMPLES:
        raise ScanError("unsupported_pixels", f"{path}: too many channels", "Save it as PNG")
    deep = max(found.get(_BITS, ()), default=1) > 8
    planes = max(found.get(_PLANAR, ()), default=1) == 2
    if deep and planes and max(found.get(_COMPRESSION, ()), default=1) == 1:
        message = f"{path}: channels of more than 8 bits that are stored one after the other"
        raise ScanError("unsupported_pixels", message, "Save it as PNG")  # Pillow misreads them
    if not next_directory:
        return ()
    return (ScanWarning("first_frame", "several frames or pages; the first was read"),)


def _ends(found: Mapping[int, np.ndarray]) -> Iterator[float]:
    """Where the last strip and the last tile end, 0 where there are none."""
    nothing = np.empty(0)
    for tags in _STRIPS:
        starts, lengths = (found.get(tag, nothing) for tag in tags)
        both = min(len(starts), len(lengths))
        yield float(np.max(starts[:both] + lengths[:both], initial=0))


def _number(file: BinaryIO, form: str) -> int:
    number: int = struct.unpack(form, _read(file, struct.calcsize(form)))[0]
    return number


def _tiff_values(
    file: BinaryIO, size: int, order: str, tag: int, kind: int, length: int, inline: bytes
) -> np.ndarray:
    """The numbers of a field that matters here, none of any other; EOFError beyond the file."""
    width = _TIFF_SIZES.get(kind, 1) * length
    start = int.from_bytes(inline, "little" if order == "<" else "big")
    if width > len(inline) and start + width > size:
        raise EOFError
    if tag not in _NEEDED or kind not in _TIFF_NUMBERS:
        return np.empty(0)
    if width > len(inline):
        file.seek(start)
        inline = _read(file, width)
    return np.frombuffer(inline[:width], order + _TIFF_NUMBERS[kind]).astype(np.float64)


def _check_bmp(path: str, file: BinaryIO, size: int) -> None:
    """Compare the rows that the header announces with the size of the file."""
    file.seek(10)
    start, header = struct.unpack("<II", _read(file, 8))
    if header == 12:
        width, height, _, bits = struct.unpack("<HHHH", _read(file, 8))
        compression = stored = 0
    else:
        width, height, _, bits = struct.unpack("<iiHH", _read(file, 12))
        compression, stored = struct.unpack("<II", _read(file, 8))
    is_run_length = compression in (1, 2)
    rows = stored if is_run_length else (width * bits + 31) // 32 * 4 * abs(height)
    if start + rows > size:
        raise EOFError
