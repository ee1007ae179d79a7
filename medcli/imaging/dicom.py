"""One DICOM file → modality values: rescale, padding, inversion, colour, window."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from pydicom.dataset import Dataset, FileDataset
from pydicom.pixels.processing import apply_color_lut

from medcli.config import Window
from medcli.errors import ScanError
from medcli.imaging.dicom_file import conformance_warning, quiet, read_dataset
from medcli.imaging.dicom_pixels import Layout, layout, stored_values
from medcli.imaging.dicom_rescale import Rescale, Table, modality_transform
from medcli.imaging.dicom_tags import functional_groups, macro, numbers, text, value
from medcli.imaging.values import compact, replace_nonfinite
from medcli.records import ScanWarning

Unit = Literal["HU", "display", "stored"]


@dataclass(frozen=True, slots=True)
class DicomImage:
    """The pixels of one DICOM file.

    Parameters
    ----------
    pixels : (F, H, W, C) modality values, larger is brighter; colour is uint8 RGB
    window : (center, width) in `unit`, the first VOI window of the file
    decoder : library and version that decoded the pixel data
    """

    pixels: np.ndarray = field(repr=False)
    unit: Unit
    decoder: str
    window: Window | None = None
    warnings: tuple[ScanWarning, ...] = ()


def read_image(path: str) -> DicomImage:
    """Read and decode one DICOM file.

    Raises
    ------
    ScanError : every code of a file, a header or pixel data (docs/codes.md)
    """
    with quiet() as notes:
        dataset = read_dataset(path)
        shape = layout(path, dataset)
        stored, decoder = stored_values(path, dataset, shape)
        try:
            pixels, unit, window, noticed = _modality_values(dataset, stored, shape)
        except Exception as error:  # lookup tables of damaged files fail in many ways
            message = f"{path}: a lookup table or rescale value is damaged"
            raise ScanError("damaged_header", message) from error
    return DicomImage(pixels, unit, decoder, window, (*noticed, *conformance_warning(notes)))


Values = tuple[np.ndarray, Unit, Window | None, tuple[ScanWarning, ...]]


def _modality_values(dataset: FileDataset, stored: np.ndarray, shape: Layout) -> Values:
    """Stored values (F, H, W, C) → modality values, their unit, window and warnings."""
    if shape.photometric == "PALETTE COLOR":
        stored = apply_color_lut(stored[..., 0], dataset)[..., :3]
        bits = 16 if stored.dtype.itemsize == 2 and stored.max(initial=0) > 255 else 8
        return (stored >> (bits - 8)).astype(np.uint8), "display", None, ()
    if shape.samples == 3:
        return _eight_bits(stored, shape)
    return _grey_values(dataset, stored, shape)


def _eight_bits(colour: np.ndarray, shape: Layout) -> Values:
    """Colour of any depth as uint8."""
    if shape.bits_stored <= 8:
        return colour.astype(np.uint8), "display", None, ()
    message = f"{shape.bits_stored} bits a channel reduced to 8"
    reduced = (colour >> (shape.bits_stored - 8)).astype(np.uint8)
    return reduced, "display", None, (ScanWarning("reduced_bits", message),)


def _grey_values(dataset: FileDataset, stored: np.ndarray, shape: Layout) -> Values:
    """Grey stored values → modality values, larger is brighter, padding darkest."""
    transform, warnings = modality_transform(dataset, shape.frames, shape.signed)
    unit = _unit(dataset, transform)
    window = _window(dataset)
    values = transform(stored)
    if shape.photometric == "MONOCHROME1" and unit != "HU":  # HU keep their meaning
        total = transform.mirror(*_ends(stored, shape))
        values = total.astype(values.dtype if values.dtype.kind == "f" else np.int64) - values
        window = _inverted(window, float(total.flat[0]))
    values, replaced = replace_nonfinite(values)
    values = _fill_padding(dataset, stored, values, shape)
    as_shown = transform.is_identity and window is None and not value(dataset, "VOILUTSequence")
    if as_shown and shape.bits_stored == 8 and not shape.signed:
        return values.astype(np.uint8), "display", None, (*warnings, *replaced)
    return compact(values), unit, window, (*warnings, *replaced)


def _unit(dataset: Dataset, transform: Rescale | Table) -> Unit:
    """HU where a CT names its rescale (a blank or unspecified type means HU there)."""
    is_ct = text(dataset, "Modality") == "CT"
    return "HU" if is_ct and transform.given and transform.kind in (None, "HU", "US") else "stored"


def _window(dataset: Dataset) -> Window | None:
    """The first VOI window, None where there is none or its width is below 1."""
    groups = functional_groups(dataset)[:1]
    source = (macro(groups[0], "FrameVOILUTSequence") if groups else None) or dataset
    center, width = (_first(source, name) for name in ("WindowCenter", "WindowWidth"))
    return (center, width) if center is not None and width is not None and width >= 1 else None


def _first(dataset: Dataset, keyword: str) -> float | None:
    """The first of a tag's numbers."""
    found = text(dataset, keyword)
    try:
        number = float(found.split("\\")[0]) if found else None
    except ValueError:
        return None
    return number if number is not None and np.isfinite(number) else None


def _inverted(window: Window | None, total: float) -> Window | None:
    """The window on `total - x` that shows what 1 − window(x) showed (LINEAR, PS3.3 C.11.2)."""
    return None if window is None else (total - window[0] + 1, window[1])


def _ends(stored: np.ndarray, shape: Layout) -> tuple[float, float]:
    """Smallest and largest value the pixels can store, by their bits; floats, do store."""
    if stored.dtype.kind == "f":
        return float(stored.min()), float(stored.max())
    size = 1 << shape.bits_stored
    return (-size // 2, size // 2 - 1) if shape.signed else (0, size - 1)


def _fill_padding(
    dataset: Dataset, stored: np.ndarray, values: np.ndarray, shape: Layout
) -> np.ndarray:
    """`values` with padding as the smallest value that is none (PS3.3 C.7.5.1.1.2)."""
    first = _padding(dataset, "PixelPaddingValue", shape)
    if first is None:
        return values
    last = _padding(dataset, "PixelPaddingRangeLimit", shape)
    low, high = sorted((first, first if last is None else last))
    padding = (stored >= low) & (stored <= high)
    if not padding.any() or padding.all():
        return values
    return np.where(padding, values[~padding].min(), values)


def _padding(dataset: Dataset, keyword: str, shape: Layout) -> float | None:
    """A padding value in the sign of the pixels; writers often store it in the other."""
    found = numbers(dataset, keyword, 1)
    if found is None:
        return None
    number, size = int(found[0]), 1 << shape.bits_allocated
    if shape.signed and number >= size // 2:
        return number - size
    return number + size if number < 0 and not shape.signed else number
