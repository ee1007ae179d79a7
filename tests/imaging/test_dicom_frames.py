"""Encapsulated frames: held against the header first, then decoded to the same values."""

from __future__ import annotations

import io
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pydicom
import pytest
from openjpeg.utils import encode_array
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import (
    MPEG4HP41,
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

from medcli.errors import ScanError
from medcli.imaging.decoders import DEFLATED_FRAMES
from medcli.imaging.dicom import read_image
from medcli.imaging.dicom_header import read_header
from medcli.imaging.discovery import find_scans
from medcli.imaging.isolation.inside import NeedsWorkerError
from medcli.imaging.reader import read_scan
from medcli.records import Case, Scan

GREY = np.random.default_rng(4).integers(0, 255, (40, 56), np.uint8)


def jpeg(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG")
    return stream.getvalue()


def deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


@pytest.fixture
def encapsulated(make_dicom: Callable[..., str]) -> Callable[..., str]:
    """Write a file whose pixel data are the given frames in a transfer syntax."""

    def make(frames: list[bytes], syntax: str, pixels: np.ndarray = GREY, **tags: Any) -> str:
        path = make_dicom("x.dcm", pixels, Modality="OT")
        dataset = pydicom.dcmread(path)
        for keyword, value in tags.items():
            setattr(dataset, keyword, value)
        dataset.PixelData = encapsulate(frames)
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True
        known = (
            JPEGBaseline8Bit if syntax == DEFLATED_FRAMES else syntax
        )  # pydicom's save is strict
        dataset.file_meta.TransferSyntaxUID = known
        dataset.save_as(path)
        if known != syntax:
            data, padded = Path(path).read_bytes(), syntax.encode().ljust(len(known), b"\0")
            Path(path).write_bytes(data.replace(known.encode(), padded))
        return path

    return make


@pytest.fixture
def no_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is refused by its header must never reach a decoder."""
    monkeypatch.setattr(
        "pydicom.pixels.decoders.base.Decoder.as_array", lambda *_, **__: pytest.fail("decoded")
    )


def failure(path: str) -> ScanError:
    with pytest.raises(ScanError) as caught:
        read_image(path)
    return caught.value


@pytest.mark.usefixtures("no_decoder")
@pytest.mark.parametrize(
    ("frame", "syntax", "code"),
    [
        (jpeg(GREY)[:-2], JPEGBaseline8Bit, "truncated"),
        (jpeg(GREY[:20]), JPEGBaseline8Bit, "damaged_pixels"),
        (jpeg(np.dstack([GREY] * 3)), JPEGBaseline8Bit, "damaged_pixels"),
        (encode_array(GREY)[:-9], JPEG2000Lossless, "truncated"),
        (encode_array(GREY.astype("u2") << 8), JPEG2000Lossless, "damaged_pixels"),
        (encode_array(np.tile(GREY, (50, 50))), JPEG2000Lossless, "damaged_pixels"),
        (b"\xff\xd8\xff\xf7", JPEGLSLossless, "truncated"),
        (b"not a codestream", JPEG2000Lossless, "damaged_pixels"),
        (b"\1\0\0\0", RLELossless, "truncated"),
        (bytes(64), RLELossless, "damaged_pixels"),
    ],
)
def test_a_frame_that_does_not_fit_its_header_is_refused_before_decoding(
    encapsulated: Any, frame: bytes, syntax: str, code: str
) -> None:
    assert failure(encapsulated([frame], syntax)).code == code


@pytest.mark.usefixtures("no_decoder")
def test_a_kilobyte_that_announces_a_huge_image_is_too_large(encapsulated: Any) -> None:
    """Header and codestream agree on 20,000²: 400 MB decoded, four times that in between."""
    black = bytearray(encode_array(np.zeros((64, 64), np.uint8)))
    for place in (8, 12, 24, 28):  # Xsiz, Ysiz, XTsiz, YTsiz
        black[place : place + 4] = (20_000).to_bytes(4, "big")
    error = failure(encapsulated([bytes(black)], JPEG2000Lossless, Rows=20_000, Columns=20_000))
    assert error.code == "too_large"


def test_a_large_black_image_is_no_bomb(encapsulated: Any) -> None:
    black = np.zeros((2048, 2048), np.uint8)
    path = encapsulated([encode_array(black)], JPEG2000Lossless, black)
    assert read_image(path).pixels.shape == (1, 2048, 2048, 1)


@pytest.mark.usefixtures("no_decoder")
@pytest.mark.parametrize("announced", [2, 100_000])
def test_frames_that_are_missing_are_a_truncation(encapsulated: Any, announced: int) -> None:
    path = encapsulated([jpeg(GREY)], JPEGBaseline8Bit, NumberOfFrames=announced)
    assert failure(path).code == "truncated"


def test_a_frame_in_several_fragments_is_one(encapsulated: Any) -> None:
    data = encode_array(GREY)
    path = encapsulated([data], JPEG2000Lossless)
    dataset = pydicom.dcmread(path)
    dataset.PixelData = encapsulate([data], fragments_per_frame=4)
    dataset.save_as(path)
    np.testing.assert_array_equal(read_image(path).pixels[0, ..., 0], GREY)


@pytest.mark.parametrize("kept", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
def test_a_compressed_file_that_was_cut_is_truncated(
    encapsulated: Any, syntax: str, kept: float
) -> None:
    path = encapsulated([encode_array(GREY)], JPEG2000Lossless)
    if syntax != JPEG2000Lossless:
        dataset = pydicom.dcmread(path)
        dataset.decompress()
        dataset.compress(syntax)
        dataset.save_as(path)
    data = Path(path).read_bytes()
    start = data.index(b"\xe0\x7f\x10\x00")
    Path(path).write_bytes(data[: start + int((len(data) - start) * kept)])
    assert failure(path).code == "truncated"


@pytest.mark.parametrize("bits", [8, 16])
def test_deflated_frames_are_inflated(encapsulated: Any, bits: int) -> None:
    frames = np.stack([GREY, GREY[::-1]]).astype(f"u{bits // 8}")
    data = [deflate(frame.tobytes()) for frame in frames]
    path = encapsulated(data, DEFLATED_FRAMES, frames)
    np.testing.assert_array_equal(read_image(path).pixels[..., 0], frames)


@pytest.mark.parametrize("shape", [(3, 7, 5), (2, 8, 16)], ids=["odd", "even"])
@pytest.mark.parametrize("syntax", [RLELossless, DEFLATED_FRAMES])
def test_single_bits_are_read_whatever_packs_them(
    encapsulated: Any, shape: tuple[int, ...], syntax: str
) -> None:
    """Every encoded frame begins with a byte of its own; native ones share bytes."""
    pixels = np.random.default_rng(6).integers(0, 2, shape, np.uint8)
    packed = [np.packbits(frame, bitorder="little").tobytes() for frame in pixels]
    if syntax == RLELossless:
        header = (1).to_bytes(4, "little") + (64).to_bytes(4, "little") + bytes(56)
        frames = [header + bytes([len(data) - 1]) + data for data in packed]
    else:
        frames = [deflate(data) for data in packed]
    path = encapsulated(frames, syntax, pixels, BitsAllocated=1, BitsStored=1, HighBit=0)
    np.testing.assert_array_equal(read_image(path).pixels[..., 0], pixels)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (deflate(bytes(10**7)), "damaged_pixels"),
        (deflate(GREY.tobytes())[:-40], "truncated"),
        (b"\xff" * 60, "damaged_pixels"),
    ],
    ids=["bomb", "cut", "damaged"],
)
def test_deflated_frames_never_inflate_beyond_their_image(
    encapsulated: Any, data: bytes, code: str
) -> None:
    assert failure(encapsulated([data], DEFLATED_FRAMES)).code == code


def deflated_file(path: str, surplus: int) -> str:
    """The file deflated, with so many zeros behind its data."""
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.file_meta.FileMetaInformationVersion = bytes(100_000)  # the syntax stands behind it
    dataset.save_as(path, implicit_vr=False, little_endian=True)
    data = Path(path).read_bytes()
    start = 144 + int.from_bytes(data[140:144], "little")
    native = zlib.decompress(data[start:], -zlib.MAX_WBITS)
    Path(path).write_bytes(data[:start] + deflate(native + bytes(surplus)))
    return path


@pytest.mark.parametrize("surplus", [10**6, 3 * 10**7])
def test_a_deflate_bomb_costs_no_more_than_a_header(
    make_dicom: Any, monkeypatch: pytest.MonkeyPatch, surplus: int
) -> None:
    monkeypatch.setattr("medcli.imaging.dicom_file.HEADER_BYTES", 2**16)
    path = deflated_file(make_dicom(Modality="CR"), surplus)
    tracemalloc.start()
    header = read_header(path)
    assert failure(path).code == "too_large"
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert header.transfer_syntax == DeflatedExplicitVRLittleEndian
    assert (header.rows, header.columns) == (8, 10)
    assert peak < 2**23


def test_a_deflated_image_may_be_larger_than_a_header(
    make_dicom: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medcli.imaging.dicom_file.HEADER_BYTES", 2**16)
    zeros = np.zeros((512, 512), np.uint16)
    path = deflated_file(make_dicom("x.dcm", zeros, Modality="CR"), 0)
    np.testing.assert_array_equal(read_image(path).pixels[0, ..., 0], zeros)


def test_gdcm_is_not_called_outside_of_workers(encapsulated: Any) -> None:
    path = encapsulated([jpeg(GREY)], "1.2.840.10008.1.2.4.70")
    with pytest.raises(NeedsWorkerError):
        read_image(path)


def test_video_is_skipped_and_says_so(encapsulated: Any) -> None:
    path = encapsulated([b"\0\0\1\xb3"], MPEG4HP41)
    (found,) = find_scans([path])
    assert not isinstance(found, Case)
    assert (found.status, found.code) == ("skipped", "unsupported_transfer_syntax")
    assert "MPEG" in found.message


def only(path: Path) -> Scan:
    (case,) = find_scans([str(path)])
    assert isinstance(case, Case)
    return read_scan(case)


@pytest.mark.real
@pytest.mark.parametrize(
    "name",
    [
        "pydicom_data/JPEG-LL.dcm",
        "pydicom_data/JPGLosslessP14SV1_1s_1f_8b.dcm",
        "pydicom_test_files/test_files/JPEG-lossy.dcm",
        "pydicom_test_files/test_files/JPGExtended.dcm",
        "pydicom_test_files/test_files/SC_rgb_jpeg_gdcm.dcm",
    ],
)
def test_lossless_and_twelve_bit_jpeg_agree_with_simpleitk(real_data: Path, name: str) -> None:
    import SimpleITK as sitk

    path = real_data / "dicom" / name
    scan = only(path)
    expected = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    expected = expected if expected.ndim == 4 else expected[..., np.newaxis]
    if scan.photometric == "MONOCHROME1":
        expected = int(expected.max()) + int(expected.min()) - expected.astype(int)
        assert np.ptp(scan.pixels.astype(int) - expected) == 0
    else:
        np.testing.assert_array_equal(scan.pixels, expected)
    assert scan.decoder is not None
    assert scan.decoder.startswith("python-gdcm 3.")


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("liver_rle.dcm", "liver_expb.dcm"),
        ("liver_deflate.dcm", "liver_expb.dcm"),
        ("liver_nonbyte_aligned_deflate.dcm", "liver_nonbyte_aligned_rle.dcm"),
    ],
)
def test_public_segmentations_hold_the_same_bits(real_data: Path, name: str, plain: str) -> None:
    folder = real_data / "dicom" / "pydicom_data"
    np.testing.assert_array_equal(only(folder / name).pixels, only(folder / plain).pixels)


def test_the_decoder_in_the_record_is_a_name_and_a_version(encapsulated: Any) -> None:
    image = read_image(encapsulated([jpeg(GREY)], JPEGBaseline8Bit))
    assert image.decoder == f"Pillow {PIL.__version__}"
