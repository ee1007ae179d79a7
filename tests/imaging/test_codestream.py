"""What codestreams announce, beside what their encoders were given; and where they end."""

from __future__ import annotations

import contextlib
import io
import struct
from collections.abc import Callable
from typing import Any

import jpeg_ls
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openjpeg.utils import encode_array
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.pixels.encoders.native import _encode_segment

from medcli.imaging.codestream import (
    CodestreamError,
    FrameHeader,
    check_fragments,
    jpeg2000_header,
    jpeg_header,
    rle_decode,
    rle_segments,
)

GREY = np.random.default_rng(3).integers(0, 255, (40, 56), np.uint8)


def saved(pixels: np.ndarray, **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, **options)
    return stream.getvalue()


STREAMS: dict[str, tuple[Callable[[bytes], FrameHeader], bytes, tuple[int, int, int, int]]] = {
    "jpeg": (jpeg_header, saved(GREY, format="JPEG"), (40, 56, 1, 8)),
    "progressive": (jpeg_header, saved(GREY, format="JPEG", progressive=True), (40, 56, 1, 8)),
    "colour": (jpeg_header, saved(np.dstack([GREY] * 3), format="JPEG"), (40, 56, 3, 8)),
    "jpeg-ls": (jpeg_header, jpeg_ls.encode(GREY).tobytes(), (40, 56, 1, 8)),
    "jpeg-ls 16": (jpeg_header, jpeg_ls.encode(GREY.astype("u2") << 7).tobytes(), (40, 56, 1, 15)),
    "jpeg 2000": (jpeg2000_header, encode_array(GREY), (40, 56, 1, 8)),
    "jpeg 2000 16": (jpeg2000_header, encode_array(GREY.astype("u2") << 8), (40, 56, 1, 16)),
    "jp2": (jpeg2000_header, saved(np.dstack([GREY] * 3), format="JPEG2000"), (40, 56, 3, 8)),
    "tiles": (
        jpeg2000_header,
        saved(GREY, format="JPEG2000", tile_size=(16, 16), no_jp2=True),
        (40, 56, 1, 8),
    ),
}


@pytest.mark.parametrize("name", STREAMS)
def test_size_and_depth_are_those_given_to_the_encoder(name: str) -> None:
    read, data, expected = STREAMS[name]
    found = read(data)
    assert (found.rows, found.columns, found.components, found.precision) == expected
    assert found.least_bytes <= len(data)


@pytest.mark.parametrize("name", STREAMS)
def test_padding_behind_the_end_does_no_harm(name: str) -> None:
    read, data, _ = STREAMS[name]
    assert read(data + b"\0") == read(data)


@pytest.mark.parametrize("name", STREAMS)
def test_no_cut_goes_unnoticed(name: str) -> None:
    read, data, _ = STREAMS[name]
    end = len(data) - (2 if read is jpeg2000_header else 0)  # JPEG 2000 needs no end marker
    for length in range(end):
        with pytest.raises(CodestreamError):
            read(data[:length])


