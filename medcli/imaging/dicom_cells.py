"""Uncompressed pixel data that pydicom does not unpack: odd cells and shared colours.

Pixel cells of any number of bits up to 32, which lie in the data one after the other
without padding (old files have 10 or 12 bits), and colours that two pixels share.

References
----------
DICOM PS3.5 8.1.1 and Annex D (of editions up to 2004), encoding of pixel cells; PS3.3
C.7.6.3.1.2, YBR_FULL_422, and (same editions) YBR_PARTIAL_422
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from pydicom.dataset import FileDataset
from pydicom.uid import ExplicitVRBigEndian, UncompressedTransferSyntaxes

from medcli.errors import ScanError
from medcli.imaging.dicom_file import transfer_syntax
from medcli.imaging.dicom_pixels import Layout, describe
from medcli.imaging.dicom_tags import value

_CELLS_AT_ONCE = 2**20  # a multiple of 8, so that a part begins with a byte

# R, G, B of 1 each → Y − 16, Cb − 128, Cr − 128
_TO_PARTIAL = np.array(
    [[0.2568, 0.5041, 0.0979], [-0.1482, -0.2910, 0.4392], [0.4392, -0.3678, -0.0714]]
)


def unpack_cells(data: bytes, count: int, bits: int) -> np.ndarray:
    """(count,) uint32 from cells of `bits` bits, 1 to 32, the first in the lowest bits."""
    weights = np.left_shift(np.uint32(1), np.arange(bits, dtype=np.uint32))
    cells = np.empty(count, np.uint32)
    for start in range(0, count, _CELLS_AT_ONCE):
        part = cells[start : start + _CELLS_AT_ONCE]
        first, last = start * bits // 8, math.ceil((start + len(part)) * bits / 8)
        packed = np.frombuffer(data, np.uint8, last - first, first)
        each = np.unpackbits(packed, count=len(part) * bits, bitorder="little")
        part[:] = each.reshape(-1, bits) @ weights
    return cells


def standardise(path: str, dataset: FileDataset, image: Layout) -> Layout:
    """Rewrite odd cells and shared colours into what every decoder reads.

    Returns
    -------
    the layout of the dataset as it is now: cells of 16 or 32 bits, colour in every pixel

    Raises
    ------
    ScanError : unsupported_pixels, truncated
    """
    syntax = transfer_syntax(dataset)[0]
    plain = syntax in UncompressedTransferSyntaxes and syntax != ExplicitVRBigEndian
    odd = image.bits_allocated not in (1, 8, 16, 32, 64)
    shared = plain and image.photometric in ("YBR_FULL_422", "YBR_PARTIAL_422")
    if not odd and not shared:
        return image
    data = value(dataset, "PixelData")
    if not plain or not isinstance(data, bytes):
        message = f"{path}: cells of {image.bits_allocated} bits in {syntax.name}"
        raise ScanError("unsupported_pixels", message, "Convert the file with another program")
    rewritten, standard = _own_colours(data, image) if shared else _whole_cells(data, image)
    if len(rewritten) < math.prod(image.shape):
        message = f"{path}: the file ends before its pixel data do"
        raise ScanError("truncated", message, "Copy it again")
    dataset.PixelData = rewritten
    describe(dataset, standard)
    return standard


def _whole_cells(data: bytes, image: Layout) -> tuple[bytes, Layout]:
    """Odd cells in 16 or 32 bits each; nothing where data end early."""
    count, bits = math.prod(image.shape), image.bits_allocated
    size = 2 if bits <= 16 else 4
    wider = replace(image, bits_allocated=8 * size)
    if len(data) * 8 < count * bits:
        return b"", wider
    return unpack_cells(data, count, bits).astype(f"<u{size}").tobytes(), wider


def _own_colours(data: bytes, image: Layout) -> tuple[bytes, Layout]:
    """Y, Cb, Cr of every pixel from two pixels in four bytes: Y, Y, Cb, Cr.

    Data that are long enough to hold them already are left as they are.
    """
    own = image
    if image.photometric == "YBR_FULL_422":
        own = replace(image, photometric="YBR_FULL")
    if len(data) >= math.prod(image.shape):
        return data, own
    pairs = np.frombuffer(data, np.uint8, len(data) // 4 * 4).reshape(-1, 4)
    return pairs[:, [0, 2, 3, 1, 2, 3]].tobytes(), own


def partial_to_rgb(colours: np.ndarray) -> np.ndarray:
    """(…, 3) uint8 Y (16 to 235), Cb and Cr (16 to 240) → uint8 RGB."""
    rgb = (colours.astype(np.float32) - (16, 128, 128)) @ np.linalg.inv(_TO_PARTIAL).T
    levels: np.ndarray = np.clip(np.rint(rgb), 0, 255).astype(np.uint8)
    return levels
