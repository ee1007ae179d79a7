"""Pixels → encoded pictures, for thumbnails, pages and contact sheets.

Pictures are uint8, (h, w) or (h, w, 1) grey or (h, w, 3) RGB, ready to be looked at.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.PngImagePlugin import PngInfo

_SIGNATURES = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG\r\n\x1a\n": "image/png"}


def encode_jpeg(pixels: np.ndarray, quality: int = 85) -> bytes:
    """`pixels` as a JPEG file without metadata; `quality` 1–95."""
    return _encode(_image(pixels), "JPEG", quality=quality, optimize=True)


def encode_png(pixels: np.ndarray) -> bytes:
    """`pixels` as a PNG file that says that medcli drew it, so that no folder search reads it."""
    from PIL.PngImagePlugin import PngInfo

    drawn_by = PngInfo()
    drawn_by.add_text("Software", "medcli")
    return _encode(_image(pixels), "PNG", optimize=True, pnginfo=drawn_by)


def data_uri(picture: bytes) -> str:
    """An encoded JPEG or PNG as a URI that an HTML page can hold.

    Raises
    ------
    ValueError : neither JPEG nor PNG
    """
    for signature, media_type in _SIGNATURES.items():
        if picture.startswith(signature):
            return f"data:{media_type};base64,{base64.b64encode(picture).decode('ascii')}"
    raise ValueError("a picture for a page must be JPEG or PNG")


def fit(pixels: np.ndarray, side: int, *, enlarge: bool = False) -> np.ndarray:
    """`pixels` with the longer side at most `side` pixels, in the same proportions.

    With `enlarge` the longer side is exactly `side`. Returns uint8 (h, w) or (h, w, 3).
    """
    image = _image(pixels)
    scale = side / max(image.size)
    if scale < 1 or enlarge:
        width, height = (max(1, round(length * scale)) for length in image.size)
        image = image.resize((width, height))
    return np.asarray(image)


def montage(
    pictures: Sequence[np.ndarray],
    columns: int,
    *,
    side: int = 128,
    gap: int = 4,
    background: int = 0,
) -> np.ndarray:
    """A contact sheet: the pictures row by row, each centred in a square cell.

    Parameters
    ----------
    pictures : uint8, of any sizes; grey ones become RGB beside colour
    columns : cells in a row
    side, gap : of a cell and between cells, pixels
    background : grey level, 0–255

    Returns
    -------
    uint8 (h, w), or (h, w, 3) if any picture is in colour

    Raises
    ------
    ValueError : no pictures, or no columns
    """
    if not pictures or columns < 1:
        raise ValueError("a contact sheet needs pictures and at least one column")
    cells = [fit(picture, side, enlarge=True) for picture in pictures]
    colour = any(cell.ndim == 3 for cell in cells)
    columns = min(columns, len(cells))
    rows = -(-len(cells) // columns)
    step = side + gap
    shape = (rows * step - gap, columns * step - gap) + ((3,) if colour else ())
    sheet = np.full(shape, background, dtype=np.uint8)
    for place, cell in enumerate(cells):
        height, width = cell.shape[:2]
        top = place // columns * step + (side - height) // 2
        left = place % columns * step + (side - width) // 2
        pixels = cell[..., None] if colour and cell.ndim == 2 else cell
        sheet[top : top + height, left : left + width] = pixels
    return sheet


def _image(pixels: np.ndarray) -> Image:
    """`pixels` as a Pillow image, mode L or RGB."""
    from PIL import Image

    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    grey_or_rgb = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)
    if pixels.dtype != np.uint8 or not grey_or_rgb or not pixels.size:
        raise ValueError(f"not a picture: {pixels.dtype} of shape {pixels.shape}")
    return Image.fromarray(np.ascontiguousarray(pixels))


def _encode(image: Image, kind: str, **options: int | PngInfo) -> bytes:
    """`image` as a file in memory."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
