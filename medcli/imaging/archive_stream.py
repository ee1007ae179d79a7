"""A member of an archive as a file that is inflated no further than it is read."""

from __future__ import annotations

import io
import os
import zlib
from collections.abc import Iterator
from typing import Any

from medcli.errors import ScanError

CHUNK = 2**20


def inflated(packed: bytes, *, deflated: bool) -> Iterator[bytes]:
    """The content of a member, a chunk at a time.

    Raises
    ------
    zlib.error : damaged data
    """
    if not deflated:
        yield packed
        return
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    while packed and not inflater.eof:
        if chunk := inflater.decompress(packed, CHUNK):
            yield chunk
        elif not inflater.unconsumed_tail:
            return
        packed = inflater.unconsumed_tail
    if chunk := inflater.flush():
        yield chunk


class MemberStart(io.RawIOBase):
    """The start of a member of `size` bytes, for who reads its header; `limit` bytes at most.

    Its checksum is not looked at.
    """

    def __init__(self, path: str, chunks: Iterator[bytes], size: int, limit: int) -> None:
        self._path = path
        self._chunks = chunks
        self._size = size
        self._limit = limit
        self._kept = bytearray()
        self._position = 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place; nothing is inflated for it."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        """The place."""
        return self._position

    def readinto(self, target: Any) -> int:
        """As many bytes as there are for `target`.

        Raises
        ------
        ScanError : crc (damaged data), too_large (beyond the limit)
        """
        view = memoryview(target)
        end = min(self._position + len(view), self._size)
        if end > self._limit:
            message = f"{self._path}: its header alone inflates beyond {self._limit:,} bytes"
            raise ScanError("too_large", message, "Unpack it first")
        self._inflate(end)
        found = bytes(memoryview(self._kept)[self._position : end])
        view[: len(found)] = found
        self._position += len(found)
        return len(found)

    def _inflate(self, end: int) -> None:
        """Inflate up to `end`, or to where the data end before."""
        try:
            while len(self._kept) < end and (chunk := next(self._chunks, b"")):
                self._kept += chunk
        except zlib.error as error:
            raise damaged_data(self._path) from error


def damaged_data(path: str) -> ScanError:
    """The error of data that cannot be inflated, or are not what the checksum says."""
    return ScanError("crc", f"{path}: the compressed data are damaged", "Copy it again")
