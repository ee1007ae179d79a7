"""PNG and TIFF of more than 8 bits, where Pillow must be told how their bytes lie.

Pillow has no picture of 16 bits a channel with colour or transparency, and keeps one byte of
each value, the upper one. Which byte that is depends on the byte order it is told, so that a
picture decoded once in either order gives both.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image, ImageOps

_PLANAR = 284  # TIFF tag; 2: each channel is stored by itself
_NATIVE = "L" if sys.byteorder == "little" else "B"
_PREMULTIPLIED = "RGBa"
_GREY_WITH_ALPHA = "LA"  # two channels of 16 bits, which Pillow's RGBA can take for four of 8


_IN_NATIVE_ORDER = {"I;16BS": "I;16NS", "I;32BS": "I;32NS", "F;32BF": "F;32NF",
                    "I;16S": "I;16NS", "I;32S": "I;32NS", "F;32F": "F;32NF"}  # fmt: skip
"""For what Pillow takes libtiff to give in the byte order of the file, what it gives."""


def mend_byte_order(image: Image.Image) -> None:
    """Let Pillow take what libtiff has decoded in the byte order of this machine.

    Pillow does so of itself for unsigned numbers only, and takes others of a compressed TIFF
    in the other byte order for what they are not.
    """
    for number, tile in enumerate(_tiles(image)):
        rawmode = _IN_NATIVE_ORDER.get(_rawmode(tile))
        if tile.codec_name == "libtiff" and rawmode:
            _tiles(image)[number] = tile._replace(args=(rawmode, *tile.args[1:]))


def read_deep(image: Image.Image, again: Callable[[], Image.Image]) -> np.ndarray | None:
    """(H, W, 1 or 3) uint16 values, upright and laid on black; None where Pillow keeps all.

    Also None where Pillow reads such a picture in one byte order only: a TIFF in planes or
    in inks.

    Parameters
    ----------
    image : as opened, not loaded; it is loaded here
    again : opens the same picture once more
    """
    layout = _layout(image)
    if layout is None:
        return None
    name, order = layout
    if name == _GREY_WITH_ALPHA:
        stored = _decoded(image, "RGBA", "").astype(np.uint16)
        values = stored[..., 0::2] << 8 | stored[..., 1::2]
    else:
        upper = _decoded(image, name, f";16{order}").astype(np.uint16)
        other = "B" if order == "L" else "L"
        values = upper << 8 | _decoded(again(), name, f";16{other}")
    return _on_black(values, name, image.info.get("transparency"))


def is_deep(image: Image.Image) -> bool:
    """Whether an opened picture has 16 bits a channel and several channels."""
    return any(_rawmode(tile).partition(";")[2][:2] == "16" for tile in _tiles(image)) and (
        image.mode in ("RGB", "RGBA", "CMYK")
    )


def _layout(image: Image.Image) -> tuple[str, str] | None:
    """The channels of a deep picture, such as "RGB", and its byte order, "L" or "B"."""
    tiles = _tiles(image)
    if not tiles or not is_deep(image) or image.mode == "CMYK":
        return None
    tags: Any = getattr(image, "tag_v2", {})
    if tags.get(_PLANAR) == 2:
        return None
    name, _, kind = _rawmode(tiles[0]).partition(";16")
    return name, _NATIVE if kind == "N" else kind


def _tiles(image: Image.Image) -> list[Any]:
    tiles: list[Any] = getattr(image, "tile", [])
    return tiles


def _rawmode(tile: Any) -> str:
    """How the bytes of a tile are laid out, in Pillow's words."""
    return str(tile.args if isinstance(tile.args, str) else tile.args[0])


def _decoded(image: Image.Image, name: str, kind: str) -> np.ndarray:
    """(H, W, C) uint8, the picture decoded as if its bytes were laid out as told."""
    rawmode = ("RGBA" if name == _PREMULTIPLIED else name) + kind
    image.tile = [  # type: ignore[attr-defined]
        tile._replace(args=rawmode if isinstance(tile.args, str) else (rawmode, *tile.args[1:]))
        for tile in _tiles(image)
    ]
    return np.asarray(ImageOps.exif_transpose(image))


def _on_black(values: np.ndarray, name: str, transparent: object) -> np.ndarray:
    """Colour or grey without its last channel, alpha, by which it is multiplied."""
    colour = values[..., : 1 if name == _GREY_WITH_ALPHA else 3]
    if isinstance(transparent, tuple):
        return np.where((values == transparent).all(axis=-1, keepdims=True), 0, colour)
    if name not in ("RGBA", _GREY_WITH_ALPHA):
        return colour
    product = colour.astype(np.float64) * values[..., -1:] / 65535
    laid: np.ndarray = np.rint(product).astype(np.uint16)
    return laid
