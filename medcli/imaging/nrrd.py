"""The headers of NRRD files, with attached or detached data.

References
----------
https://teem.sourceforge.net/nrrd/format.html
"""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np

from medcli.imaging.files import open_file
from medcli.imaging.volume_header import (
    Spacing,
    VolumeHeader,
    damaged,
    file_size,
    make_affine,
    neighbour,
    no_orientation,
    shear_warning,
    text_header,
    unsupported,
)
from medcli.records import ScanWarning

_END = re.compile(rb"\r?\n\r?\n")
_TYPES = {
    "i1": ("signed char", "int8", "int8_t"),
    "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "i4": ("int", "signed int", "int32", "int32_t"),
    "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
    "i8": (
        "longlong", "long long", "long long int", "signed long long", "signed long long int",
        "int64", "int64_t",
    ),
    "u8": (
        "ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t",
    ),
    "f4": ("float",),
    "f8": ("double",),
}  # fmt: skip
_DTYPES = {name: dtype for dtype, names in _TYPES.items() for name in names}
_SIGNS = {  # of the world axes that turn a space into LPS
    "left-posterior-superior": (1, 1, 1),
    "lps": (1, 1, 1),
    "right-anterior-superior": (-1, -1, 1),
    "ras": (-1, -1, 1),
    "left-anterior-superior": (1, -1, 1),
    "las": (1, -1, 1),
}
_SPATIAL_KINDS = ("domain", "space")
_TIME_KINDS = ("time", "list")
_UNKNOWN = "???"


def read_nrrd_header(path: str) -> VolumeHeader:
    """Read the header of an NRRD file.

    Raises
    ------
    ScanError : not_found, unreadable, damaged_header, unsupported_pixels
    ValueError, KeyError : a field is missing or malformed
    """
    with open_file(path, start_only=True) as file:
        lines = text_header(path, file, _END).splitlines()
        attached = file.tell()
    if not lines or not lines[0].startswith("NRRD"):
        raise damaged(path)
    fields = {
        key.strip().lower(): value.strip()
        for key, _, value in (line.partition(":") for line in lines[1:] if line[:1] != "#")
    }
    size = tuple(int(part) for part in fields["sizes"].split())
    dtype = _dtype(fields)
    encoding = fields["encoding"].lower()
    if encoding not in ("raw", "gzip", "gz"):
        raise unsupported(path, "NRRD encoding other than raw and gzip")
    spatial, time, channel = _axes(path, fields, size)
    affine, spacing, warnings = _geometry(fields, spatial)
    data_file, offset = _data(path, fields, attached, encoding == "raw")
    header = VolumeHeader(
        format="nrrd",
        size=size,
        spatial=spatial,
        dtype=dtype,
        affine=affine,
        spacing=spacing,
        data_file=data_file,
        offset=offset,
        compression="none" if encoding == "raw" else "gzip",
        time=time,
        channel=channel,
        warnings=warnings,
    )
    return header if offset >= 0 else _at_the_end(header)


def _dtype(fields: dict[str, str]) -> np.dtype:
    name = _DTYPES[fields["type"].lower()]
    order = fields.get("endian", "little").lower()
    if order not in ("little", "big"):
        raise ValueError("an unknown byte order")
    return np.dtype(name).newbyteorder(">" if order == "big" else "<")


def _data(path: str, fields: dict[str, str], attached: int, raw: bool) -> tuple[str, int]:
    """The data file and the bytes before the data; -1 where they end the file."""
    named = fields.get("data file", fields.get("datafile"))
    skip = int(fields.get("byte skip", fields.get("byteskip", "0")))
    lines = int(fields.get("line skip", fields.get("lineskip", "0")))
    if lines or skip < -1 or (skip and not raw):
        raise unsupported(path, "NRRD data with skipped lines or bytes")
    start = attached if named is None else 0
    return path if named is None else neighbour(path, named), -1 if skip < 0 else start + skip


def _at_the_end(header: VolumeHeader) -> VolumeHeader:
    """The header of data that end their file."""
    return replace(header, offset=max(0, file_size(header.data_file) - header.length))


