"""Colour of DICOM files, against pydicom, Pillow and equations written out by hand."""

from __future__ import annotations

import io
import random
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openjpeg.utils import encode_array
from PIL import Image
from pydicom.data import get_palette_files
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_color_lut, convert_color_space
from pydicom.uid import (
    ExplicitVRBigEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

from medcli.errors import ScanError
from medcli.imaging.dicom import read_image
from medcli.imaging.dicom_lut import descriptor, expanded

NAMES = ("Red", "Green", "Blue")
RGB = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)


def smooth(rows: int = 64, columns: int = 48) -> np.ndarray:
    """(H, W, 3) a picture that survives lossy compression."""
    y, x = np.mgrid[:rows, :columns] / max(rows, columns)
    return np.stack([200 * y, 255 * x, 120 + 100 * np.sin(3 * y)], axis=2).astype(np.uint8)


def lookup_tables(
    tables: Sequence[np.ndarray], first: int = 0, bits: int = 16, segmented: bool = False
) -> dict[str, Any]:
    """The tags of three lookup tables."""
    count = 256 if segmented else len(tables[0]) % 2**16
    tags: dict[str, Any] = {}
    for name, table in zip(NAMES, tables, strict=True):
        prefix = f"{name}PaletteColorLookupTable"
        tags[f"{prefix}Descriptor"] = [count, first, bits]
        data = table.astype("<u2" if bits == 16 else np.uint8).tobytes()
        keyword = f"Segmented{prefix}Data" if segmented else f"{prefix}Data"
        tags[keyword] = data + b"\0" * (len(data) % 2)
    return tags


def palette_file(make_dicom: Any, stored: np.ndarray, tags: dict[str, Any]) -> str:
    made: str = make_dicom(
        "x.dcm", stored, Modality="US", PhotometricInterpretation="PALETTE COLOR", **tags
    )
    return made


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16])
@pytest.mark.parametrize(("count", "first"), [(256, 0), (200, 20), (3, 250), (1, 7)])
def test_palettes_agree_with_pydicom(make_dicom: Any, dtype: type, count: int, first: int) -> None:
    rng = np.random.default_rng(count)
    stored = rng.integers(0, 256, (6, 7)).astype(dtype)
    tables = rng.integers(256, 2**16, (3, count), np.uint16)
    path = palette_file(make_dicom, stored, lookup_tables(tables, first))
    expected = apply_color_lut(stored, pydicom.dcmread(path)) >> 8
    image = read_image(path)
    assert image.unit == "display"
    np.testing.assert_array_equal(image.pixels[0], expected)


@pytest.mark.parametrize("count", [256, 255])
def test_tables_of_eight_bits_agree_with_pydicom(make_dicom: Any, count: int) -> None:
    rng = np.random.default_rng(0)
    stored = rng.integers(0, count, (6, 7), np.uint8)
    path = palette_file(make_dicom, stored, lookup_tables(rng.integers(0, 256, (3, count)), bits=8))
    expected = np.stack([rng_table[stored] for rng_table in _tables_of(path, count)], axis=-1)
    np.testing.assert_array_equal(read_image(path).pixels[0], expected)


def _tables_of(path: str, count: int) -> list[np.ndarray]:
    dataset = pydicom.dcmread(path)
    data = [dataset[f"{name}PaletteColorLookupTableData"].value for name in NAMES]
    return [np.frombuffer(each, np.uint8)[:count] for each in data]


