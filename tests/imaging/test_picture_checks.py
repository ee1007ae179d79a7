"""Pictures that are cut short, damaged, or not what they claim to be."""

from __future__ import annotations

import random
import struct
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medcli.errors import ScanError
from medcli.imaging.reader import read_scan

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (6, 5), np.uint8)
COLOUR = RNG.integers(0, 256, (6, 5, 3), np.uint8)
DEEP = RNG.integers(0, 2**16, (6, 5), np.uint16)

WHOLE: dict[str, tuple[np.ndarray, dict[str, Any]]] = {
    "grey.png": (GREY, {}),
    "deep.png": (DEEP, {}),
    "grey.jpg": (GREY, {}),
    "progressive.jpg": (COLOUR, {"progressive": True}),
    "plain.tif": (DEEP, {}),
    "float.tif": (GREY.astype(np.float32), {}),
    "lzw.tif": (COLOUR, {"compression": "tiff_lzw"}),
    "deflate.tif": (COLOUR, {"compression": "tiff_adobe_deflate"}),
    "jpeg.tif": (COLOUR, {"compression": "jpeg"}),
    "packbits.tif": (GREY, {"compression": "packbits"}),
    "big.tif": (GREY, {"big_tiff": True}),
    "bits.tif": (GREY > 99, {"compression": "group4"}),
    "grey.bmp": (GREY, {}),
    "colour.bmp": (COLOUR, {}),
    "bits.bmp": (GREY > 99, {}),
}


def code_of(path: Path, file_case: Any) -> str:
    with pytest.raises(ScanError) as caught:
        read_scan(file_case(path, "picture"))
    assert str(path) in caught.value.message
    return caught.value.code


@pytest.fixture(params=WHOLE)
def whole(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    pixels, options = WHOLE[request.param]
    path = tmp_path / request.param
    Image.fromarray(pixels).save(path, **options)
    return path


def test_every_cut_is_named_truncated(whole: Path, file_case: Any, capfd: Any) -> None:
    """From the end of the signature on; libraries say nothing of their own."""
    data = whole.read_bytes()
    signature = {".png": 8, ".jpg": 3, ".tif": 4, ".bmp": 18}[whole.suffix]
    for kept in {*range(signature, len(data), 3), *range(len(data) - 9, len(data))}:
        whole.write_bytes(data[:kept])
        assert code_of(whole, file_case) == "truncated", kept
    assert capfd.readouterr() == ("", "")


def test_every_flipped_bit_of_a_png_is_noticed(tmp_path: Path, file_case: Any) -> None:
    path, rng = tmp_path / "x.png", random.Random(0)
    Image.fromarray(GREY).save(path)
    data = path.read_bytes()
    for position in range(8, len(data)):
        changed = bytearray(data)
        changed[position] ^= 1 << rng.randrange(8)
        path.write_bytes(changed)
        assert code_of(path, file_case) in ("crc", "truncated")


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = [chunk(b"IHDR", header), *(chunk(*each) for each in chunks), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


@pytest.mark.parametrize("side", [20_000, 60_000])
def test_a_bomb_of_few_bytes_is_refused_by_its_header(
    tmp_path: Path, file_case: Any, monkeypatch: pytest.MonkeyPatch, side: int
) -> None:
    """The first is over Pillow's limit, the second over the budget as well."""
    monkeypatch.setattr(Image.Image, "load", lambda _: pytest.fail("decoded"))
    (tmp_path / "x.png").write_bytes(png(side, side, (b"IDAT", zlib.compress(bytes(99)))))
    assert code_of(tmp_path / "x.png", file_case) == "too_large"


def test_a_bomb_of_text_is_refused(tmp_path: Path, file_case: Any) -> None:
    text = b"comment\0\0" + zlib.compress(bytes(2**27), 9)
    data = png(1, 1, (b"zTXt", text), (b"IDAT", zlib.compress(bytes(2))))
    (tmp_path / "x.png").write_bytes(data)
    assert code_of(tmp_path / "x.png", file_case) == "damaged_pixels"


@pytest.mark.parametrize("kind", ["gif", "webp", "ppm", "svg", "pdf", "ico"])
@pytest.mark.parametrize("name", ["x.png", "x.jpg", "x.tif", "x.bmp"])
def test_no_other_format_is_opened_under_any_name(
    tmp_path: Path, file_case: Any, monkeypatch: pytest.MonkeyPatch, kind: str, name: str
) -> None:
    path = tmp_path / name
    if kind == "svg":
        path.write_text('<svg xmlns="http://www.w3.org/2000/svg"><rect width="9"/></svg>')
    elif kind == "pdf":
        path.write_bytes(b"%PDF-1.4\n1 0 obj\n<<>>\nendobj\n%%EOF\n")
    else:
        Image.fromarray(COLOUR).save(path, kind)
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("opened"))
    assert code_of(path, file_case) == "not_an_image"


def test_a_jpeg_of_twelve_bits_is_unsupported_and_not_damaged(
    tmp_path: Path, file_case: Any
) -> None:
    path = tmp_path / "x.jpg"
    Image.fromarray(GREY).save(path)
    data = bytearray(path.read_bytes())
    data[data.index(b"\xff\xc0") + 4] = 12  # the precision of the frame
    path.write_bytes(data)
    assert code_of(path, file_case) == "unsupported_pixels"


def test_a_jpeg_of_endless_segments_is_refused(tmp_path: Path, file_case: Any) -> None:
    (tmp_path / "x.jpg").write_bytes(b"\xff\xd8" + b"\xff\xe1\0\2" * 20_000)
    assert code_of(tmp_path / "x.jpg", file_case) == "damaged_header"


@pytest.mark.parametrize("seed", range(40))
def test_damaged_directories_end_in_a_code(tmp_path: Path, file_case: Any, seed: int) -> None:
    rng, path = random.Random(seed), tmp_path / "x.tif"
    Image.fromarray(DEEP).save(path, big_tiff=bool(seed % 2))
    data = bytearray(path.read_bytes())
    for _ in range(3):
        data[rng.randrange(4, min(180, len(data)))] = rng.choice((0, 1, 0x7F, 0xFF))
    path.write_bytes(data)
    with suppress(ScanError):
        read_scan(file_case(path, "picture"))
