"""What a compressed frame says of itself, read before any decoder sees it.

A decoder allocates what the codestream announces, not what the DICOM header says: a file
of a kilobyte can ask for gigabytes. Here the announced size is read from the first
markers and the end of the data is looked for, in time that does not depend on the size of
the image; nothing is decoded.

References
----------
ITU-T T.81 B (JPEG), T.87 C (JPEG-LS), T.800 A and I (JPEG 2000, JP2), T.814 (HTJ2K);
DICOM PS3.5 A.4 and G (RLE)
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Literal

_NO_FRAME_HEADER = (0xC4, 0xC8, 0xCC)  # DHT, JPG, DAC stand between the SOF markers
_WITHOUT_LENGTH = (0x01, *range(0xD0, 0xD9))  # TEM, RST0–7, SOI
_SOF_JPEG_LS, _SOS, _EOI = 0xF7, 0xDA, b"\xff\xd9"
_SOC, _SIZ, _SOT = b"\xff\x4f", 0xFF51, 0xFF90
_JP2_SIGNATURE = b"\0\0\0\x0cjP  \r\n\x87\n"
_MAX_TILES = 65_535
_ITEM, _DELIMITER = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
_UNDEFINED = b"\xff\xff\xff\xff"

RLE_HEADER = 64
_RLE_LEAST, _RLE_MOST = 64, 2  # a pair of bytes holds 128 of them; a literal run doubles one


class CodestreamError(ValueError):
    """A codestream that cannot be decoded; `code` is one of docs/codes.md."""

    def __init__(self, code: Literal["truncated", "damaged_pixels"], message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class FrameHeader:
    """The image that a codestream announces.

    Parameters
    ----------
    precision : bits of a sample, the largest over the components
    least_bytes : fewer encoded bytes cannot hold the image
    """

    rows: int
    columns: int
    components: int
    precision: int
    least_bytes: int = 0


def jpeg_header(data: bytes) -> FrameHeader:
    """The frame header (SOF) of a JPEG or JPEG-LS codestream that has its end marker.

    Raises
    ------
    CodestreamError : no such codestream, or it ends early
    """
    if data[:2] != b"\xff\xd8":
        raise _damaged("no JPEG codestream")
    position = 2
    while True:
        marker, start, end = _segment(data, position)
        if marker == _SOS:
            raise _damaged("a JPEG without a frame header")
        if marker == _SOF_JPEG_LS or (0xC0 <= marker <= 0xCF and marker not in _NO_FRAME_HEADER):
            break
        position = end
    if end - start < 6:
        raise _damaged("a frame header that is too short")
    precision, rows, columns, components = struct.unpack_from(">BHHB", data, start)
    if data.rfind(_EOI, end) < 0:
        raise _truncated("the JPEG codestream has no end")
    if not (rows and columns and components and precision):
        raise _damaged("a JPEG of no size")
    return FrameHeader(
        rows, columns, components, precision, _least_bytes(marker, rows * columns * components)
    )


def _segment(data: bytes, position: int) -> tuple[int, int, int]:
    """The marker at `position`, and where what it holds begins and ends."""
    size = len(data)
    while True:
        if position + 2 > size:
            raise _truncated("the JPEG codestream ends within its header")
        if data[position] != 0xFF:
            raise _damaged("a JPEG marker is missing")
        marker = data[position + 1]
        if marker == 0xFF:  # fill bytes
            position += 1
        elif marker in _WITHOUT_LENGTH:
            position += 2
        else:
            break
    if position + 4 > size:
        raise _truncated("the JPEG codestream ends within its header")
    length = int.from_bytes(data[position + 2 : position + 4], "big")
    if length < 2:
        raise _damaged("a JPEG segment of no length")
    if position + 2 + length > size:
        raise _truncated("the JPEG codestream ends within its header")
    return marker, position + 4, position + 2 + length


def _least_bytes(marker: int, samples: int) -> int:
    """The fewest bytes for so many samples: every one, or block of 64, has a code of its own."""
    if marker in (0xC3, 0xC7, 0xCB, 0xCF):  # lossless: one bit a sample
        return samples // 8
    if marker in (0xC0, 0xC1):  # sequential: two bits a block, chroma at a quarter
        return samples // 1024
    return 0  # runs may cover the whole image


def jpeg2000_header(data: bytes) -> FrameHeader:
    """The image and tile size (SIZ) of a JPEG 2000 or HTJ2K codestream whose tiles are whole.

    The codestream may stand in the boxes of a JP2 file.

    Raises
    ------
    CodestreamError : no such codestream, or it ends early
    """
    start = _in_boxes(data) if data.startswith(_JP2_SIGNATURE) else 0
    if data[start : start + 2] != _SOC:
        raise _damaged("no JPEG 2000 codestream")
    if len(data) < start + 42:
        raise _truncated("the JPEG 2000 codestream ends within its header")
    marker, length, _, *sizes, components = struct.unpack_from(">3H8IH", data, start + 2)
    if marker != _SIZ or length != 38 + 3 * components or not components:
        raise _damaged("a JPEG 2000 codestream without its size")
    parts = data[start + 42 : start + 4 + length]
    if len(parts) < 3 * components:
        raise _truncated("the JPEG 2000 codestream ends within its header")
    right, bottom, left, top, tile_width, tile_height, tile_left, tile_top = sizes
    columns, rows = right - left, bottom - top
    if min(columns, rows, tile_width, tile_height, *parts[1::3], *parts[2::3]) < 1:
        raise _damaged("a JPEG 2000 image of no size")
    if tile_left > left or tile_top > top:
        raise _damaged("JPEG 2000 tiles that miss the image")
    tiles = -(-(right - tile_left) // tile_width) * -(-(bottom - tile_top) // tile_height)
    if tiles > _MAX_TILES:
        raise _damaged(f"a JPEG 2000 image of {tiles:,} tiles")
    _check_tile_parts(data, start + 4 + length, tiles)
    precision = max((part & 0x7F) + 1 for part in parts[::3])
    return FrameHeader(rows, columns, components, precision)


def _in_boxes(data: bytes) -> int:
    """Where the contiguous codestream of a JP2 file begins."""
    position = 0
    while position + 8 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        kind, header = data[position + 4 : position + 8], 8
        if length == 1:
            length = int.from_bytes(data[position + 8 : position + 16], "big")
            header = 16
        if kind == b"jp2c":
            return position + header
        if length < header:  # 0 is "to the end": no codestream follows
            raise _damaged("a JP2 file without a codestream")
        position += length
    raise _truncated("the JP2 file ends before its codestream")


def _check_tile_parts(data: bytes, position: int, tiles: int) -> None:
    """Go from tile-part to tile-part: the last must end within the data.

    The end marker itself is often left out, and not needed where every tile is there.
    """
    size, seen, parts_left = len(data), set[int](), 0
    while position + 4 <= size:
        marker, length = struct.unpack_from(">2H", data, position)
        if marker == _SOT:
            if position + 12 > size:
                break
            tile, part_length, part, parts = struct.unpack_from(">HIBB", data, position + 4)
            if part_length == 0:  # up to the end marker
                if data.rfind(_EOI, position) < 0:
                    break
                return
            if part_length < 14:
                raise _damaged("a JPEG 2000 tile-part of no length")
            seen.add(tile)
            parts_left = max(0, parts - part - 1)  # 0 parts: their number was not known yet
            position += part_length
        elif seen:  # the end marker, or padding in its place
            break
        elif marker < 0xFF00 or length < 2:
            raise _damaged("a JPEG 2000 marker is missing")
        else:
            position += 2 + length
    ended = bool(seen) and data[position : position + 2] == _EOI
    if position > size or not (ended or (len(seen) >= tiles and not parts_left)):
        raise _truncated("the JPEG 2000 codestream ends early")


def check_fragments(data: bytes) -> int:
    """The number of fragments of encapsulated pixel data, the offset table not counted.

    Raises
    ------
    CodestreamError : what stands there is no item, or an item ends after the data
    """
    position, items = 0, 0
    while position < len(data):
        tag, length = data[position : position + 4], data[position + 4 : position + 8]
        if tag == _DELIMITER:
            break
        if tag != _ITEM or length == _UNDEFINED:
            raise _damaged("the pixel data are not made of fragments")
        position += 8 + int.from_bytes(length, "little")
        if len(length) < 4 or position > len(data):
            raise _truncated("a fragment ends after the pixel data")
        items += 1
    return max(0, items - 1)


def rle_segments(data: bytes, plane_bytes: int, expected: int) -> list[tuple[int, int]]:
    """Begin and end of the segments of an RLE frame, in order.

    Parameters
    ----------
    plane_bytes : bytes that each segment holds when decoded
    expected : how many segments the DICOM header asks for

    Raises
    ------
    CodestreamError : the segments do not lie in the data, or cannot hold a plane
    """
    if len(data) < RLE_HEADER:
        raise _truncated("the RLE data end within their header")
    count, *offsets = struct.unpack_from("<16L", data)
    if count != expected:
        raise _damaged(f"{count} RLE segments where the header asks for {expected}")
    ends = [*offsets[1:count], len(data)]
    segments = list(zip(offsets[:count], ends, strict=True))
    for begin, end in segments:
        if end > len(data) or begin > len(data):
            raise _truncated("an RLE segment ends after its frame")
        if not RLE_HEADER <= begin <= end:
            raise _damaged("the RLE segments overlap")
        if end - begin < plane_bytes // _RLE_LEAST:
            raise _truncated("an RLE segment is too short for its plane")
        if end - begin > _RLE_MOST * plane_bytes + 1024:
            raise _damaged("an RLE segment is too long for its plane")
    return segments


def rle_decode(segment: bytes, plane_bytes: int) -> bytes:
    """The `plane_bytes` bytes of one RLE segment (PackBits); never more.

    Raises
    ------
    CodestreamError : the segment ends before
    """
    plane, position, size = bytearray(), 0, len(segment)
    while len(plane) < plane_bytes and position + 1 < size:
        control = segment[position]
        if control < 128:
            plane += segment[position + 1 : position + 2 + control]
            position += 2 + control
        else:
            if control > 128:
                plane += segment[position + 1 : position + 2] * (257 - control)
                position += 1
            position += 1
    if len(plane) < plane_bytes:
        raise _truncated("an RLE segment ends early")
    return bytes(plane[:plane_bytes])


def _damaged(what: str) -> CodestreamError:
    return CodestreamError("damaged_pixels", what)


def _truncated(what: str) -> CodestreamError:
    return CodestreamError("truncated", what)
