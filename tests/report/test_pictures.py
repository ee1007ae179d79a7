"""Encoding and contact sheets, read back with Pillow."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from medcli.report.pictures import data_uri, encode_jpeg, encode_png, fit, montage


def decoded(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 3)])
def test_png_gives_the_pixels_back(shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8)
    np.testing.assert_array_equal(decoded(encode_png(pixels)), pixels.squeeze())


def test_jpeg_is_close_to_the_pixels() -> None:
    ramp = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (32, 1))
    assert np.abs(decoded(encode_jpeg(ramp)).astype(int) - ramp).max() <= 4


def test_colour_stays_in_the_order_rgb() -> None:
    red = np.zeros((16, 16, 3), dtype=np.uint8)
    red[..., 0] = 250
    assert decoded(encode_jpeg(red))[8, 8].argmax() == 0


def test_a_view_that_is_not_contiguous_is_encoded() -> None:
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8)[::-1, ::2]
    np.testing.assert_array_equal(decoded(encode_png(pixels)), pixels)


@pytest.mark.parametrize("encode", [encode_jpeg, encode_png])
@pytest.mark.parametrize(
    "pixels",
    [np.zeros((4, 4), dtype=np.float32), np.zeros((4, 4, 2), np.uint8), np.zeros((0, 4), np.uint8)],
)
def test_what_is_no_picture_is_refused(encode: object, pixels: np.ndarray) -> None:
    with pytest.raises(ValueError, match="not a picture"):
        encode(pixels)  # type: ignore[operator]


@pytest.mark.parametrize(("encode", "kind"), [(encode_jpeg, "jpeg"), (encode_png, "png")])
def test_a_data_uri_names_its_type_and_holds_the_file(encode: object, kind: str) -> None:
    data = encode(np.zeros((3, 3), dtype=np.uint8))  # type: ignore[operator]
    head, body = data_uri(data).split(",")
    assert head == f"data:image/{kind};base64"
    assert base64.b64decode(body) == data


def test_markup_is_no_data_uri() -> None:
    with pytest.raises(ValueError, match="JPEG or PNG"):
        data_uri(b"<svg onload='x'>")


def test_fit_keeps_proportions_and_small_pictures() -> None:
    assert fit(np.zeros((100, 50), np.uint8), 20).shape == (20, 10)
    assert fit(np.zeros((8, 4), np.uint8), 20).shape == (8, 4)
    assert fit(np.zeros((8, 4, 3), np.uint8), 20, enlarge=True).shape == (20, 10, 3)
    assert fit(np.zeros((1000, 1), np.uint8), 20).shape == (20, 1)


def test_a_contact_sheet_fills_its_cells_row_by_row() -> None:
    pictures = [np.full((10, 10), grey, np.uint8) for grey in (50, 100, 150)]
    sheet = montage(pictures, 2, side=10, gap=2, background=7)
    assert sheet.shape == (22, 22)
    assert [sheet[5, 5], sheet[5, 17], sheet[17, 5], sheet[17, 17]] == [50, 100, 150, 7]
    assert (sheet[10:12] == 7).all()


def test_a_contact_sheet_centres_what_is_not_square() -> None:
    sheet = montage([np.full((10, 20), 200, np.uint8)], 3, side=20)
    assert sheet.shape == (20, 20)
    np.testing.assert_array_equal(np.flatnonzero(sheet[:, 10] > 100), np.arange(5, 15))


def test_grey_beside_colour_becomes_rgb() -> None:
    colour = np.zeros((4, 4, 3), np.uint8)
    colour[..., 2] = 90
    sheet = montage([np.full((4, 4), 30, np.uint8), colour], 2, side=4, gap=0)
    assert sheet[1, 1].tolist() == [30, 30, 30]
    assert sheet[1, 5].tolist() == [0, 0, 90]


def test_an_empty_contact_sheet_is_refused() -> None:
    with pytest.raises(ValueError, match="needs pictures"):
        montage([], 3)
