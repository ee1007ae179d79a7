"""One DICOM file → modality values: rescale, padding, inversion, colour, window.

Every rule stands in docs/pixels.md with its place in the standard.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from pydicom.dataset import Dataset, FileDataset

from medcli.config import Window
from medcli.errors import ScanError
from medcli.imaging.dicom_cells import partial_to_rgb, standardise
from medcli.imaging.dicom_file import conformance_warning, quiet, read_dataset
from medcli.imaging.dicom_padding import fill_padding, padding_mask
from medcli.imaging.dicom_palette import palette_colours
from medcli.imaging.dicom_pixels import Layout, layout, stored_values
from medcli.imaging.dicom_rescale import Rescale, Table, modality_transform
from medcli.imaging.dicom_tags import text, value
from medcli.imaging.dicom_voi import (
    FrameTones,
    mirrored,
    mirrored_tones,
    spans_bytes,
    voi_tones,
    voi_window,
)
from medcli.imaging.values import compact, replace_nonfinite
from medcli.records import ScanWarning

WHOLE_BITS = 24
"""Bits of a value that float32 keeps."""

Unit = Literal["HU", "display", "stored"]
Warnings = tuple[ScanWarning, ...]


@dataclass(frozen=True, slots=True)
class DicomImage:
    """The pixels of one DICOM file.

    Parameters
    ----------
    pixels : (F, H, W, C) modality values, larger is brighter; colour is RGB, 0 to 255,
        float32 where it has more than 8 bits
    window : (center, width) in `unit`, the first VOI window of the file
    tones : VOI of each frame as `medcli.imaging.dicom_voi.voi_tones` gives it, in `unit`
    padded : how many pixels of each frame are padding; they hold the smallest value
        of all others. Colour has none
    decoder : library and version that decoded the pixel data
    """

    pixels: np.ndarray = field(repr=False)
    unit: Unit
    window: Window | None
    padded: tuple[int, ...] = field(repr=False)
    warnings: Warnings = ()
    decoder: str = ""
    tones: FrameTones = field(default=(), repr=False)


def read_image(path: str) -> DicomImage:
    """Read and decode one DICOM file.

    Raises
    ------
    ScanError : every code of a file, a header or pixel data (docs/codes.md)
    """
    with quiet() as notes:
        dataset = read_dataset(path)
        shape = standardise(path, dataset, layout(path, dataset))
        stored, decoder = stored_values(path, dataset, shape)
        try:
            stored = stored >> shape.shift if shape.shift else stored
            image = _image(path, dataset, stored, shape)
        except ScanError:
            raise
        except Exception as error:  # lookup tables of damaged files fail in many ways
            message = f"{path}: a lookup table or rescale value is damaged"
            raise ScanError("damaged_header", message) from error
    warnings = (*image.warnings, *conformance_warning(notes))
    return replace(image, decoder=decoder, warnings=warnings)


def _image(path: str, dataset: FileDataset, stored: np.ndarray, shape: Layout) -> DicomImage:
    """Stored values (F, H, W, C) → modality values and what goes with them."""
    signed, little_endian = shape.signed, dataset.original_encoding[1] is not False
    no_padding = (0,) * shape.frames
    if shape.photometric == "PALETTE COLOR":
        colours, reduced = palette_colours(
            dataset, stored, signed=signed, little_endian=little_endian
        )
        return DicomImage(colours, "display", None, no_padding, reduced)
    if shape.samples == 3:
        colour = partial_to_rgb(stored) if shape.photometric.startswith("YBR_PART") else stored
        pixels, reduced = _of_bytes(colour, shape.bits_stored)
        return DicomImage(pixels, "display", None, no_padding, reduced)
    transform, noticed = modality_transform(
        dataset, shape.frames, signed=signed, little_endian=little_endian
    )
    image = _grey_image(path, dataset, stored, shape, transform)
    return replace(image, warnings=(*noticed, *image.warnings))


def _of_bytes(colour: np.ndarray, bits: int) -> tuple[np.ndarray, Warnings]:
    """Colour of any depth as 0 to 255: uint8, of more than eight bits float32."""
    if bits == 8 and colour.dtype == np.uint8:
        return colour, ()
    spread = colour.clip(0, 2**bits - 1) * (255 / (2**bits - 1))
    if bits <= 8:
        return np.rint(spread).astype(np.uint8), ()
    if bits <= WHOLE_BITS:
        return spread.astype(np.float32), ()
    message = f"{bits} bits a channel reduced to {WHOLE_BITS}"
    return spread.astype(np.float32), (ScanWarning("reduced_bits", message),)


def _grey_image(
    path: str, dataset: FileDataset, stored: np.ndarray, shape: Layout, transform: Rescale | Table
) -> DicomImage:
    """Grey stored values → modality values, larger is brighter, padding darkest."""
    unit, window, values = _unit(dataset, transform), voi_window(dataset), transform(stored)
    tones = voi_tones(dataset, values, little_endian=dataset.original_encoding[1] is not False)
    if shape.photometric == "MONOCHROME1" and unit != "HU":  # HU keep their meaning
        total = transform.mirror(*_ends(stored, shape))
        whole = np.int64 if values.dtype.itemsize > 2 else np.int32
        values = total.astype(values.dtype if values.dtype.kind == "f" else whole) - values
        window = mirrored(window, float(total.flat[0]))
        tones = mirrored_tones(tones, total.ravel().tolist())
    values = compact(values) if values.dtype.kind == "f" else values
    values, replaced = replace_nonfinite(path, values)
    values, padded = fill_padding(values, padding_mask(dataset, stored, shape))
    table = value(dataset, "VOILUTSequence") or any(
        each and each.function == "LUT" for each in tones
    )
    as_stored = transform.is_identity and not table
    if as_stored and _is_for_display(values, shape, window):
        unit, values = "display", values.astype(np.uint8)
    return DicomImage(compact(values), unit, window, padded, replaced, tones=tones)


def _unit(dataset: Dataset, transform: Rescale | Table) -> Unit:
    """HU where a CT names its rescale (a blank or unspecified type means HU there)."""
    is_ct = text(dataset, "Modality") == "CT"
    return "HU" if is_ct and transform.given and transform.kind in (None, "HU", "US") else "stored"


def _is_for_display(values: np.ndarray, shape: Layout, window: Window | None) -> bool:
    """Whether grey values are bytes made to be looked at: no window changes them."""
    is_bytes = shape.bits_stored == 8 and not shape.signed and values.dtype.kind in "iu"
    unchanged = window is None or spans_bytes(window)
    return is_bytes and unchanged and values.min() >= 0 and values.max() <= 255


def _ends(stored: np.ndarray, shape: Layout) -> tuple[float, float]:
    """Smallest and largest value the pixels can store, by their bits; floats, do store."""
    if stored.dtype.kind == "f":
        finite = stored[np.isfinite(stored)]
        return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    size = 1 << shape.bits_stored
    return (-size // 2, size // 2 - 1) if shape.signed else (0, size - 1)
