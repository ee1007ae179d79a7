"""What becomes of depth, sign, transparency, ink, orientation and frames of a picture."""

from __future__ import annotations

import itertools
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from medcli.config import PreprocessConfig
from medcli.errors import ScanError
from medcli.imaging.nifti_writer import write_nifti
from medcli.imaging.preprocess import Preprocessor
from medcli.imaging.reader import read_scan
from medcli.records import Case, Scan

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (4, 5, 3), np.uint8)
DEEP = RNG.integers(0, 2**16, (9, 7, 4), np.uint16)
UNSIGNED, SIGNED, FLOAT = 1, 2, 3
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, CMYK, LAB = 0, 1, 2, 5, 8


def tiff(
    pixels: np.ndarray,
    *,
    photometric: int = BLACK_IS_ZERO,
    order: str = "<",
    bits: int | None = None,
    data: bytes | None = None,
    **fields: int | list[int],
) -> bytes:
    """A TIFF of one uncompressed strip, written by hand; `fields` as tag262=0."""
    height, width, channels = pixels.shape if pixels.ndim == 3 else (*pixels.shape, 1)
    kind = {"u": UNSIGNED, "i": SIGNED, "f": FLOAT}[pixels.dtype.kind]
    strip = data or pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    depth = [bits or pixels.dtype.itemsize * 8] * channels
    values = {256: [width], 257: [height], 258: depth, 259: [1], 262: [photometric], 273: [8]}
    values |= {277: [channels], 278: [height], 279: [len(strip)], 339: [kind] * channels}
    given = {int(name[3:]): value for name, value in fields.items()}
    values |= {tag: value if isinstance(value, list) else [value] for tag, value in given.items()}
    directory, beyond = b"", b""
    start = 8 + len(strip) + len(strip) % 2
    after = start + 2 + 12 * len(values) + 4
    for tag in sorted(values):
        raw = struct.pack(f"{order}{len(values[tag])}H", *values[tag])
        if len(raw) > 4:
            beyond, raw = beyond + raw, struct.pack(f"{order}I", after + len(beyond))
        directory += struct.pack(f"{order}HHI", tag, 3, len(values[tag])) + raw.ljust(4, b"\0")
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", start)
    body = (head + strip).ljust(start, b"\0")
    return body + struct.pack(f"{order}H", len(values)) + directory + bytes(4) + beyond


def png(
    lines: np.ndarray, depth: int, colour: int, *chunks: tuple[bytes, bytes], width: int = 0
) -> bytes:
    """A PNG written by hand: `lines` are the bytes or big-endian words of each row."""
    data = b"".join(b"\0" + row.tobytes() for row in lines)
    columns = width or lines.shape[1]
    header = struct.pack(">IIBBBBB", columns, len(lines), depth, colour, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(data)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in parts
    )


@pytest.fixture
def read(tmp_path: Path, file_case: Any) -> Any:
    """Read the bytes of a picture file."""

    def reader(data: bytes) -> Any:
        (tmp_path / "x").write_bytes(data)
        return read_scan(file_case(tmp_path / "x", "picture"))

    return reader


@pytest.mark.parametrize(
    ("dtype", "order"),
    [
        *itertools.product([np.uint16, np.int16, np.int32, np.float32], ["<", ">"]),
        (np.uint32, "<"),
    ],
)
def test_numbers_of_a_tiff_stay_whole_in_both_byte_orders(
    read: Any, order: str, dtype: Any
) -> None:
    low, high = (-9, 9) if dtype == np.float32 else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    pixels = np.linspace(low, high, 20).astype(dtype).reshape(4, 5)
    scan = read(tiff(pixels, order=order))
    assert scan.unit == "stored"
    np.testing.assert_array_equal(scan.pixels[0, ..., 0], pixels.astype(scan.pixels.dtype))
    assert np.ptp(scan.pixels.astype(float)) == pytest.approx(np.ptp(pixels.astype(float)))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.int32, np.float32])
def test_compressed_numbers_of_a_tiff_stay_whole_in_both_byte_orders(
    read: Any, order: str, dtype: Any
) -> None:
    """Pillow by itself swaps all but the unsigned ones."""
    low, high = (-9, 9) if dtype == np.float32 else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    pixels = np.linspace(low, high, 20).astype(dtype).reshape(4, 5)
    packed = zlib.compress(pixels.astype(np.dtype(dtype).newbyteorder(order)).tobytes())
    scan = read(tiff(pixels, order=order, data=packed, tag259=8))
    np.testing.assert_array_equal(scan.pixels[0, ..., 0], pixels.astype(scan.pixels.dtype))


