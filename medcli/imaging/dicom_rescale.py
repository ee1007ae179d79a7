"""Stored value → modality value: rescale slope and intercept, or a lookup table.

References
----------
DICOM PS3.3 C.11.1, Modality LUT Module; C.7.6.16.2.9, Pixel Value Transformation
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydicom.dataset import Dataset

from medcli.imaging.dicom_lut import descriptor, entries
from medcli.imaging.dicom_tags import functional_groups, macro, numbers, text, value
from medcli.imaging.values import compact
from medcli.records import ScanWarning


@dataclass(frozen=True, slots=True)
class Rescale:
    """Slope and intercept of each frame, (F, 1, 1, 1) float64.

    `kind` is RescaleType, None where blank; `given` whether the file names a rescale.
    """

    slope: np.ndarray
    intercept: np.ndarray
    kind: str | None
    given: bool

    @property
    def is_identity(self) -> bool:
        """Whether modality values are the stored ones."""
        return bool(np.all(self.slope == 1) and np.all(self.intercept == 0))

    def __call__(self, stored: np.ndarray) -> np.ndarray:
        """(F, H, W, 1) modality values; whole numbers stay whole, so that HU are exact."""
        if self.is_identity:
            return stored
        factors = np.concatenate([self.slope, self.intercept])
        small = stored.dtype.kind in "iu" and stored.dtype.itemsize <= 2
        if small and np.all(factors % 1 == 0) and np.abs(factors).max() < 2**14:
            whole: np.ndarray = stored * self.slope.astype(np.int32)
            whole += self.intercept.astype(np.int32)
            return whole
        return compact(stored * self.slope + self.intercept)

    def mirror(self, low: float, high: float) -> np.ndarray:
        """(F, 1, 1, 1) the sum of what the stored values `low` and `high` become."""
        total: np.ndarray = (low + high) * self.slope + 2 * self.intercept
        return total


@dataclass(frozen=True, slots=True)
class Table:
    """The entries of a Modality LUT; `first` is the stored value of entry 0."""

    entries: np.ndarray
    first: int
    bits: int
    kind: str | None
    given: bool = True
    is_identity: bool = False

    def __call__(self, stored: np.ndarray) -> np.ndarray:
        """(F, H, W, 1) entries; values beyond the table take its first or last."""
        indices = np.clip(stored.astype(np.int64) - self.first, 0, len(self.entries) - 1)
        values: np.ndarray = self.entries[indices]
        return values

    def mirror(self, low: float, high: float) -> np.ndarray:
        """(1, 1, 1, 1) the sum of the smallest and largest entry that fit its bits."""
        return np.full((1, 1, 1, 1), 2.0**self.bits - 1)


def modality_transform(
    dataset: Dataset, frames: int, *, signed: bool, little_endian: bool
) -> tuple[Rescale | Table, tuple[ScanWarning, ...]]:
    """What turns the stored values of a file into modality values.

    Raises
    ------
    ValueError : a lookup table that contradicts its descriptor
    """
    tables = value(dataset, "ModalityLUTSequence")
    if tables:
        return _table(tables[0], signed=signed, little_endian=little_endian), ()
    groups = functional_groups(dataset, frames)[:frames]
    sources = [macro(group, "PixelValueTransformationSequence") or dataset for group in groups]
    if len(sources) != frames:
        sources = [dataset]
    slopes = np.array([_number(each, "RescaleSlope", 1.0) for each in sources])
    intercepts = np.array([_number(each, "RescaleIntercept", 0.0) for each in sources])
    warnings: tuple[ScanWarning, ...] = ()
    if np.any(slopes == 0):
        slopes[slopes == 0] = 1.0
        warnings = (ScanWarning("rescale_slope_zero", "the rescale slope is 0; taken as 1"),)
    shape = (-1, 1, 1, 1)
    return Rescale(
        slopes.reshape(shape),
        intercepts.reshape(shape),
        text(sources[0], "RescaleType"),
        numbers(sources[0], "RescaleIntercept", 1) is not None,
    ), warnings


def _number(dataset: Dataset, keyword: str, default: float) -> float:
    found = numbers(dataset, keyword, 1)
    return default if found is None else found[0]


def _table(item: Dataset, *, signed: bool, little_endian: bool) -> Table:
    """The lookup table of an item of the Modality LUT Sequence."""
    count, first, bits = descriptor(item, "LUTDescriptor", signed=signed)
    table = entries(value(item, "LUTData"), count, little_endian=little_endian)
    return Table(table, first, bits, text(item, "ModalityLUTType"))
