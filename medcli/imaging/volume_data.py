"""The voxels of a volume file, checked to be whole: length, checksum and budget."""

from __future__ import annotations

import gzip
import math
import os
import zlib
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from medcli.errors import ScanError
from medcli.imaging.files import check_size, open_file, os_failure
from medcli.imaging.values import check_budget
from medcli.imaging.volume_header import VolumeHeader, truncated

_CHUNK = 2**20


def read_voxels(path: str, header: VolumeHeader, time_point: int = 0) -> np.ndarray:
    """The stored values of one time point.

    A compressed file is inflated once and to its end, because its checksum stands there;
    only the bytes of the time point are kept.

    Returns
    -------
    (z, y, x) or, for a colour, (z, y, x, 3) uint8; a flat image has one z

    Raises
    ------
    ScanError : not_found, unreadable, truncated, crc, too_large
    """
    size, taken = header.size, _taken(header, time_point)
    needed = max((axis for axis, part in enumerate(taken) if isinstance(part, slice)), default=0)
    block, outer = size[: needed + 1], size[needed + 1 :]
    check_budget(path, block)
    number, stride = 0, 1  # of the block among the outer axes
    for count, part in zip(outer, taken[needed + 1 :], strict=True):
        number += stride * (part if isinstance(part, int) else 0)
        stride *= count
    length = math.prod(block) * header.dtype.itemsize
    data = _read(header, number * length, length)
    values = np.frombuffer(data, header.dtype).reshape(block[::-1])[taken[: needed + 1][::-1]]
    if header.is_colour:
        channel, spatial = header.channel or 0, header.spatial
        values = np.moveaxis(values, -1 if channel < min(spatial) else 0, -1)
    flat = 3 - len(header.spatial)
    return values.reshape((1,) * flat + values.shape)


def _taken(header: VolumeHeader, time_point: int) -> tuple[slice | int, ...]:
    """For each axis what is taken of it: all, the time point, red to blue, or the first."""
    taken: list[slice | int] = [0] * len(header.size)
    for axis in header.spatial:
        taken[axis] = slice(None)
    if header.time is not None:
        taken[header.time] = time_point
    if header.is_colour and header.channel is not None:
        taken[header.channel] = slice(0, 3)
    return tuple(taken)


def _read(header: VolumeHeader, start: int, length: int) -> bytes | bytearray:
    """`length` bytes of the voxels from `start`; refused where any voxel is missing."""
    path = header.data_file
    check_size(path, header.offset + header.length)
    with open_file(path) as file:
        try:
            if header.compression == "none":
                if file.seek(0, os.SEEK_END) < header.offset + header.length:
                    raise truncated(path)
                file.seek(header.offset + start)
                return file.read(length)
            skipped = header.offset if header.offset_in_stream else 0
            file.seek(0 if header.offset_in_stream else header.offset)
            chunks = _gunzip(file) if header.compression == "gzip" else _decompress(file)
            return _collect(path, chunks, skipped + start, length, skipped + header.length)
        except EOFError as error:
            raise truncated(path) from error
        except (zlib.error, gzip.BadGzipFile) as error:
            message = f"{path}: the compressed data are damaged"
            raise ScanError("crc", message, "Copy it again") from error
        except OSError as error:
            raise os_failure(path, error) from error


def _collect(path: str, chunks: Iterator[bytes], start: int, length: int, total: int) -> bytearray:
    """The bytes from `start` of a stream that must hold `total`; what follows is padding."""
    kept, position = bytearray(length), 0
    for chunk in chunks:
        low, high = max(start, position), min(start + length, position + len(chunk))
        if low < high:
            kept[low - start : high - start] = chunk[low - position : high - position]
        position += len(chunk)
        if position > total + _CHUNK:
            break  # padding beyond need is not worth the time, or a bomb
    if position < total:
        raise truncated(path)
    return kept


def _gunzip(file: BinaryIO) -> Iterator[bytes]:
    """The content of a gzip file; its CRC is checked at the end."""
    stream = gzip.GzipFile(fileobj=file)
    while chunk := stream.read(_CHUNK):
        yield chunk


def _decompress(file: BinaryIO) -> Iterator[bytes]:
    """The content of a zlib stream; its Adler-32 is checked at the end."""
    inflater = zlib.decompressobj()
    chunk = file.read(2**16)
    while chunk and not inflater.eof:
        yield inflater.decompress(chunk, _CHUNK)
        chunk = inflater.unconsumed_tail or file.read(2**16)
    if not inflater.eof:
        raise EOFError
