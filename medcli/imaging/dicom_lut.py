"""Lookup tables in DICOM files: their descriptor, their entries, segmented data.

References
----------
DICOM PS3.3 C.11.1.1, LUT Descriptor; C.7.6.3.1.5 and C.7.6.3.1.6, Palette Color Lookup
Table Descriptor and Data; C.7.9.2, Segmented Palette Color Lookup Table Data
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydicom.dataset import Dataset

from medcli.imaging.dicom_tags import numbers


def descriptor(dataset: Dataset, keyword: str, *, signed: bool) -> tuple[int, int, int]:
    """Number of entries, first stored value mapped, and bits of an entry.

    The second has the sign of the pixels, and is often written in the other.

    Raises
    ------
    ValueError : a descriptor that is missing or is not three numbers
    """
    found = numbers(dataset, keyword, 3)
    if found is None:
        raise ValueError(f"no {keyword}")
    count, first, bits = (int(part) for part in found)
    if signed and first >= 2**15:
        first -= 2**16
    return count or 2**16, first, bits


def entries(data: object, count: int, *, little_endian: bool) -> np.ndarray:
    """(count,) uint8 or uint16, from bytes (OW; two 8-bit entries a word) or numbers (US, SS).

    Raises
    ------
    ValueError : data of another length
    """
    if not isinstance(data, bytes):
        found = np.asarray(data).astype(np.uint16).reshape(-1)
    elif len(data) < 2 * count and len(data) in (count, count + count % 2):
        found = elements(data, 1, little_endian=little_endian)
    else:
        found = elements(data, 2, little_endian=little_endian)
    if len(found) < count:
        raise ValueError("a lookup table shorter than its descriptor says")
    return found[:count]


def elements(data: bytes, size: int, *, little_endian: bool) -> np.ndarray:
    """The numbers of `size` bytes, 1 or 2, in data that are stored as words."""
    padded = data + b"\0" * (len(data) % 2)
    words = np.frombuffer(padded, "<u2" if little_endian else ">u2")
    return words.astype("<u2").view(np.uint8) if size == 1 else words.astype(np.uint16)


def expanded(segments: Sequence[int], count: int, size: int) -> list[int]:
    """Segmented data → the `count` entries of their table.

    Every step gives an entry or is one of the indirect segments, which do not nest, so
    no data take more than 2 · `count` steps.

    Parameters
    ----------
    segments : the data, one number for each element
    size : bytes of an element, 1 or 2

    Raises
    ------
    ValueError, IndexError : data that break the rules or end early
    """
    table: list[int] = []
    position, back, copies = 0, None, 0  # when `copies` segments are done, go on at `back`
    while len(table) < count:
        if back is not None and not copies:
            position, back = back, None
        kind, length = segments[position], segments[position + 1]
        position += 2
        if not length or kind > 2 or (kind == 2 and back is not None):
            raise ValueError("a segment of a lookup table that is not allowed")
        if kind == 2:
            back, copies = position + 4 // size, length
            offset = segments[position:back]  # in bytes, least significant part first
            position = sum(part << 8 * size * place for place, part in enumerate(offset)) // size
            continue
        if kind == 0:
            table.extend(segments[position : position + length])
            position += length
        else:
            line = np.linspace(table[-1], segments[position], length + 1)[1:]
            table.extend(np.rint(line).astype(int).tolist())
            position += 1
        copies -= 1
    return table[:count]
