"""PNG, JPEG, TIFF and BMP pictures."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medcli.errors import ScanError
from medcli.imaging import values
from medcli.imaging.reader import read_scan
from medcli.records import Case

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (12, 15), np.uint8)
DEEP = RNG.integers(0, 2**16, (12, 15), np.uint16)
COLOUR = RNG.integers(0, 256, (12, 15, 3), np.uint8)


@pytest.mark.parametrize("name", ["x.png", "x.tif", "x.bmp"])
@pytest.mark.parametrize("pixels", [GREY, COLOUR], ids=["grey", "colour"])
def test_eight_bit_pictures_are_read_as_they_are(
    tmp_path: Path, file_case: Any, name: str, pixels: np.ndarray
) -> None:
    Image.fromarray(pixels).save(tmp_path / name)
    scan = read_scan(file_case(tmp_path / name, "picture"))
    np.testing.assert_array_equal(scan.pixels[0], pixels.reshape(12, 15, -1))
    assert scan.unit == "display"
    assert scan.format == {"png": "png", "tif": "tiff", "bmp": "bmp"}[name[2:]]
    assert scan.spacing_mm == (None, None, None)
    assert scan.warnings == ()


@pytest.mark.parametrize("name", ["x.png", "x.tif"])
def test_sixteen_bits_stay_whole(tmp_path: Path, file_case: Any, name: str) -> None:
    Image.fromarray(DEEP).save(tmp_path / name)
    scan = read_scan(file_case(tmp_path / name, "picture"))
    np.testing.assert_array_equal(scan.pixels[0, ..., 0], DEEP)
    assert scan.unit == "stored"


def test_a_grey_picture_saved_as_rgb_jpeg_is_grey(tmp_path: Path, file_case: Any) -> None:
    smooth = np.add.outer(np.arange(40), np.arange(50)).astype(np.uint8)
    Image.fromarray(np.stack([smooth] * 3, axis=2)).save(tmp_path / "x.jpg", quality=90)
    scan = read_scan(file_case(tmp_path / "x.jpg", "picture"))
    assert scan.pixels.shape == (1, 40, 50, 1)
    assert np.abs(scan.pixels[0, ..., 0].astype(int) - smooth).max() <= 3


@pytest.mark.parametrize(("difference", "channels"), [(2, 1), (3, 3)])
def test_channels_may_differ_by_two_and_still_be_grey(
    tmp_path: Path, file_case: Any, difference: int, channels: int
) -> None:
    pixels = np.full((4, 5, 3), 100, np.uint8)
    pixels[1, 1, 2] += difference
    Image.fromarray(pixels).save(tmp_path / "x.png")
    assert read_scan(file_case(tmp_path / "x.png", "picture")).pixels.shape[3] == channels


def test_transparency_is_laid_on_black(tmp_path: Path, file_case: Any) -> None:
    layer = np.dstack([COLOUR, np.full((12, 15), 128, np.uint8)])
    Image.fromarray(layer).save(tmp_path / "x.png")
    scan = read_scan(file_case(tmp_path / "x.png", "picture"))
    np.testing.assert_allclose(scan.pixels[0], COLOUR * (128 / 255), atol=1)


@pytest.mark.parametrize(("mode", "name"), [("CMYK", "x.tif"), ("P", "x.png"), ("YCbCr", "x.tif")])
def test_other_colour_spaces_become_rgb(
    tmp_path: Path, file_case: Any, mode: str, name: str
) -> None:
    image = Image.fromarray(COLOUR).convert(mode)
    image.save(tmp_path / name)
    scan = read_scan(file_case(tmp_path / name, "picture"))
    np.testing.assert_allclose(scan.pixels[0], np.asarray(image.convert("RGB")), atol=1)


def test_one_bit_pictures_are_black_and_white(tmp_path: Path, file_case: Any) -> None:
    Image.fromarray(GREY > 100).save(tmp_path / "x.png")
    scan = read_scan(file_case(tmp_path / "x.png", "picture"))
    np.testing.assert_array_equal(scan.pixels[0, ..., 0], np.where(GREY > 100, 255, 0))


def test_the_exif_orientation_is_applied(tmp_path: Path, file_case: Any) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90° clockwise
    Image.fromarray(GREY).save(tmp_path / "x.png", exif=exif)
    scan = read_scan(file_case(tmp_path / "x.png", "picture"))
    np.testing.assert_array_equal(scan.pixels[0, ..., 0], np.rot90(GREY, -1))


def test_of_several_pages_the_first_is_read_and_said_so(
    tmp_path: Path, file_case: Any, codes: Any
) -> None:
    pages = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
    pages[0].save(tmp_path / "x.tif", save_all=True, append_images=pages[1:])
    scan = read_scan(file_case(tmp_path / "x.tif", "picture"))
    np.testing.assert_array_equal(scan.pixels[0, ..., 0], GREY)
    assert codes(scan) == ["first_frame"]


def stack_case(paths: list[str]) -> Case:
    return Case("stack", tuple(paths), "picture", "s1", patient_id="p1")


def test_several_pictures_are_a_stack_in_the_given_order(tmp_path: Path) -> None:
    paths = []
    for number in (2, 0, 1):
        Image.fromarray(GREY + np.uint8(number)).save(tmp_path / f"{number}.png")
        paths.append(str(tmp_path / f"{number}.png"))
    scan = read_scan(stack_case(paths))
    assert scan.slice_files == tuple(paths)
    assert scan.patient_id == "p1"
    np.testing.assert_array_equal(scan.pixels[1, ..., 0], GREY)


def test_a_stack_with_a_colour_picture_is_colour(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "0.png")
    Image.fromarray(COLOUR).save(tmp_path / "1.png")
    scan = read_scan(stack_case([str(tmp_path / "0.png"), str(tmp_path / "1.png")]))
    assert scan.pixels.shape == (2, 12, 15, 3)
    np.testing.assert_array_equal(scan.pixels[0], np.stack([GREY] * 3, axis=2))


def test_a_stack_of_mixed_sizes_is_refused(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "0.png")
    Image.fromarray(GREY[:-1]).save(tmp_path / "1.png")
    with pytest.raises(ScanError, match="15×11, 15×12") as caught:
        read_scan(stack_case([str(tmp_path / "0.png"), str(tmp_path / "1.png")]))
    assert caught.value.code == "mixed_sizes"


@pytest.mark.parametrize("deep", [np.uint16, np.int32, np.float32])
def test_a_stack_of_eight_bits_and_more_is_refused(tmp_path: Path, deep: type) -> None:
    Image.fromarray(GREY).save(tmp_path / "0.tif")
    Image.fromarray(GREY.astype(deep)).save(tmp_path / "1.tif")
    paths = [str(tmp_path / "0.tif"), str(tmp_path / "1.tif")]
    for order in (paths, paths[::-1]):
        with pytest.raises(ScanError, match="8 bits and some more") as caught:
            read_scan(stack_case(order))
        assert caught.value.code == "unsupported_pixels"
    alike = read_scan(stack_case([paths[1], paths[1]]))
    np.testing.assert_array_equal(alike.pixels[1, ..., 0], GREY)


def test_a_stack_over_the_budget_is_refused_at_its_first_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(GREY).save(tmp_path / "0.png")
    monkeypatch.setattr(values, "MAX_SAMPLES", 3 * GREY.size - 1)
    assert failure(stack_case([str(tmp_path / "0.png"), "gone.png", "gone.png"])) == "too_large"


def failure(case: Case) -> str:
    with pytest.raises(ScanError) as caught:
        read_scan(case)
    return caught.value.code


@pytest.mark.parametrize("name", ["x.png", "x.jpg", "x.tif", "x.bmp"])
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9])
def test_truncated_pictures_are_named_as_such(
    tmp_path: Path, file_case: Any, name: str, kept: float
) -> None:
    noise = np.random.default_rng(3).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / name)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: int(len(data) * kept)])
    assert failure(file_case(tmp_path / name, "picture")) == "truncated"


def test_a_flipped_bit_in_a_png_is_a_crc_error(tmp_path: Path, file_case: Any) -> None:
    Image.fromarray(GREY).save(tmp_path / "x.png")
    data = bytearray((tmp_path / "x.png").read_bytes())
    data[-30] ^= 1
    (tmp_path / "x.png").write_bytes(data)
    assert failure(file_case(tmp_path / "x.png", "picture")) == "crc"


def test_the_pixel_budget_is_checked_from_the_header(
    tmp_path: Path, file_case: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(GREY).save(tmp_path / "x.png")
    monkeypatch.setattr(values, "MAX_SAMPLES", 100)
    monkeypatch.setattr(Image.Image, "load", lambda _: pytest.fail("decoded"))
    assert failure(file_case(tmp_path / "x.png", "picture")) == "too_large"


def test_a_decompression_bomb_is_refused(
    tmp_path: Path, file_case: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(GREY).save(tmp_path / "x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert failure(file_case(tmp_path / "x.png", "picture")) == "too_large"


def test_other_formats_are_not_opened_whatever_their_name(tmp_path: Path, file_case: Any) -> None:
    Image.fromarray(GREY).save(tmp_path / "x.gif")
    os.rename(tmp_path / "x.gif", tmp_path / "x.png")
    assert failure(file_case(tmp_path / "x.png", "picture")) == "not_an_image"


def test_a_missing_picture_is_named(tmp_path: Path, file_case: Any) -> None:
    assert failure(file_case(tmp_path / "x.png", "picture")) == "not_found"
