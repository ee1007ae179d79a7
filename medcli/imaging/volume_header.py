"""Is a volume file whole? Headers of NIfTI, NRRD and MetaImage against the bytes there are.

SimpleITK reads a truncated file as if it were whole, so length, checksum and budget
are checked here before it sees the file.
"""

from __future__ import annotations

import gzip
import math
import os
import re
import struct
import zlib
from dataclasses import dataclass
from typing import BinaryIO, Literal

import numpy as np

from medcli.errors import ScanError
from medcli.imaging.files import open_file
from medcli.imaging.values import check_budget

VolumeFormat = Literal["nifti", "nrrd", "metaimage"]
Compression = Literal["none", "gzip", "zlib"]

_HEADER_LIMIT = 2**20
_NRRD_BYTES = {
    "int8": 1, "int16": 2, "int32": 4, "int64": 8, "uint8": 1, "uint16": 2, "uint32": 4,
    "uint64": 8, "float": 4, "double": 8, "signed char": 1, "unsigned char": 1, "char": 1,
    "uchar": 1, "short": 2, "ushort": 2, "unsigned short": 2, "signed short": 2, "int": 4,
    "uint": 4, "unsigned int": 4, "signed int": 4, "int8_t": 1, "uint8_t": 1, "int16_t": 2,
    "uint16_t": 2, "int32_t": 4, "uint32_t": 4, "long long": 8, "unsigned long long": 8,
    "longlong": 8, "ulonglong": 8, "int64_t": 8, "uint64_t": 8,
}  # fmt: skip
_META_BYTES = {
    "MET_CHAR": 1, "MET_UCHAR": 1, "MET_SHORT": 2, "MET_USHORT": 2, "MET_INT": 4, "MET_UINT": 4,
    "MET_LONG": 4, "MET_ULONG": 4, "MET_LONG_LONG": 8, "MET_ULONG_LONG": 8, "MET_FLOAT": 4,
    "MET_DOUBLE": 8,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class VolumeHeader:
    """What a header announces.

    Parameters
    ----------
    size : voxels along x, y, z (and more)
    data_file : where the voxels are: the file itself or its neighbour
    offset : bytes before them, in `data_file`
    length : bytes of voxels, uncompressed
    """

    format: VolumeFormat
    size: tuple[int, ...]
    data_file: str
    offset: int
    length: int
    compression: Compression
    float_type: str | None = None  # NumPy's name where a NIfTI holds floats


def check_volume(path: str) -> VolumeHeader:
    """Read the header of a volume file and check that all its voxels are there.

    Raises
    ------
    ScanError : not_found, unreadable, damaged_header, truncated, crc, too_large,
        unsupported_pixels
    """
    lower = path.lower()
    try:
        if lower.endswith((".nii", ".nii.gz")):
            header = _nifti(path)
        elif lower.endswith((".nrrd", ".nhdr")):
            header = _nrrd(path)
        else:
            header = _metaimage(path)
    except (ValueError, KeyError, IndexError, struct.error, OverflowError) as error:
        raise _damaged(path) from error
    if not header.size or min(header.size) < 1:
        raise _damaged(path)
    check_budget(path, header.size)
    _check_data(header)
    return header


def nonfinite_voxels(header: VolumeHeader) -> np.ndarray | None:
    """(z, y, x) mask of NaN and infinity in the first time point of a checked float NIfTI.

    ITK reads them as 0 without a word. None for other files, and where there are none.
    """
    if header.float_type is None:
        return None
    kind, shape = np.dtype(header.float_type), (*header.size, 1, 1)[:3]
    with open_file(header.data_file) as file:
        source = gzip.GzipFile(fileobj=file) if header.compression == "gzip" else file
        source.seek(header.offset)
        voxels = np.frombuffer(source.read(math.prod(shape) * kind.itemsize), kind)
    mask = ~np.isfinite(voxels.reshape(shape[::-1]))
    return mask if mask.any() else None


def _damaged(path: str) -> ScanError:
    return ScanError("damaged_header", f"{path}: the header is damaged", "Copy it again")


def _truncated(path: str) -> ScanError:
    return ScanError("truncated", f"{path}: the file ends before its voxels do", "Copy it again")


def _crc(path: str) -> ScanError:
    return ScanError("crc", f"{path}: the compressed data are damaged", "Copy it again")


def _nifti(path: str) -> VolumeHeader:
    """NIfTI-1 in one file, plain or gzipped."""
    with open_file(path) as file:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        head = _inflate(path, file, 540) if packed else file.read(540)
    if len(head) < 348:
        raise _truncated(path)
    order = "<" if head[:4] in (b"\x5c\x01\0\0", b"\x1c\x02\0\0") else ">"
    (header_size,) = struct.unpack_from(f"{order}i", head)
    if header_size == 348 and head[344:347] == b"n+1":
        sizes = struct.unpack_from(f"{order}8h", head, 40)
        kind, bits_per_voxel = struct.unpack_from(f"{order}2h", head, 70)
        offset = int(struct.unpack_from(f"{order}f", head, 108)[0])
    elif header_size == 540 and head[4:7] == b"n+2":
        message = f"{path}: NIfTI-2 is not supported"
        raise ScanError("unsupported_pixels", message, "Save it as NIfTI-1")
    else:
        raise _damaged(path)
    dimensions = sizes[0]
    if not 1 <= dimensions <= 7 or offset < 0:
        raise _damaged(path)
    size = sizes[1 : dimensions + 1]
    length = math.prod(size) * bits_per_voxel // 8
    float_type = {16: f"{order}f4", 64: f"{order}f8"}.get(kind)
    compression: Compression = "gzip" if packed else "none"
    return VolumeHeader("nifti", size, path, offset, length, compression, float_type)


def _nrrd(path: str) -> VolumeHeader:
    """NRRD with attached data or with a data file beside it (raw or gzip encoding)."""
    with open_file(path) as file:
        text = _text_header(path, file, re.compile(rb"\r?\n\r?\n"))
        offset = file.tell()
    lines = text.splitlines()
    if not lines or not lines[0].startswith("NRRD"):
        raise _damaged(path)
    fields = {
        key.strip(): value.strip()
        for key, _, value in (line.partition(":") for line in lines[1:] if line[:1] != "#")
    }
    size = tuple(int(part) for part in fields["sizes"].split())
    encoding = fields["encoding"].lower()
    if encoding not in ("raw", "gzip", "gz"):
        raise ScanError("unsupported_pixels", f"{path}: NRRD encoding other than raw and gzip")
    length = math.prod(size) * _NRRD_BYTES[fields["type"].lower()]
    named = fields.get("data file", fields.get("datafile"))
    data_file = path if named is None else _neighbour(path, named)
    skip = int(fields.get("byte skip", "0"))
    if int(fields.get("line skip", "0")) or (skip and encoding != "raw") or skip < -1:
        raise ScanError("unsupported_pixels", f"{path}: NRRD data with skipped lines")
    start = 0 if named is not None else offset
    if skip == -1:
        start = max(start, os.path.getsize(data_file) - length)
    else:
        start += skip
    return VolumeHeader(
        "nrrd", size, data_file, start, length, "none" if encoding == "raw" else "gzip"
    )


def _metaimage(path: str) -> VolumeHeader:
    """MetaImage with local data or with a data file beside it."""
    with open_file(path) as file:
        text = _text_header(path, file, re.compile(rb"ElementDataFile[^\n]*\n?"))
        offset = file.tell()
    fields = {
        key.strip(): value.strip()
        for key, _, value in (line.partition("=") for line in text.splitlines())
    }
    size = tuple(int(part) for part in fields["DimSize"].split())
    channels = int(fields.get("ElementNumberOfChannels", "1"))
    length = math.prod(size) * channels * _META_BYTES[fields["ElementType"]]
    local = fields["ElementDataFile"].upper() == "LOCAL"
    data_file = path if local else _neighbour(path, fields["ElementDataFile"])
    packed = fields.get("CompressedData", "False").lower() == "true"
    skip = int(fields.get("HeaderSize", "0"))
    start = offset if local else 0
    if skip == -1 and not packed:
        start = max(start, os.path.getsize(data_file) - length)
    elif skip > 0:
        start += skip
    if fields.get("BinaryData", "True").lower() == "false":
        raise ScanError("unsupported_pixels", f"{path}: MetaImage data as text")
    return VolumeHeader("metaimage", size, data_file, start, length, "zlib" if packed else "none")


def _text_header(path: str, file: BinaryIO, end: re.Pattern[bytes]) -> str:
    """The text up to and including the first match of `end`; the file stands behind it."""
    data = file.read(_HEADER_LIMIT)
    match = end.search(data)
    stop = match.end() if match else len(data)
    if match is None and len(data) == _HEADER_LIMIT:
        raise _damaged(path)
    file.seek(stop)
    return data[:stop].decode("latin-1")


def _neighbour(path: str, name: str) -> str:
    """A data file named by a header: in the same folder only, and one only."""
    if os.path.basename(name) != name or "%" in name or name.upper().startswith("LIST"):
        raise ScanError(
            "unsupported_pixels",
            f"{path}: its data are in other folders or in several files",
            "Convert it to one file",
        )
    return os.path.join(os.path.dirname(path), name)


def _check_data(header: VolumeHeader) -> None:
    """Refuse data that are shorter than announced, or whose checksum is wrong."""
    path = header.data_file
    with open_file(path) as file:
        if header.compression == "none":
            if os.fstat(file.fileno()).st_size < header.offset + header.length:
                raise _truncated(path)
            return
        inside = header.offset if header.format == "nifti" else 0
        file.seek(0 if header.format == "nifti" else header.offset)
        if header.compression == "gzip":
            _check_gzip(path, file, inside + header.length)
        else:
            _check_zlib(path, file, header.length)


def _inflate(path: str, file: BinaryIO, count: int) -> bytes:
    """The first `count` bytes of a gzip stream."""
    try:
        return gzip.GzipFile(fileobj=file).read(count)
    except EOFError as error:
        raise _truncated(path) from error
    except (OSError, zlib.error) as error:
        raise _crc(path) from error


def _check_gzip(path: str, file: BinaryIO, expected: int) -> None:
    """Inflate a gzip stream to its end, which checks its CRC, and count the bytes."""
    stream, inflated = gzip.GzipFile(fileobj=file), 0
    try:
        while chunk := stream.read(2**20):
            inflated += len(chunk)
            if inflated > expected + 2**20:
                break  # padding beyond need is not worth the time, or a bomb
    except EOFError as error:
        raise _truncated(path) from error
    except (OSError, zlib.error) as error:
        raise _crc(path) from error
    if inflated < expected:
        raise _truncated(path)


def _check_zlib(path: str, file: BinaryIO, expected: int) -> None:
    """Inflate a zlib stream to its end, which checks its Adler-32, and count the bytes."""
    inflater, inflated = zlib.decompressobj(), 0
    chunk = file.read(2**16)
    try:
        while chunk and not inflater.eof and inflated <= expected:
            inflated += len(inflater.decompress(chunk, 2**20))
            chunk = inflater.unconsumed_tail or file.read(2**16)
    except zlib.error as error:
        raise _crc(path) from error
    if inflated < expected or not inflater.eof:
        raise _truncated(path)
