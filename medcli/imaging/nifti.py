"""The headers of NIfTI-1, NIfTI-2 and Analyze 7.5, in one file or as a pair.

How a volume lies: the sform where its code is set and it can be inverted, else the qform
where its code is set, else the axes count as running to the left, back and head. NIfTI
coordinates are RAS; they are turned to LPS here. Analyze 7.5 has none of it.

References
----------
nifti1.h and nifti2.h of the NIfTI Data Format Working Group
"""

from __future__ import annotations

import gzip
import math
import os
import zlib

import numpy as np

from medcli.errors import ScanError
from medcli.imaging.files import open_file, read_head
from medcli.imaging.formats import NIFTI_SIZES, has_suffix
from medcli.imaging.volume_header import (
    Compression,
    Spacing,
    VolumeHeader,
    damaged,
    make_affine,
    no_orientation,
    shear_warning,
    truncated,
    unsupported,
)
from medcli.records import ScanWarning

_NAMES = (
    "dim", "intent", "datatype", "pixdim", "offset", "slope", "intercept", "units", "qform",
    "sform", "quaternion", "origin", "srow",
)  # fmt: skip
_VERSION_1 = np.dtype(
    {
        "names": _NAMES,
        "formats": [
            "(8,)i2", "i2", "i2", "(8,)f4", "f4", "f4", "f4", "u1", "i2", "i2", "(3,)f4",
            "(3,)f4", "(3,4)f4",
        ],
        "offsets": [40, 68, 70, 76, 108, 112, 116, 123, 252, 254, 256, 268, 280],
        "itemsize": 348,
    }
)  # fmt: skip
_VERSION_2 = np.dtype(
    {
        "names": _NAMES,
        "formats": [
            "(8,)i8", "i4", "i2", "(8,)f8", "i8", "f8", "f8", "i4", "i4", "i4", "(3,)f8",
            "(3,)f8", "(3,4)f8",
        ],
        "offsets": [16, 504, 12, 104, 168, 176, 184, 500, 344, 348, 352, 376, 400],
        "itemsize": 540,
    }
)  # fmt: skip

# Datatype code → NumPy's name, and values a voxel.
_TYPES = {
    2: ("u1", 1), 4: ("i2", 1), 8: ("i4", 1), 16: ("f4", 1), 64: ("f8", 1), 128: ("u1", 3),
    256: ("i1", 1), 512: ("u2", 1), 768: ("u4", 1), 1024: ("i8", 1), 1280: ("u8", 1),
    2304: ("u1", 4),
}  # fmt: skip
_COLOUR = (128, 2304)
_CONNECTIVITY = range(3001, 3100)  # intents of CIFTI: matrices, not images
_MM = {1: 1000.0, 2: 1.0, 3: 0.001}  # by the space part of xyzt_units
_FLIP_TO_LPS = np.array([-1.0, -1.0, 1.0])


def read_nifti_header(path: str) -> VolumeHeader:
    """Read the header of a NIfTI or Analyze file.

    Raises
    ------
    ScanError : not_found, unreadable, damaged_header, truncated, crc, unsupported_pixels
    """
    head, packed = _head(path)
    fields, kind = _fields(path, head)
    dimensions, code = int(fields["dim"][0]), int(fields["datatype"])
    if not 1 <= dimensions <= 7:
        raise damaged(path)
    if code not in _TYPES or int(fields["intent"]) in _CONNECTIVITY:
        raise unsupported(path, f"NIfTI values of type {code}, intent {int(fields['intent'])}")
    name, values = _TYPES[code]
    size = tuple(int(each) for each in fields["dim"][1 : dimensions + 1])
    size = (*size[:3], *(each or 1 for each in size[3:]))  # many leave unused axes at 0
    affine, spacing, warnings = _geometry(fields, kind)
    shift = 1 if code in _COLOUR else 0  # colours come first: red, green, blue of a voxel
    data_file, compression = (path, packed) if kind == "single" else _pair(path)
    slope, intercept = float(fields["slope"]), float(fields["intercept"])
    finite = math.isfinite(slope) and math.isfinite(intercept)
    scaled = finite and slope != 0 and kind != "analyze" and code not in _COLOUR
    return VolumeHeader(
        format="analyze" if kind == "analyze" else "nifti",
        size=(values, *size) if shift else size,
        spatial=tuple(range(shift, shift + min(3, dimensions))),
        dtype=np.dtype(name).newbyteorder(fields.dtype["datatype"].byteorder),
        affine=affine,
        spacing=spacing if dimensions > 2 else (*spacing[:2], None),
        data_file=data_file,
        offset=_offset(path, fields, kind),
        compression=compression,
        offset_in_stream=True,
        time=3 + shift if dimensions > 3 else None,
        channel=0 if shift else 4 if dimensions > 4 else None,
        slope=slope if scaled else 1.0,
        intercept=intercept if scaled else 0.0,
        warnings=warnings,
    )


def _head(path: str) -> tuple[bytes, Compression]:
    """The first 540 bytes, inflated where the file is gzipped."""
    if read_head(path, 2) != b"\x1f\x8b":
        return read_head(path, 540), "none"
    try:
        with open_file(path, start_only=True) as file:
            return gzip.GzipFile(fileobj=file).read(540), "gzip"
    except EOFError as error:
        raise truncated(path) from error
    except (OSError, zlib.error) as error:
        raise ScanError(
            "crc", f"{path}: the compressed data are damaged", "Copy it again"
        ) from error