def test_a_table_of_all_sixteen_bit_values_is_read(make_dicom: Any) -> None:
    """Its number of entries, 65536, does not fit and is written as 0."""
    stored = np.array([[0, 40000], [65535, 1]], np.uint16)
    table = np.arange(2**16)
    path = palette_file(make_dicom, stored, lookup_tables([table, table[::-1], table // 2]))
    expected = np.stack([stored >> 8, (65535 - stored) >> 8, stored >> 9], axis=-1)
    np.testing.assert_array_equal(read_image(path).pixels[0], expected)


def test_a_palette_of_signed_pixels_may_begin_below_zero(make_dicom: Any) -> None:
    stored = np.array([[-5, -4], [0, 9]], np.int16)
    table = np.arange(10) * 256
    path = palette_file(make_dicom, stored, lookup_tables([table] * 3, first=-5))
    expected = np.repeat([[[0], [1]], [[5], [9]]], 3, axis=2)
    np.testing.assert_array_equal(read_image(path).pixels[0], expected)


@pytest.mark.parametrize(
    ("kind", "written", "meant"),
    [
        ("US", [10, 2**16 - 5, 16], (10, -5, 16)),
        ("SS", [10, -5, 8], (10, -5, 8)),
        ("US", [0, 3, 16], (2**16, 3, 16)),
    ],
)
def test_a_descriptor_is_understood_in_either_sign(
    kind: str, written: list[int], meant: tuple[int, int, int]
) -> None:
    dataset = pydicom.Dataset()
    dataset.add_new("LUTDescriptor", kind, written)
    assert descriptor(dataset, "LUTDescriptor", signed=True) == meant


def test_sixteen_bit_entries_that_hold_bytes_are_not_shifted_away(make_dicom: Any) -> None:
    stored = np.arange(4, dtype=np.uint8).reshape(2, 2)
    tables = np.array([[9, 8, 7, 255], [0, 1, 2, 3], [5, 5, 5, 5]])
    path = palette_file(make_dicom, stored, lookup_tables(tables))
    np.testing.assert_array_equal(read_image(path).pixels[0], tables[:, stored].transpose(1, 2, 0))


def test_palettes_of_big_endian_files_are_swapped(make_dicom: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    stored = rng.integers(0, 256, (6, 8), np.uint8)
    tables = rng.integers(0, 2**16, (3, 256), np.uint16)
    dataset = pydicom.dcmread(palette_file(make_dicom, stored, lookup_tables(tables)))
    for name, table in zip(NAMES, tables, strict=True):
        setattr(dataset, f"{name}PaletteColorLookupTableData", table.astype(">u2").tobytes())
    dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    path = tmp_path / "big.dcm"
    pydicom.dcmwrite(path, dataset, implicit_vr=None, little_endian=None)
    expected = (tables >> 8)[:, stored].transpose(1, 2, 0)
    np.testing.assert_array_equal(read_image(str(path)).pixels[0], expected)


@pytest.mark.parametrize("name", ["spring", "summer", "fall", "winter", "hotiron", "pet"])
def test_the_palettes_of_the_standard_agree_with_pydicom(make_dicom: Any, name: str) -> None:
    """Four of them are segmented."""
    palette = pydicom.dcmread(get_palette_files(f"{name}.dcm")[0])
    tags = {each.keyword: each.value for each in palette if "LookupTable" in each.keyword}
    stored = np.arange(256, dtype=np.uint8).reshape(16, 16)
    path = palette_file(make_dicom, stored, tags)
    expected = apply_color_lut(stored, palette)[..., :3]
    np.testing.assert_array_equal(read_image(path).pixels[0], expected)


@pytest.mark.parametrize("bits", [8, 16])
def test_segments_agree_with_pydicom(make_dicom: Any, bits: int) -> None:
    top = 2**bits - 1
    segments = np.array([0, 3, 5, top, 9, 1, 100, top, 1, 100, 0, 0, 53, *range(53)])
    stored = np.arange(256, dtype=np.uint8).reshape(16, 16)
    path = palette_file(
        make_dicom, stored, lookup_tables([segments] * 3, bits=bits, segmented=True)
    )
    expected = apply_color_lut(stored, pydicom.dcmread(path)) >> (bits - 8)
    np.testing.assert_array_equal(read_image(path).pixels[0], expected)


def test_an_indirect_segment_repeats_others_from_the_last_value() -> None:
    """Worked by hand: 1 2 3, then up to 7; again from byte 10, the line, from 7 to 7."""
    words = [0, 3, 1, 2, 3, 1, 4, 7, 2, 1, 10, 0, 2, 2, 0, 0]
    table = [1, 2, 3, 4, 5, 6, 7, 7, 7, 7, 7, 1, 2, 3, 4, 5, 6, 7]
    assert expanded(words, len(table), 2) == table
    eight_bits = [0, 3, 1, 2, 3, 1, 4, 7, 2, 1, 5, 0, 0, 0, 2, 2, 0, 0, 0, 0]
    assert expanded(eight_bits, len(table), 1) == table


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(1, 300))
def test_no_segments_give_more_than_was_announced(segments: list[int], count: int) -> None:
    with suppress(ValueError, IndexError):
        assert len(expanded(segments, count, 2)) == count


def test_a_bomb_of_segments_stops_at_the_size_of_its_table() -> None:
    longest = [0, 1, 0] + [1, 65535, 9, 1, 65535, 0] * 10_000
    assert len(expanded(longest, 65536, 2)) == 65536


def failure(path: str) -> str:
    with pytest.raises(ScanError) as caught:
        read_image(path)
    return caught.value.code


@pytest.mark.parametrize("missing", ["RedPaletteColorLookupTableData", "BluePalette…Descriptor"])
def test_a_palette_that_is_not_there_is_a_damaged_header(make_dicom: Any, missing: str) -> None:
    tags = lookup_tables(np.zeros((3, 256)))
    del tags[missing.replace("…", "ColorLookupTable")]
    assert failure(palette_file(make_dicom, np.zeros((2, 2), np.uint8), tags)) == "damaged_header"


def test_the_supplemental_palette_of_a_grey_image_is_not_used(make_dicom: Any) -> None:
    grey = np.arange(80, dtype=np.uint16).reshape(8, 10)
    tags = lookup_tables(np.zeros((3, 256))) | {"PixelPresentation": "COLOR"}
    image = read_image(make_dicom("x.dcm", grey, Modality="MR", **tags))
    np.testing.assert_array_equal(image.pixels[0, ..., 0], grey)


@pytest.mark.parametrize("planar", [0, 1])
def test_both_planar_configurations(make_dicom: Any, planar: int) -> None:
    data = (RGB.transpose(2, 0, 1) if planar else RGB).tobytes()
    path = make_dicom("x.dcm", RGB, Modality="US", PlanarConfiguration=planar, PixelData=data)
    np.testing.assert_array_equal(read_image(path).pixels[0], RGB)


@pytest.mark.parametrize("missing", ["PlanarConfiguration", "PhotometricInterpretation"])
def test_colour_without_a_tag_is_taken_for_rgb_by_pixel(make_dicom: Any, missing: str) -> None:
    path = make_dicom("x.dcm", RGB, Modality="US", **{missing: None})
    np.testing.assert_array_equal(read_image(path).pixels[0], RGB)


def test_frames_of_planes_are_put_together(make_dicom: Any) -> None:
    frames = np.random.default_rng(1).integers(0, 256, (3, 6, 8, 3), np.uint8)
    tags = {"PlanarConfiguration": 1, "PixelData": frames.transpose(0, 3, 1, 2).tobytes()}
    path = make_dicom("x.dcm", frames, Modality="US", **tags)
    np.testing.assert_array_equal(read_image(path).pixels, frames)


def test_shared_colours_of_two_pixels_are_given_to_both(make_dicom: Any) -> None:
    ybr = np.random.default_rng(2).integers(0, 256, (6, 4, 2, 3), np.uint8)
    ybr[:, :, 1, 1:] = ybr[:, :, 0, 1:]
    shared = np.stack([ybr[:, :, 0, 0], ybr[:, :, 1, 0], ybr[:, :, 0, 1], ybr[:, :, 0, 2]], axis=2)
    tags = {"PhotometricInterpretation": "YBR_FULL_422", "PixelData": shared.tobytes()}
    path = make_dicom("x.dcm", RGB, Modality="US", **tags)
    expected = convert_color_space(ybr.reshape(6, 8, 3), "YBR_FULL", "RGB")
    np.testing.assert_array_equal(read_image(path).pixels[0], expected)


def test_colours_that_are_not_shared_after_all_are_taken_as_they_are(make_dicom: Any) -> None:
    """Many writers say YBR_FULL_422 and store YBR_FULL; the length of the data tells."""
    path = make_dicom("x.dcm", RGB, Modality="US", PhotometricInterpretation="YBR_FULL_422")
    expected = convert_color_space(RGB, "YBR_FULL", "RGB")
    np.testing.assert_array_equal(read_image(path).pixels[0], expected)


def partial(rgb: np.ndarray) -> np.ndarray:
    """The equations of PS3.3 (2004) C.7.6.3.1.2, unrounded."""
    red, green, blue = np.moveaxis(rgb.astype(float), -1, 0)
    luma = 0.2568 * red + 0.5041 * green + 0.0979 * blue + 16
    cb = -0.1482 * red - 0.2910 * green + 0.4392 * blue + 128
    cr = 0.4392 * red - 0.3678 * green - 0.0714 * blue + 128
    return np.stack([luma, cb, cr], axis=-1)


def test_partial_range_colour_is_stretched_to_the_full_range(make_dicom: Any) -> None:
    rgb = np.repeat(np.random.default_rng(3).integers(0, 256, (6, 4, 1, 3)), 2, axis=2)
    rgb[0, 0], rgb[0, 1] = 0, 255
    ybr = np.rint(partial(rgb)).astype(np.uint8)
    shared = np.stack([ybr[:, :, 0, 0], ybr[:, :, 1, 0], ybr[:, :, 0, 1], ybr[:, :, 0, 2]], axis=2)
    tags = {"PhotometricInterpretation": "YBR_PARTIAL_422", "PixelData": shared.tobytes()}
    image = read_image(make_dicom("x.dcm", RGB, Modality="US", **tags))
    np.testing.assert_allclose(image.pixels[0], rgb.reshape(6, 8, 3), atol=2)
    np.testing.assert_array_equal(image.pixels[0, 0, :4, 0], [0, 0, 255, 255])


@pytest.mark.parametrize("photometric", ["YBR_PARTIAL_422", "YBR_FULL_422"])
def test_shared_colours_that_end_early_are_truncated(make_dicom: Any, photometric: str) -> None:
    tags = {"PhotometricInterpretation": photometric, "PixelData": bytes(94)}
    assert failure(make_dicom("x.dcm", RGB, Modality="US", **tags)) == "truncated"


def compressed(
    make_dicom: Any, tmp_path: Path, colour: np.ndarray, frame: bytes, syntax: str, photometric: str
) -> str:
    dataset = pydicom.dcmread(make_dicom("plain.dcm", colour, Modality="US"))
    dataset.PixelData = encapsulate([frame])
    dataset["PixelData"].VR = "OB"
    dataset.PhotometricInterpretation = photometric
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(tmp_path / "x.dcm")
    return str(tmp_path / "x.dcm")


def test_the_reversible_transform_of_jpeg_2000_gives_rgb_back(
    make_dicom: Any, tmp_path: Path
) -> None:
    frame = encode_array(smooth(), photometric_interpretation=1, use_mct=True)
    path = compressed(make_dicom, tmp_path, smooth(), frame, JPEG2000Lossless, "YBR_RCT")
    np.testing.assert_array_equal(read_image(path).pixels[0], smooth())


def test_the_irreversible_transform_of_jpeg_2000_gives_rgb_nearly_back(
    make_dicom: Any, tmp_path: Path
) -> None:
    frame = encode_array(
        smooth(), photometric_interpretation=1, use_mct=True, compression_ratios=[4]
    )
    path = compressed(make_dicom, tmp_path, smooth(), frame, pydicom.uid.JPEG2000, "YBR_ICT")
    np.testing.assert_allclose(read_image(path).pixels[0], smooth(), atol=4)


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
def test_jpeg_gives_rgb_as_pillow_does(make_dicom: Any, tmp_path: Path, subsampling: str) -> None:
    encoded = io.BytesIO()
    Image.fromarray(smooth()).save(encoded, "JPEG", quality=95, subsampling=subsampling)
    path = compressed(
        make_dicom, tmp_path, smooth(), encoded.getvalue(), JPEGBaseline8Bit, "YBR_FULL_422"
    )
    expected = np.asarray(Image.open(encoded)).astype(int)
    np.testing.assert_allclose(read_image(path).pixels[0], expected, atol=2)


def test_partial_range_colour_in_jpeg_is_stretched(make_dicom: Any, tmp_path: Path) -> None:
    ybr, encoded = np.rint(partial(smooth())).astype(np.uint8), io.BytesIO()
    Image.frombytes("YCbCr", (48, 64), ybr.tobytes()).save(
        encoded, "JPEG", quality=98, subsampling="4:4:4"
    )
    path = compressed(
        make_dicom, tmp_path, smooth(), encoded.getvalue(), JPEGBaseline8Bit, "YBR_PARTIAL_422"
    )
    np.testing.assert_allclose(read_image(path).pixels[0].astype(int), smooth(), atol=6)


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless])
@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL"])
def test_lossless_colour_is_whole(
    make_dicom: Any, tmp_path: Path, syntax: str, photometric: str
) -> None:
    tags = {"Modality": "US", "PhotometricInterpretation": photometric}
    dataset = pydicom.dcmread(make_dicom("plain.dcm", smooth(), **tags))
    dataset.compress(syntax)
    dataset.save_as(tmp_path / "x.dcm")
    expected = convert_color_space(smooth(), photometric, "RGB")
    np.testing.assert_array_equal(read_image(str(tmp_path / "x.dcm")).pixels[0], expected)


@pytest.mark.parametrize(
    ("bits", "warned"), [(5, False), (8, False), (12, False), (16, False), (24, False), (32, True)]
)
def test_the_range_of_any_depth_becomes_0_to_255(make_dicom: Any, bits: int, warned: bool) -> None:
    top = 2**bits - 1
    cells = np.uint8 if bits <= 8 else np.uint16 if bits <= 16 else np.uint32
    colour = np.array([[[0, top // 2, top]]], cells)
    image = read_image(
        make_dicom("x.dcm", colour, Modality="OT", BitsStored=bits, HighBit=bits - 1)
    )
    middle = round(top // 2 * 255 / top) if bits < 8 else 127 if bits == 8 else top // 2 * 255 / top
    assert image.pixels[0, 0, 0].tolist() == pytest.approx([0, middle, 255])
    assert [warning.code for warning in image.warnings] == ["reduced_bits"] * warned


@pytest.mark.parametrize("planar", [0, 1])
def test_sixteen_bits_of_colour_come_back_whole(make_dicom: Any, planar: int) -> None:
    colour = np.random.default_rng(1).integers(0, 2**16, (6, 8, 3), np.uint16)
    stored = colour if planar == 0 else np.ascontiguousarray(np.moveaxis(colour, -1, 0))
    data = stored.tobytes()
    path = make_dicom("x.dcm", colour, Modality="OT", PlanarConfiguration=planar, PixelData=data)
    image = read_image(path)
    expected = pydicom.dcmread(path).pixel_array
    assert (image.unit, image.pixels.dtype, image.warnings) == ("display", np.float32, ())
    np.testing.assert_array_equal(np.rint(image.pixels[0] * np.float32(257)), expected)


def test_luma_and_chroma_of_more_than_eight_bits_are_refused(make_dicom: Any) -> None:
    colour = np.zeros((4, 4, 3), np.uint16)
    path = make_dicom("x.dcm", colour, Modality="US", PhotometricInterpretation="YBR_FULL")
    assert failure(path) == "unsupported_pixels"


def test_an_icc_profile_changes_nothing(make_dicom: Any) -> None:
    path = make_dicom("x.dcm", RGB, Modality="US", ICCProfile=random.Random(0).randbytes(64))
    np.testing.assert_array_equal(read_image(path).pixels[0], RGB)


@pytest.mark.parametrize(("entries", "lost"), [(256, False), (257, False), (259, True)])
def test_bits_of_a_palette_that_are_lost_are_told_of(
    make_dicom: Any, entries: int, lost: bool
) -> None:
    """Bytes in the upper half, and copies of it in the lower one, lose nothing."""
    stored = np.arange(16, dtype=np.uint8).reshape(4, 4)
    tables = np.arange(240, 256) * entries & 0xFFFF if not lost else np.arange(16) * 3001
    image = read_image(palette_file(make_dicom, stored, lookup_tables(np.stack([tables] * 3))))
    assert [warning.code for warning in image.warnings] == ["reduced_bits"] * lost
