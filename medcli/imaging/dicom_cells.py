"""Uncompressed pixel data that pydicom does not unpack: odd cells, and partial-range colour.

Pixel cells of any number of bits up to 32, which lie in the data one after the other
without padding (old files have 10 or 12 bits), and YBR_PARTIAL_422.

References
----------
DICOM PS3.5 8.1.1 and Annex D (of editions up to 2004), encoding of pixel cells; PS3.3
C.7.6.3.1.2 (same editions), Photometric Interpretation YBR_PARTIAL_422
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
    native = syntax in UncompressedTransferSyntaxes
    odd = image.bits_allocated not in (1, 8, 16, 32, 64)
    shared = image.photometric == "YBR_PARTIAL_422" and native
    if not odd and not shared:
        return image
    data = value(dataset, "PixelData")
    if not native or syntax == ExplicitVRBigEndian or not isinstance(data, bytes):
        message = f"{path}: cells of {image.bits_allocated} bits in {syntax.name}"
        raise ScanError("unsupported_pixels", message, "Convert the file with another program")
    count = math.prod(image.shape)
    needed = math.ceil(count * 2 / 3) if shared else math.ceil(count * image.bits_allocated / 8)
    if len(data) < needed:
        message = f"{path}: the file ends before its pixel data do"
        raise ScanError("truncated", message, "Copy it again")
    if shared:
        dataset.PixelData = full_colour(data[:needed]).tobytes()
        return image
    size = 2 if image.bits_allocated <= 16 else 4
    cells = unpack_cells(data, count, image.bits_allocated)
    dataset.PixelData = cells.astype(f"<u{size}").tobytes()
    wider = replace(image, bits_allocated=8 * size)
    describe(dataset, wider)
    return wider


def full_colour(data: bytes) -> np.ndarray:
    """(N, 3) Y, Cb, Cr of every pixel from two pixels in four bytes: Y, Y, Cb, Cr."""
    pairs = np.frombuffer(data, np.uint8).reshape(-1, 4)
    return pairs[:, [0, 2, 3, 1, 2, 3]].reshape(-1, 3)


def partial_to_rgb(colours: np.ndarray) -> np.ndarray:
    """(…, 3) uint8 Y (16 to 235), Cb and Cr (16 to 240) → uint8 RGB."""
    rgb = (colours.astype(np.float32) - (16, 128, 128)) @ np.linalg.inv(_TO_PARTIAL).T
    levels: np.ndarray = np.clip(np.rint(rgb), 0, 255).astype(np.uint8)
    return levels