def test_twelve_packed_bits_are_read(read: Any) -> None:
    pixels = RNG.integers(0, 4096, (4, 6), np.uint16)
    packed = b"".join(
        int(f"{a:03x}{b:03x}", 16).to_bytes(3, "big") for a, b in pixels.reshape(-1, 2)
    )
    scan = read(tiff(pixels, bits=12, data=packed))
    np.testing.assert_array_equal(scan.pixels[0, ..., 0], pixels)


@pytest.mark.parametrize(("dtype", "top"), [(np.uint8, 255), (np.uint16, 65535)])
def test_values_are_inverted_where_white_is_zero(read: Any, dtype: Any, top: int) -> None:
    pixels = RNG.integers(0, top + 1, (4, 5)).astype(dtype)
    scan = read(tiff(pixels, photometric=WHITE_IS_ZERO))
    np.testing.assert_array_equal(scan.pixels[0, ..., 0], top - pixels)


def test_not_a_number_in_a_tiff_is_replaced_and_counted(read: Any, codes: Any) -> None:
    scan = read(tiff(np.array([[1.5, np.nan], [np.inf, -2]], np.float32)))
    assert scan.pixels[0, ..., 0].tolist() == [[1.5, -2], [-2, -2]]
    assert codes(scan) == ["nan_replaced"]
    with pytest.raises(ScanError) as caught:
        read(tiff(np.full((2, 2), np.nan, np.float32)))
    assert caught.value.code == "damaged_pixels"


@pytest.mark.parametrize(
    "data",
    [
        tiff(np.ones((4, 5), np.float64)),
        tiff(np.ones((4, 5), np.float16)),
        tiff(np.ones((4, 5), np.int8)),
        tiff(np.ones((4, 5), np.int16), photometric=WHITE_IS_ZERO),
        tiff(np.ones((4, 5), np.uint32), order=">"),
        tiff(np.ones((4, 5, 9), np.uint8)),
    ],
    ids=["float64", "float16", "int8", "negative int16", "big-endian uint32", "nine channels"],
)
def test_layouts_that_pillow_misreads_or_cannot_are_unsupported(read: Any, data: bytes) -> None:
    with pytest.raises(ScanError) as caught:
        read(data)
    assert caught.value.code == "unsupported_pixels"


def test_ink_becomes_light(read: Any) -> None:
    ink = RNG.integers(0, 256, (4, 5, 4), np.uint8)
    scan = read(tiff(ink, photometric=CMYK))
    expected = (255 - ink[..., :3].astype(float)) * (255 - ink[..., 3:].astype(float)) / 255
    np.testing.assert_allclose(scan.pixels[0], expected, atol=1)


@pytest.mark.parametrize(
    ("lab", "expected"),
    [((255, 0, 0), (255, 255, 255)), ((128, 0, 0), (119, 119, 119)), ((136, 81, 70), (255, 0, 0))],
)
def test_lab_colour_becomes_rgb(read: Any, lab: tuple[int, ...], expected: tuple[int, ...]) -> None:
    """White, L* of 50, and the red of sRGB: L* 53, a* 80, b* 67."""
    scan = read(tiff(np.full((4, 5, 3), lab, np.uint8), photometric=LAB))
    shown = np.broadcast_to(scan.pixels[0, 0, 0].astype(int), 3)  # grey has one channel
    np.testing.assert_allclose(shown, expected, atol=5)


@pytest.mark.parametrize("extra", [1, 2], ids=["premultiplied", "plain"])
def test_transparency_is_laid_on_black_whether_multiplied_in_or_not(read: Any, extra: int) -> None:
    alpha = np.full((4, 5, 1), 128, np.uint8)
    shown = COLOUR * (128 / 255)
    layer = np.rint(shown).astype(np.uint8) if extra == 1 else COLOUR
    scan = read(tiff(np.dstack([layer, alpha]), photometric=RGB, tag338=extra))
    np.testing.assert_allclose(scan.pixels[0], shown, atol=2)