def _axes(
    path: str, fields: dict[str, str], size: tuple[int, ...]
) -> tuple[tuple[int, ...], int | None, int | None]:
    """Which axes are x, y, z, which one is time, and which holds the values of a voxel.

    Axes in space have directions; without any they are the first three, or the three
    behind a first one whose kind or size is that of a colour or a vector. A further axis
    is time where its kind says so, or where it is the slowest and has no kind.
    """
    kinds = [kind.lower() for kind in fields.get("kinds", "").split()] or [_UNKNOWN] * len(size)
    vectors = _vectors(fields.get("space directions", ""))
    if len(kinds) != len(size) or len(vectors) not in (0, len(size)):
        raise damaged(path)
    if vectors:
        spatial = [axis for axis, vector in enumerate(vectors) if vector is not None]
    else:
        plain = kinds[0] in (_UNKNOWN, *_SPATIAL_KINDS)
        first = 1 if len(size) > 3 and (size[0] in (3, 4) or not plain) else 0
        spatial = list(range(first, min(first + 3, len(size))))
    if not spatial:
        raise damaged(path)
    spatial, further = spatial[:3], [axis for axis in range(len(size)) if axis not in spatial[:3]]
    time = next((axis for axis in further if kinds[axis] in (*_TIME_KINDS, *_SPATIAL_KINDS)), None)
    if time is None and further and further[-1] > spatial[-1] and kinds[further[-1]] == _UNKNOWN:
        time = further[-1]
    return tuple(spatial), time, next((axis for axis in further if axis != time), None)


def _vectors(text: str) -> list[np.ndarray | None]:
    """``(1,0,0) none (0,1,0)`` as one vector or None for each axis."""
    found: list[np.ndarray | None] = []
    for inside in re.findall(r"\(([^)]*)\)|none", text):
        found.append(np.array([float(part) for part in inside.split(",")]) if inside else None)
    return found


def _geometry(
    fields: dict[str, str], spatial: tuple[int, ...]
) -> tuple[np.ndarray, Spacing, tuple[ScanWarning, ...]]:
    """The affine (x, y, z) → LPS mm, the spacing, and what is odd about them."""
    vectors = [
        vector for vector in _vectors(fields.get("space directions", "")) if vector is not None
    ]
    space = fields.get("space", "").lower().removesuffix("-time").removesuffix("t")
    signs = _SIGNS.get(space)
    if not vectors or len(vectors[0]) < 3 or len(vectors) < 3:
        x, y, z = _spacings(fields, vectors, spatial)
        affine = make_affine(np.eye(3), (x, y, z), np.zeros(3))
        return affine, (x, y, z), (no_orientation("the header names no directions in space"),)
    directions = np.column_stack([vector[:3] for vector in vectors[:3]])
    origins = _vectors(fields.get("space origin", ""))
    origin = origins[0][:3] if origins and origins[0] is not None else np.zeros(3)
    turn = np.array(signs or (1, 1, 1), dtype=float)
    affine = np.eye(4)
    affine[:3, :3] = directions * turn[:, np.newaxis]
    affine[:3, 3] = origin * turn
    x, y, z = np.linalg.norm(directions, axis=0).tolist()
    unknown = () if signs else (no_orientation("the header names no anatomical space"),)
    return affine, (x, y, z), (*unknown, *shear_warning(affine))


def _spacings(
    fields: dict[str, str], vectors: list[np.ndarray], spatial: tuple[int, ...]
) -> Spacing:
    """Spacing of a flat image, or of one without directions; None where unknown."""
    steps = [float(part) for part in fields.get("spacings", "").split()]
    if vectors:
        found = [float(np.linalg.norm(vector)) for vector in vectors]
    else:
        found = [abs(steps[axis]) if axis < len(steps) else 0.0 for axis in spatial]
    x, y, z = (step if np.isfinite(step) and step > 0 else None for step in (*found, 0, 0, 0)[:3])
    return x, y, z