def _fields(path: str, head: bytes) -> tuple[np.void, str]:
    """The fields in the byte order of the file, and "single", "pair" or "analyze"."""
    if len(head) < 348:
        raise truncated(path)
    if not head.startswith(NIFTI_SIZES):
        raise damaged(path)
    little, second = head[0] != 0, 0x1C in head[:4]
    if second and len(head) < 540:
        raise truncated(path)
    layout = (_VERSION_2 if second else _VERSION_1).newbyteorder("<" if little else ">")
    fields: np.void = np.frombuffer(head, layout, 1)[0]
    magic = head[4:7] if second else head[344:347]
    kind = {b"n+1": "single", b"n+2": "single", b"ni1": "pair", b"ni2": "pair"}.get(magic)
    if kind is None and (second or not has_suffix(path, (".hdr",))):
        raise damaged(path)
    return fields, kind or "analyze"


def _pair(path: str) -> tuple[str, Compression]:
    """The data file of a header, and whether it is gzipped."""
    stem = os.path.splitext(path)[0]
    for name in (f"{stem}.img", f"{stem}.IMG", f"{stem}.img.gz"):
        try:
            packed = read_head(name, 2) == b"\x1f\x8b"
            return name, "gzip" if packed else "none"
        except ScanError as error:
            if error.code != "not_found":
                raise
    message = f"{path}: its data file {os.path.basename(stem)}.img is missing"
    raise ScanError("not_found", message, "Put both files into one folder")


def _offset(path: str, fields: np.void, kind: str) -> int:
    """Bytes before the voxels in their file; in a single file 0 means right behind the header."""
    offset, header = float(fields["offset"]), fields.dtype.itemsize if kind == "single" else 0
    if offset == 0 and header:
        return header + 4  # the header's extension flag
    if not header <= offset < 2**62:  # NaN fails here too
        raise damaged(path)
    return int(offset)


def _geometry(fields: np.void, kind: str) -> tuple[np.ndarray, Spacing, tuple[ScanWarning, ...]]:
    """The affine (x, y, z) → LPS mm, the spacing, and what is odd about them."""
    unit = _MM.get(int(fields["units"]) & 7, 1.0)
    steps = np.abs(np.asarray(fields["pixdim"][1:4], dtype=float)) * unit
    known = np.isfinite(steps) & (steps > 0)
    x, y, z = (float(step) if good else None for step, good in zip(steps, known, strict=True))
    spacing: Spacing = (x, y, z)
    if kind == "analyze":
        missing = no_orientation("Analyze 7.5 has no orientation")
        return make_affine(np.eye(3), spacing, np.zeros(3)), spacing, (missing,)
    sform, qform = _sform(fields, unit), _qform(fields, spacing, unit)
    chosen = qform if sform is None else sform
    if chosen is None:
        missing = no_orientation("neither sform nor qform is set")
        return make_affine(np.eye(3), spacing, np.zeros(3)), spacing, (missing,)
    x, y, z = np.linalg.norm(chosen[:3, :3], axis=0).tolist()
    warnings = (*_conflict(fields, sform, qform), *shear_warning(chosen))
    return chosen, (x, y, z), warnings


def _sform(fields: np.void, unit: float) -> np.ndarray | None:
    """The affine of the sform in LPS; None where it is unset, singular or not finite."""
    affine = np.eye(4)
    affine[:3] = np.asarray(fields["srow"], dtype=float) * unit
    affine[:2] *= -1
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if fields["sform"] < 1 or not np.isfinite(affine).all() or not lengths.all():
        return None
    volume = abs(np.linalg.det(affine[:3, :3] / lengths))
    return affine if volume > 1e-3 else None


def _qform(fields: np.void, spacing: Spacing, unit: float) -> np.ndarray | None:
    """The affine of the qform in LPS; None where it is unset or not finite."""
    quaternion = np.asarray(fields["quaternion"], dtype=float)
    origin = np.asarray(fields["origin"], dtype=float) * unit
    if fields["qform"] < 1 or not np.isfinite([*quaternion, *origin]).all():
        return None
    norm = float(quaternion @ quaternion)
    if norm > 1:  # rounding: a rotation by half a turn
        quaternion = quaternion / np.sqrt(norm)
    a, (b, c, d) = np.sqrt(max(0.0, 1 - norm)), quaternion
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    if fields["pixdim"][0] < 0:  # qfac
        rotation[:, 2] *= -1
    return make_affine(rotation * _FLIP_TO_LPS[:, np.newaxis], spacing, origin * _FLIP_TO_LPS)


def _conflict(
    fields: np.void, sform: np.ndarray | None, qform: np.ndarray | None
) -> tuple[ScanWarning, ...]:
    """A warning where both forms are set and put the volume's corners elsewhere.

    They may differ by half a voxel: a qform cannot hold what a registration wrote, and
    older programs rounded it.
    """
    if fields["qform"] < 1 or fields["sform"] < 1:
        return ()
    if sform is None or qform is None:
        message = "the sform cannot be used" if sform is None else "the qform cannot be used"
        return (ScanWarning("orientation_conflict", message),)
    sizes = np.maximum(np.asarray(fields["dim"][1:4], dtype=float), 1) - 1
    corners = np.stack(np.meshgrid(*[(0.0, size) for size in sizes]), -1).reshape(-1, 3)
    apart = (sform - qform) @ np.column_stack([corners, np.ones(len(corners))]).T
    furthest = float(np.linalg.norm(apart[:3], axis=0).max())
    if furthest <= 0.5 * float(np.linalg.norm(sform[:3, :3], axis=0).min()):
        return ()
    message = f"sform and qform put a corner {furthest:.1f} mm apart; the sform was taken"
    return (ScanWarning("orientation_conflict", message),)