def test_grey_with_transparency_stays_grey(read: Any) -> None:
    grey = RNG.integers(0, 256, (4, 5, 2), np.uint8)
    scan = read(png(grey, 8, 4))
    assert scan.pixels.shape == (1, 4, 5, 1)
    np.testing.assert_allclose(scan.pixels[0, ..., 0], grey[..., 0] * (grey[..., 1] / 255), atol=1)


@pytest.mark.parametrize("depth", [8, 16])
def test_a_transparent_grey_level_becomes_black(read: Any, depth: int) -> None:
    grey = np.arange(20).reshape(4, 5) * (2**depth // 20)
    chosen = int(grey[1, 1])
    lines = grey.astype(np.uint8 if depth == 8 else ">u2")
    scan = read(png(lines, depth, 0, (b"tRNS", struct.pack(">H", chosen))))
    np.testing.assert_array_equal(scan.pixels[0, ..., 0], np.where(grey == chosen, 0, grey))


def test_a_palette_with_transparency_becomes_rgb_on_black(read: Any) -> None:
    palette = RNG.integers(0, 256, (4, 3), np.uint8)
    indices = RNG.integers(0, 4, (4, 5), np.uint8)
    alpha = np.array([0, 128, 255, 255])
    chunks = (b"PLTE", palette.tobytes()), (b"tRNS", bytes([0, 128]))
    expected = (palette * (alpha[:, np.newaxis] / 255))[indices]
    np.testing.assert_allclose(read(png(indices, 8, 3, *chunks)).pixels[0], expected, atol=1)


TURNED = {
    1: lambda image: image,
    2: np.fliplr,
    3: lambda image: np.rot90(image, 2),
    4: np.flipud,
    5: lambda image: image.swapaxes(0, 1),
    6: lambda image: np.rot90(image, -1),
    7: lambda image: np.rot90(image, 2).swapaxes(0, 1),
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("kind", ["tiff", "deep tiff", "png", "jpeg"])
def test_every_orientation_is_applied_once(
    read: Any, tmp_path: Path, kind: str, orientation: int
) -> None:
    smooth = np.add.outer(np.arange(16) * 9, np.arange(24) * 4).astype(np.uint8)
    if kind.endswith("tiff"):
        pixels = smooth.astype(np.uint16) * 200 if kind == "deep tiff" else smooth
        data = tiff(pixels, tag274=orientation)
    else:
        exif = Image.Exif()
        exif[0x0112] = orientation
        path, pixels = tmp_path / "saved", smooth
        options = {"quality": 98} if kind == "jpeg" else {}
        Image.fromarray(smooth).save(path, kind, exif=exif, **options)
        data = path.read_bytes()
    turned = TURNED[orientation](pixels)
    np.testing.assert_allclose(
        read(data).pixels[0, ..., 0].astype(int), turned.astype(int), atol=3 * (kind == "jpeg")
    )


def test_progressive_jpeg_shows_what_baseline_shows(read: Any, tmp_path: Path) -> None:
    picture = Image.fromarray(np.kron(COLOUR, np.ones((8, 8, 1), np.uint8)))
    shown = []
    for progressive in (False, True):
        picture.save(tmp_path / "saved", "jpeg", quality=90, progressive=progressive)
        shown.append(read((tmp_path / "saved").read_bytes()).pixels)
    np.testing.assert_array_equal(*shown)


@pytest.mark.parametrize("kind", ["png", "tiff", "mpo"])
def test_of_animations_pages_and_pairs_the_first_is_read(
    read: Any, codes: Any, tmp_path: Path, kind: str
) -> None:
    """An MPO, as cameras write it, is a JPEG with more behind."""
    first = np.add.outer(np.arange(16) * 9, np.arange(24) * 4).astype(np.uint8)
    frames = [Image.fromarray(frame) for frame in (first, 255 - first)]
    options = {"quality": 98} if kind == "mpo" else {}
    frames[0].save(tmp_path / "saved", kind, save_all=True, append_images=frames[1:], **options)
    scan = read((tmp_path / "saved").read_bytes())
    np.testing.assert_allclose(scan.pixels[0, ..., 0].astype(int), first, atol=3 * (kind == "mpo"))
    assert codes(scan) == ["first_frame"]


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_few_grey_levels_span_black_to_white(read: Any, depth: int) -> None:
    levels = np.arange(8) % 2**depth
    bits = "".join(f"{level:0{depth}b}" for level in levels)
    packed = np.frombuffer(int(bits, 2).to_bytes(depth, "big"), np.uint8)
    scan = read(png(packed[np.newaxis], depth, 0, width=8))
    np.testing.assert_array_equal(scan.pixels[0, 0, :, 0], levels * 255 // (2**depth - 1))


# Colour and transparency of 16 bits a channel


def deep_png(values: np.ndarray, colour: int, *chunks: tuple[bytes, bytes]) -> bytes:
    lines = values.astype(">u2").reshape(len(values), -1)
    return png(lines, 16, colour, *chunks, width=values.shape[1])


def whole(scan: Scan) -> np.ndarray:
    """The 16 bits of a colour picture."""
    assert (scan.unit, scan.pixels.dtype, scan.warnings) == ("display", np.float32, ())
    return np.rint(scan.pixels[0] * np.float32(257)).astype(int)


def test_a_png_is_read_as_simpleitk_reads_it(read: Any, tmp_path: Path) -> None:
    scan = read(deep_png(DEEP[..., :3], 2))
    (tmp_path / "x.png").write_bytes((tmp_path / "x").read_bytes())
    expected = sitk.GetArrayFromImage(sitk.ReadImage(tmp_path / "x.png"))
    np.testing.assert_array_equal(whole(scan), expected)
    np.testing.assert_array_equal(whole(scan), DEEP[..., :3])


def test_filtered_lines_are_read(tmp_path: Path, file_case: Any) -> None:
    """ITK filters the lines of the PNG that it writes."""
    steps = RNG.integers(0, 50, (40, 30, 3))
    smooth = np.cumsum(np.cumsum(steps, 0), 1).astype(np.uint16)
    sitk.WriteImage(sitk.GetImageFromArray(smooth, isVector=True), tmp_path / "x.png")
    scan = read_scan(file_case(tmp_path / "x.png", "picture"))
    np.testing.assert_array_equal(whole(scan), smooth)


def test_interlaced_lines_are_read(read: Any) -> None:
    """The seven passes of Adam7, without filters."""
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
              (0, 1, 1, 2))  # fmt: skip
    colour = DEEP[..., :3].astype(">u2")
    parts = [colour[y::down, x::right] for x, y, right, down in passes]
    lines = b"".join(b"\0" + line.tobytes() for part in parts if part.size for line in part)
    plain = deep_png(colour, 2)
    header = struct.pack(">IIBBBBB", 7, 9, 16, 2, 0, 0, 1)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b""))
    data = plain[:8] + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )
    np.testing.assert_array_equal(whole(read(data)), colour)


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_tiff_is_whole_in_both_byte_orders(read: Any, order: str) -> None:
    np.testing.assert_array_equal(
        whole(read(tiff(DEEP[..., :3], photometric=RGB, order=order))), DEEP[..., :3]
    )


