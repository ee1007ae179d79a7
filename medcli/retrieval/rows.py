"""What the catalogue stores: rows, and the checksums that guard them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np

from medcli.records import Source

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


def cells(values: Iterable[Any]) -> tuple[Any, ...]:
    """The values of a row as SQLite can hold them; see `storable`."""
    return tuple(storable(value) if isinstance(value, str) else value for value in values)


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
    def from_columns(cls, values: Sequence[Any], root: str | None = None) -> Self:
        """The row of the values in the order of the table, with the paths as they are used."""
        used: list[Any] = [*values]
        used[0], used[1] = under(values[0], root), under(values[1], root)
        used[2] = tuple(under(file, root) for file in json.loads(values[2]))
        used[-1] = json.loads(values[-1])
        return cls(*used)

    def below(self, root: str | None) -> Self:
        """The row with the paths as they are stored; see `below`."""
        return self._mapped(below, root)

    def under(self, root: str | None) -> Self:
        """The row with the paths as they are used; see `under`."""
        return self._mapped(under, root)

    def _mapped(self, change: Callable[[str, str | None], str], root: str | None) -> Self:
        return replace(
            self,
            scan_id=change(self.scan_id, root),
            path=change(self.path, root),
            files=tuple(change(file, root) for file in self.files),
        )


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

    def below(self, root: str | None) -> Self:
        """The row with the path as it is stored."""
        return replace(self, file=below(self.file, root))

    def under(self, root: str | None) -> Self:
        """The row with the path as it is used."""
        return replace(self, file=under(self.file, root))

    def values(self, scan: int) -> tuple[Any, ...]:
        """The values in the order of the table."""
        return scan, self.slice, self.file, self.thumbnail, self.checksum(scan)

    def checksum(self, scan: int) -> bytes:
        """A digest over the row, the id of its scan included."""
        head = _told([scan, self.slice, self.file, self.thumbnail is not None])
        picture = self.thumbnail or b""
        # damage may have changed the type of a cell
        content = picture if isinstance(picture, bytes) else _told(picture)
        return hashlib.blake2b(head + content, digest_size=16).digest()


@dataclass(frozen=True, slots=True)
class State:
    """What one transaction sees: the generation and how many vectors it holds."""

    generation: int
    scans: int
    slice_vectors: int


def below(path: str, root: str | None) -> str:
    """`path` as it is stored: from `root` where it lies there, as in ``./a/b.dcm``."""
    if root is None or not path.startswith(root.rstrip("/") + "/"):
        return "./" if path == root else path
    return "./" + path[len(root.rstrip("/")) + 1 :]


def under(path: str, root: str | None) -> str:
    """`path` as it is used: the inverse of `below`."""
    if root is None or not path.startswith("./"):
        return path
    return os.path.join(root, path[2:]) if path != "./" else root


def fields_checksum(scan: int, columns: Sequence[Any]) -> bytes:
    """A digest over a scan's fields without its vectors, the id included."""
    return hashlib.blake2b(_told([scan, *columns]), digest_size=16).digest()


def source_values(scan: int, columns: Sequence[Any], source: Source | None) -> tuple[Any, ...]:
    """The row of `sources`, in the order of the table; `columns` are those of the scan."""
    recipe, sha256 = None, None
    if source is not None:
        recipe, sha256 = json.dumps(dataclasses.asdict(source)), source.sha256
    fields = fields_checksum(scan, columns)
    return scan, recipe, sha256, fields, source_checksum(scan, recipe, sha256, fields)


def source_checksum(scan: int, recipe: str | None, sha256: str | None, fields: bytes) -> bytes:
    """A digest over a row of `sources`."""
    return hashlib.blake2b(_told([scan, recipe, sha256, fields]), digest_size=16).digest()


def source_of(recipe: str | None) -> Source | None:
    """The record of a recipe as it is stored."""
    if recipe is None:
        return None
    values = json.loads(recipe)
    return Source(**{**values, "stats": tuple((size, mtime) for size, mtime in values["stats"])})


def _told(values: Any) -> bytes:
    """What a digest is made over; a cell of any type can be told, damaged ones too."""
    return json.dumps(values, default=repr).encode()


def row_checksum(columns: Sequence[Any], vectors: Iterable[tuple[int | None, str, bytes]]) -> bytes:
    """A digest over a scan's fields and all its vectors."""
    digest = hashlib.blake2b(_told(columns), digest_size=16)
    for number, view, blob in vectors:
        digest.update(f"\n{number} {len(blob)} {view}\n".encode())
        digest.update(blob)
    return digest.digest()
