"""What the header of a volume file announces, whatever its format, and helpers to parse one."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass, field
from typing import BinaryIO, Literal

import numpy as np

from medcli.errors import ScanError
from medcli.imaging.files import MEMBER, open_file
from medcli.records import ScanWarning

VolumeFormat = Literal["nifti", "analyze", "nrrd", "metaimage", "minc"]
Compression = Literal["none", "gzip", "zlib"]
Spacing = tuple[float | None, float | None, float | None]

SHEAR_DEGREES = 0.5
"""Axes that are off the right angle by more are named as sheared."""

_HEADER_LIMIT = 2**20
_HEADER_CHUNK = 2**12


@dataclass(frozen=True, slots=True)
class VolumeHeader:
    """What a header announces.

    Parameters
    ----------
    size : values along every axis of the file, the fastest first
    spatial : which axes of `size` are x, y (and z)
    time, channel : which axis holds time points, and the values of one voxel
    dtype : number type and byte order of a value
    affine : (4, 4) index (x, y, z) → LPS mm
    spacing : (x, y, z) mm, None where unknown
    slope, intercept : stored value → modality value
    data_file : where the voxels are: the file itself or its neighbour
    offset : bytes before them; inside the stream where the whole file is compressed
    offset_in_stream : whether `offset` counts inflated bytes
    """

    format: VolumeFormat
    size: tuple[int, ...]
    spatial: tuple[int, ...]
    dtype: np.dtype
    affine: np.ndarray = field(repr=False)
    spacing: Spacing
    data_file: str
    offset: int
    compression: Compression = "none"
    offset_in_stream: bool = False
    time: int | None = None
    channel: int | None = None
    slope: float = 1.0
    intercept: float = 0.0
    warnings: tuple[ScanWarning, ...] = ()

    @property
    def length(self) -> int:
        """Bytes of all voxels, uncompressed."""
        return math.prod(self.size) * self.dtype.itemsize

    @property
    def time_points(self) -> int:
        """How many volumes the file holds."""
        return 1 if self.time is None else self.size[self.time]

    @property
    def is_colour(self) -> bool:
        """Whether the values of a voxel are red, green and blue: three or four bytes."""
        bytes_ = self.dtype == np.uint8
        return bytes_ and self.channel is not None and self.size[self.channel] in (3, 4)


def damaged(path: str) -> ScanError:
    """The error of a header that cannot be made sense of."""
    return ScanError("damaged_header", f"{path}: the header is damaged", "Copy it again")


def truncated(path: str) -> ScanError:
    """The error of a file that is shorter than its header says."""
    return ScanError("truncated", f"{path}: the file ends before its voxels do", "Copy it again")


def unsupported(path: str, what: str) -> ScanError:
    """The error of a variant of a format that medcli does not read."""
    message = f"{path}: {what}"
    return ScanError("unsupported_pixels", message, "Convert it with another program")


def make_affine(directions: np.ndarray, spacing: Spacing, origin: np.ndarray) -> np.ndarray:
    """(4, 4) of unit vectors in the columns x, y, z; an unknown spacing counts as 1 mm."""
    affine = np.eye(4)
    affine[:3, :3] = directions * np.array([step or 1.0 for step in spacing])
    affine[:3, 3] = origin
    return affine


def no_orientation(why: str) -> ScanWarning:
    """The warning of a volume that does not say how it lies in the patient."""
    message = f"{why}: its axes are taken to run to the patient's left, back and head"
    return ScanWarning("orientation_missing", message)


def shear_warning(affine: np.ndarray) -> tuple[ScanWarning, ...]:
    """A warning where the axes of an affine are not at right angles."""
    unit = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    cosines = np.abs(unit.T @ unit)[np.triu_indices(3, 1)]
    angle = math.degrees(math.asin(min(1.0, float(cosines.max()))))
    if angle <= SHEAR_DEGREES:
        return ()
    return (ScanWarning("tilt", f"the axes of the volume are sheared by {angle:.1f}°"),)


def text_header(path: str, file: BinaryIO, end: re.Pattern[bytes]) -> str:
    """The text up to and including the first match of `end`; the file stands behind it."""
    data = b""
    while (match := end.search(data)) is None:
        chunk = file.read(_HEADER_CHUNK)
        if not chunk:
            break
        data += chunk
        if len(data) > _HEADER_LIMIT:
            raise damaged(path)
    stop = match.end() if match else len(data)
    file.seek(stop)
    return data[:stop].decode("latin-1")


def neighbour(path: str, name: str) -> str:
    """A data file named by a header: in the same folder only, and one only."""
    bare = name.removeprefix("./")
    if re.search(r"[/\\%]", bare) or name.upper().startswith("LIST") or not bare:
        raise unsupported(path, "its data are in other folders or in several files")
    return beside(path, bare)


def beside(path: str, name: str) -> str:
    """The path of `name` in the folder, or the archive, of `path`."""
    start = max(path.rfind("/"), path.rfind(os.sep), path.rfind(MEMBER) + 1)
    return path[: start + 1] + name


def file_size(path: str) -> int:
    """Bytes of a file or of a member of an archive.

    Raises
    ------
    ScanError : as `open_file`
    """
    with open_file(path, start_only=True) as file:
        return file.seek(0, os.SEEK_END)