@pytest.mark.parametrize("compression", ["LZW", "Deflate", "PackBits"])
def test_a_compressed_tiff_is_whole(tmp_path: Path, file_case: Any, compression: str) -> None:
    writer = sitk.ImageFileWriter()
    writer.SetFileName(str(tmp_path / "x.tif"))
    writer.SetUseCompression(True)
    writer.SetCompressor(compression)
    writer.Execute(sitk.GetImageFromArray(DEEP[..., :3], isVector=True))
    scan = read_scan(file_case(tmp_path / "x.tif", "picture"))
    np.testing.assert_array_equal(whole(scan), DEEP[..., :3])


@pytest.mark.parametrize("kind", ["png", "tiff", "premultiplied"])
def test_transparency_is_laid_on_black(read: Any, kind: str) -> None:
    shown = DEEP[..., :3] * (DEEP[..., 3:] / 65535)
    if kind == "png":
        data = deep_png(DEEP, 6)
    elif kind == "tiff":
        data = tiff(DEEP, photometric=RGB, tag338=2)
    else:
        layer = np.dstack([np.rint(shown).astype(np.uint16), DEEP[..., 3:]])
        data = tiff(layer, photometric=RGB, tag338=1)
    np.testing.assert_array_equal(whole(read(data)), np.rint(shown))


def test_grey_with_transparency_keeps_all_bits_and_is_grey(read: Any) -> None:
    scan = read(deep_png(DEEP[..., :2], 4))
    expected = np.rint(DEEP[..., 0] * (DEEP[..., 1] / 65535))
    assert (scan.unit, scan.warnings) == ("stored", ())
    np.testing.assert_array_equal(scan.pixels[0, ..., 0], expected)


