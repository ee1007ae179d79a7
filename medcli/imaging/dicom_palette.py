"""PALETTE COLOR: stored value → red, green and blue by three lookup tables.

An alpha table and the supplemental palette of grey images are not used.

References
----------
DICOM PS3.3 C.7.6.3.1.2, Photometric Interpretation PALETTE COLOR; C.7.9, Palette Color
Lookup Table Module
"""

from __future__ import annotations

import numpy as np
from pydicom.dataset import Dataset

from medcli.imaging.dicom_lut import descriptor, elements, entries, expanded
from medcli.imaging.dicom_tags import value
from medcli.records import ScanWarning


def palette_colours(
    dataset: Dataset, stored: np.ndarray, *, signed: bool, little_endian: bool
) -> tuple[np.ndarray, tuple[ScanWarning, ...]]:
    """(F, H, W, 1) stored values → (F, H, W, 3) uint8 RGB, and a warning where bits were lost.

    Values beyond a table take its first or last entry. Of 16-bit entries the upper
    eight bits are kept, or the lower ones where all entries fit into them.

    Raises
    ------
    ValueError, IndexError : a table that is missing or contradicts its descriptor
    """
    tables = [
        _table(dataset, colour, signed=signed, little_endian=little_endian)
        for colour in ("Red", "Green", "Blue")
    ]
    shift = 8 if max(int(table.max()) for table, _ in tables) > 255 else 0
    lost = shift and any(_is_finer(table) for table, _ in tables)
    message = "16 bits a channel of the palette reduced to 8"
    values = stored[..., 0].astype(np.int32 if stored.dtype.itemsize <= 2 else np.int64)
    colours = np.empty((*values.shape, 3), np.uint8)
    for channel, (table, first) in enumerate(tables):
        indices = np.clip(values - first, 0, len(table) - 1)
        colours[..., channel] = (table >> shift).astype(np.uint8)[indices]
    return colours, (ScanWarning("reduced_bits", message),) if lost else ()


def _is_finer(table: np.ndarray) -> bool:
    """Whether the lower eight bits of any entry are neither 0 nor a copy of the upper ones."""
    lower = table & 255
    return bool(np.any((lower != 0) & (lower != table >> 8)))


def _table(
    dataset: Dataset, colour: str, *, signed: bool, little_endian: bool
) -> tuple[np.ndarray, int]:
    """The entries of one colour, and the stored value of the first."""
    prefix = f"{colour}PaletteColorLookupTable"
    count, first, bits = descriptor(dataset, f"{prefix}Descriptor", signed=signed)
    data = value(dataset, f"{prefix}Data")
    if data is not None:
        return entries(data, count, little_endian=little_endian), first
    segments, size = value(dataset, f"Segmented{prefix}Data"), 1 if bits == 8 else 2
    if not isinstance(segments, bytes):
        raise ValueError(f"no lookup table for {colour}")
    parts = elements(segments, size, little_endian=little_endian)
    return np.array(expanded(parts.tolist(), count, size), np.uint16), first
