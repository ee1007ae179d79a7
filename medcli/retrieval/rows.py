"""What the catalogue stores: rows, and the checksums that guard them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np

_SURROGATES = re.compile("[\ud800-\udfff]")  # among them what stands for bytes that are no UTF-8

# The columns of a scan, in the order of `ScanRow`.
FIELDS = (
    "scan_id, path, files, n_slices, label, patient, modality, format, decoder, "
    "pixel_sha256, metadata"
)


def storable(text: str | None) -> str | bytes | None:
    """A text as SQLite can hold it: bytes where it is a file name that is no UTF-8.

    Raises
    ------
    ValueError : lone surrogates that stand for no bytes of a file name
    """
    if text is None or not _SURROGATES.search(text):
        return text
    data = text.encode("utf-8", "surrogateescape")  # a ValueError for other surrogates
    if restored(data) != text:
        raise ValueError("surrogates that stand for valid UTF-8")
    return data


def restored(stored: Any) -> Any:
    """What `storable` was given; all other values as they are."""
    return stored.decode("utf-8", "surrogateescape") if isinstance(stored, bytes) else stored


@dataclass(frozen=True, slots=True)
class ScanRow:
    """What the catalogue knows about a scan; `patient` is a keyed hash."""

    scan_id: str
    path: str
    files: tuple[str, ...]
    n_slices: int
    label: str | None = None
    patient: str | None = None
    modality: str | None = None
    format: str | None = None
    decoder: str | None = None
    pixel_sha256: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict, repr=False)

    def columns(self) -> tuple[Any, ...]:
        """The values in the order of the table."""
        return (
            self.scan_id,
            self.path,
            json.dumps(self.files),
            self.n_slices,
            self.label,
            self.patient,
            self.modality,
            self.format,
            self.decoder,
            self.pixel_sha256,
            json.dumps(dict(self.metadata), sort_keys=True),
        )

    @classmethod
    def from_columns(cls, values: Sequence[Any]) -> Self:
        """The row of the values in the order of the table."""
        row = cls(*values)
        return replace(row, files=tuple(json.loads(values[2])), metadata=json.loads(values[-1]))


@dataclass(frozen=True, slots=True)
class StoredScan:
    """A scan read back and found intact.

    Parameters
    ----------
    vectors : (V, D) float16, unit length before rounding; one row is the scan as a
        whole, the others are slices
    slice_numbers : (V,) int, the slice of each vector; -1 for the scan as a whole
    views : (V,) what each slice was rendered with
    """

    id: int
    row: ScanRow
    vectors: np.ndarray = field(repr=False)
    slice_numbers: np.ndarray = field(repr=False)
    views: tuple[str, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class VectorRow:
    """One vector on its way into the catalogue: (D,) float16; slice None: the whole scan."""

    slice: int | None
    view: str
    vector: np.ndarray


@dataclass(frozen=True, slots=True)
class SliceRow:
    """A slice: source file and JPEG, if one was made."""

    slice: int
    file: str
    thumbnail: bytes | None = field(default=None, repr=False)

    def checksum(self, scan: int) -> bytes:
        """A digest over the row, the id of its scan included."""
        head = json.dumps([scan, self.slice, self.file, self.thumbnail is not None])
        return hashlib.blake2b(head.encode() + (self.thumbnail or b""), digest_size=16).digest()


@dataclass(frozen=True, slots=True)
class State:
    """What one transaction sees: the generation and how many vectors it holds."""

    generation: int
    scans: int
    slice_vectors: int


def row_checksum(columns: Sequence[Any], vectors: Iterable[tuple[int | None, str, bytes]]) -> bytes:
    """A digest over a scan's fields and all its vectors."""
    digest = hashlib.blake2b(json.dumps(columns).encode(), digest_size=16)
    for number, view, blob in vectors:
        digest.update(f"\n{number} {len(blob)} {view}\n".encode())
        digest.update(blob)
    return digest.digest()
