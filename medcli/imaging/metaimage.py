"""The headers of MetaImage files, with local data or with a data file beside them.

References
----------
https://itk.org/Wiki/MetaIO/Documentation
"""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np

from medcli.imaging.files import open_file
from medcli.imaging.volume_header import (
    Spacing,
    VolumeHeader,
    file_size,
    make_affine,
    neighbour,
    no_orientation,
    shear_warning,
    text_header,
    unsupported,
)
from medcli.records import ScanWarning

_END = re.compile(rb"ElementDataFile[^\n]*\n?")
_DTYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4",
    "MET_UINT": "u4", "MET_LONG": "i4", "MET_ULONG": "u4", "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4", "MET_DOUBLE": "f8",
}  # fmt: skip


def read_metaimage_header(path: str) -> VolumeHeader:
    """Read the header of a MetaImage file.

    Raises
    ------
    ScanError : not_found, unreadable, unsupported_pixels
    ValueError, KeyError : a field is missing or malformed
    """
    with open_file(path, start_only=True) as file:
        text = text_header(path, file, _END)
        behind = file.tell()
    fields = {
        key.strip(): value.strip()
        for key, _, value in (line.partition("=") for line in text.splitlines())
    }
    if fields.get("BinaryData", "True").lower() == "false":
        raise unsupported(path, "MetaImage data as text")
    size = tuple(int(part) for part in fields["DimSize"].split())
    channels = int(fields.get("ElementNumberOfChannels", "1"))
    shift = 0 if channels == 1 else 1  # the values of a voxel lie side by side
    affine, spacing, warnings = _geometry(fields, len(size))
    local = fields["ElementDataFile"].upper() == "LOCAL"
    skip = int(fields.get("HeaderSize", "0"))
    header = VolumeHeader(
        format="metaimage",
        size=(channels, *size) if shift else size,
        spatial=tuple(range(shift, shift + min(3, len(size)))),
        dtype=_dtype(fields),
        affine=affine,
        spacing=spacing,
        data_file=path if local else neighbour(path, fields["ElementDataFile"]),
        offset=(behind if local else 0) + max(0, skip),
        compression="zlib" if fields.get("CompressedData", "False").lower() == "true" else "none",
        time=3 + shift if len(size) > 3 else None,
        channel=0 if shift else None,
        warnings=warnings,
    )
    if skip == -1 and header.compression == "none":  # the data end their file
        at_the_end = file_size(header.data_file) - header.length
        header = replace(header, offset=max(0, at_the_end))
    return header


def _dtype(fields: dict[str, str]) -> np.dtype:
    order = fields.get("BinaryDataByteOrderMSB", fields.get("ElementByteOrderMSB", "False"))
    return np.dtype(_DTYPES[fields["ElementType"]]).newbyteorder(
        ">" if order.lower() == "true" else "<"
    )


def _geometry(
    fields: dict[str, str], dimensions: int
) -> tuple[np.ndarray, Spacing, tuple[ScanWarning, ...]]:
    """The affine (x, y, z) → LPS mm, the spacing, and what is odd about them.

    Row i of TransformMatrix is the direction of axis i.
    """
    steps = _numbers(fields, ("ElementSpacing", "ElementSize"))
    known = [abs(step) if np.isfinite(step) and step else None for step in steps[:dimensions]]
    x, y, z = (*known, None, None, None)[:3]
    spacing: Spacing = (x, y, z)
    matrix = _numbers(fields, ("TransformMatrix", "Rotation", "Orientation"))
    origin = _numbers(fields, ("Offset", "Position", "Origin"))
    used = min(3, dimensions)
    place = np.zeros(3)
    place[: min(used, len(origin))] = origin[:used]
    directions = np.eye(3)
    if len(matrix) != dimensions**2:
        missing = no_orientation("the header has no TransformMatrix")
        return make_affine(directions, spacing, place), spacing, (missing,)
    directions[:used, :used] = np.reshape(matrix, (dimensions, dimensions))[:used, :used].T
    if abs(np.linalg.det(directions)) < 1e-3:
        raise ValueError("a TransformMatrix that cannot be inverted")
    affine = make_affine(directions, spacing, place)
    return affine, spacing, shear_warning(affine)


def _numbers(fields: dict[str, str], names: tuple[str, ...]) -> list[float]:
    """The numbers of the first of `names` that is there, none where none is."""
    text = next((fields[name] for name in names if name in fields), "")
    return [float(part) for part in text.split()]