@pytest.mark.parametrize("name", STREAMS)
def test_a_cut_behind_the_header_is_a_truncation(name: str) -> None:
    read, data, _ = STREAMS[name]
    with pytest.raises(CodestreamError) as caught:
        read(data[: len(data) * 3 // 4])
    assert caught.value.code == "truncated"


def siz(**changed: int) -> bytes:
    """A JPEG 2000 codestream of one empty tile-part."""
    sizes = {"x": 64, "y": 32, "x0": 0, "y0": 0, "tw": 64, "th": 32, "tx": 0, "ty": 0} | changed
    components = sizes.pop("components", 1)
    body = struct.pack(">H8IH", 0, *sizes.values(), components) + b"\x0b\1\1" * components
    tile_part = struct.pack(">HHHIBBH", 0xFF90, 10, 0, 14, 0, 1, 0xFF93)
    return b"\xff\x4f\xff\x51" + struct.pack(">H", len(body) + 2) + body + tile_part + b"\xff\xd9"


def test_the_offset_of_a_jpeg_2000_image_is_no_part_of_it() -> None:
    found = jpeg2000_header(siz(x=100, y=50, x0=36, y0=18))
    assert (found.rows, found.columns, found.precision) == (32, 64, 12)


@pytest.mark.parametrize(
    "changed",
    [
        {"x": 0},
        {"y0": 32},
        {"tw": 0},
        {"tw": 1, "th": 1, "x": 4096, "y": 4096},
        {"tx": 8},
        {"components": 0},
    ],
)
def test_impossible_jpeg_2000_sizes_are_damage(changed: dict[str, int]) -> None:
    with pytest.raises(CodestreamError) as caught:
        jpeg2000_header(siz(**changed))
    assert caught.value.code == "damaged_pixels"


def test_a_jpeg_cannot_be_smaller_than_its_image() -> None:
    start = b"\xff\xd8\xff\xc0" + struct.pack(">HBHHB3x", 11, 8, 60000, 60000, 1)
    found = jpeg_header(start + b"\xff\xda\0\2\xff\xd9")
    assert found.least_bytes > 3_000_000


@pytest.mark.parametrize("reader", [jpeg_header, jpeg2000_header])
@given(data=st.binary(max_size=80))
def test_anything_is_read_or_refused(reader: Callable[[bytes], object], data: bytes) -> None:
    for start in (b"", b"\xff\xd8", b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  \r\n\x87\n"):
        with contextlib.suppress(CodestreamError):
            reader(start + data)


def test_fragments_are_counted_without_their_table() -> None:
    data = encapsulate([b"ab", b"cdef", b"gh"], has_bot=True)
    assert check_fragments(data) == 3
    with pytest.raises(CodestreamError) as caught:
        check_fragments(data[:-1])
    assert caught.value.code == "truncated"
    with pytest.raises(CodestreamError) as caught:
        check_fragments(b"no fragments")
    assert caught.value.code == "damaged_pixels"


def rle_frame(*segments: bytes, offsets: tuple[int, ...] = ()) -> bytes:
    starts = np.cumsum([64, *map(len, segments)])[:-1].tolist()
    chosen = [*(offsets or starts), *[0] * (15 - len(segments))]
    return struct.pack("<16L", len(segments), *chosen) + b"".join(segments)


def test_rle_segments_lie_one_behind_the_other() -> None:
    assert rle_segments(rle_frame(b"a" * 10, b"b" * 8), 8, 2) == [(64, 74), (74, 82)]


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (rle_frame(b"a" * 10)[:50], "truncated"),
        (rle_frame(b"a" * 10, b"b" * 8), "damaged_pixels"),
        (rle_frame(b"a" * 10, offsets=(80,)), "truncated"),
        (rle_frame(b"a" * 10, offsets=(60,)), "damaged_pixels"),
        (rle_frame(b"a" * 10), "truncated"),
        (rle_frame(b"a" * 20_000), "damaged_pixels"),
    ],
    ids=["header cut", "two segments", "behind the end", "in the header", "too short", "too long"],
)
def test_rle_segments_that_cannot_hold_the_image_are_refused(frame: bytes, code: str) -> None:
    plane = 1000 if len(frame) > 1000 or frame.endswith(b"a") else 8
    with pytest.raises(CodestreamError) as caught:
        rle_segments(frame, plane, 1)
    assert caught.value.code == code


@given(rows=st.lists(st.binary(min_size=5, max_size=5), min_size=1, max_size=30))
def test_rle_comes_back_as_pydicom_packed_it(rows: list[bytes]) -> None:
    plane = np.frombuffer(b"".join(rows), np.uint8)
    packed = bytes(_encode_segment(plane.tobytes(), 5))
    assert rle_decode(packed, plane.size) == plane.tobytes()


def test_rle_never_gives_more_than_its_plane() -> None:
    assert rle_decode(b"\x81\x07" * 1000, 200) == b"\7" * 200
    with pytest.raises(CodestreamError):
        rle_decode(b"\x81\x07", 200)