def test_a_transparent_colour_is_black(read: Any) -> None:
    chunk = (b"tRNS", DEEP[..., :3][2, 3].astype(">u2").tobytes())
    expected = DEEP[..., :3].copy()
    expected[2, 3] = 0
    np.testing.assert_array_equal(whole(read(deep_png(DEEP[..., :3], 2, chunk))), expected)


def test_the_orientation_is_applied(read: Any) -> None:
    scan = read(tiff(DEEP[..., :3], photometric=RGB, tag274=3))
    np.testing.assert_array_equal(whole(scan), DEEP[..., :3][::-1, ::-1])


def test_channels_that_agree_are_grey_and_still_0_to_255(read: Any) -> None:
    grey = np.repeat(DEEP[..., :3][..., :1], 3, axis=2)
    scan = read(deep_png(grey, 2))
    assert scan.pixels.shape == (1, 9, 7, 1)
    np.testing.assert_array_equal(whole(scan), grey[..., :1])


def test_a_stack_of_colour_of_eight_and_of_sixteen_bits_is_one(tmp_path: Path) -> None:
    eight = RNG.integers(0, 256, DEEP[..., :3].shape, np.uint8)
    (tmp_path / "a").write_bytes(png(eight.reshape(9, -1), 8, 2, width=7))
    (tmp_path / "b").write_bytes(deep_png(DEEP[..., :3], 2))
    files = (str(tmp_path / "a"), str(tmp_path / "b"))
    scan = read_scan(Case("x", files, "picture", "x"))
    np.testing.assert_array_equal(scan.pixels[0], eight)
    np.testing.assert_allclose(scan.pixels[1], DEEP[..., :3] / 257, rtol=1e-6)


def test_inks_are_reduced_and_said_so(read: Any, codes: Any) -> None:
    scan = read(tiff(DEEP, photometric=CMYK))
    assert codes(scan) == ["reduced_bits"]
    upper = 255 - (DEEP >> 8).astype(float)
    np.testing.assert_allclose(scan.pixels[0], upper[..., :3] * upper[..., 3:] / 255, atol=1)


def planes(*, packed: bool) -> bytes:
    """A TIFF whose channels are stored one after the other."""
    parts = [plane.astype("<u2").tobytes() for plane in np.moveaxis(DEEP[..., :3], -1, 0)]
    parts = [zlib.compress(part) for part in parts] if packed else parts
    starts = np.cumsum([8, *map(len, parts)])[:3].tolist()
    lengths = list(map(len, parts))
    compression = 8 if packed else 1
    return tiff(
        DEEP[..., :3], photometric=RGB, data=b"".join(parts), tag259=compression, tag284=2,
        tag273=starts, tag279=lengths,
    )  # fmt: skip


def test_compressed_planes_are_reduced_and_said_so(read: Any, codes: Any) -> None:
    scan = read(planes(packed=True))
    assert codes(scan) == ["reduced_bits"]
    np.testing.assert_array_equal(scan.pixels[0], DEEP[..., :3] >> 8)


def test_plain_planes_which_pillow_misreads_are_refused(read: Any) -> None:
    with pytest.raises(ScanError) as caught:
        read(planes(packed=False))
    assert caught.value.code == "unsupported_pixels"


def test_a_model_sees_a_deep_picture_as_its_copy_of_eight_bits(read: Any) -> None:
    """To half a step of 255: white is white in both."""
    preprocessor = Preprocessor(PreprocessConfig(size=32, channels=3))
    eight = np.rint(DEEP[..., :3] / 257).astype(np.uint8)
    deep = preprocessor.unit_input(read(deep_png(DEEP[..., :3], 2)))
    plain = preprocessor.unit_input(read(png(eight.reshape(9, -1), 8, 2, width=7)))
    assert np.abs(deep - plain).max() <= 1.01 / 255


def test_nifti_holds_a_deep_picture_in_eight_bits(read: Any, tmp_path: Path) -> None:
    scan = read(deep_png(DEEP[..., :3], 2))
    write_nifti(tmp_path / "x.nii", scan)
    back = sitk.GetArrayFromImage(sitk.ReadImage(tmp_path / "x.nii"))
    np.testing.assert_array_equal(back.reshape(9, 7, 3), np.rint(DEEP[..., :3] / 257))
