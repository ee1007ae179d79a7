"""`Scan` → NIfTI-1 file: values and geometry as they are, nothing resampled.

Written by hand because ITK has no place for the sheared grid of a series with a tilted
gantry.

References
----------
NIfTI-1 Data Format, nifti1.h (2007), github.com/NIFTI-Imaging
"""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import BinaryIO

import numpy as np

from medcli.errors import ScanError
from medcli.records import Scan

_HEADER = np.dtype(
    [
        ("sizeof_hdr", "<i4"),
        ("unused", "V36"),
        ("dim", "<i2", 8),
        ("intent", "V14"),
        ("datatype", "<i2"),
        ("bitpix", "<i2"),
        ("slice_start", "<i2"),
        ("pixdim", "<f4", 8),
        ("vox_offset", "<f4"),
        ("scl_slope", "<f4"),
        ("scl_inter", "<f4"),
        ("slice_end", "<i2"),
        ("slice_code", "u1"),
        ("xyzt_units", "u1"),
        ("display", "V24"),
        ("descrip", "S80"),
        ("aux_file", "S24"),
        ("qform_code", "<i2"),
        ("sform_code", "<i2"),
        ("quaternion", "<f4", 6),
        ("srow", "<f4", (3, 4)),
        ("intent_name", "S16"),
        ("magic", "S4"),
        ("extension", "V4"),
    ]
)
_TYPES = {"uint8": 2, "int16": 4, "float32": 16, "uint16": 512}
_RGB = 128
_MILLIMETRE = 2
_SCANNER = 1
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_LEVEL = 4  # of compression: twice as fast as the usual 9 and hardly larger
_LONGEST = 2**15 - 1  # dimensions are int16


def write_nifti(path: Path, scan: Scan, description: bytes = b"") -> None:
    """Write modality values as uint8, int16, uint16 or float32, colour as RGB24 (of more than 8
    bits rounded).

    The name ends in .nii or, compressed, .nii.gz. The same scan gives the same bytes.
    Where the scan has no position, the file says so (sform_code 0); unknown spacing is
    written as 1 without a unit. The header's `descrip` says `description`, of 79 bytes at most.

    Raises
    ------
    ScanError : unsupported_pixels, a side beyond 32,767 or colour whose white is unknown
    """
    if max(scan.pixels.shape) > _LONGEST:
        raise ScanError("unsupported_pixels", f"{scan.path}: too large a side for NIfTI")
    if scan.pixels.shape[3] == 3 and scan.pixels.dtype != np.uint8 and scan.unit != "display":
        message = f"{scan.path}: NIfTI has no place for colour that is not 0 to 255"
        raise ScanError("unsupported_pixels", message, "Convert it with --to npz")
    with path.open("wb") as file:
        if path.suffix == ".gz":
            with gzip.GzipFile("", "wb", _LEVEL, file, mtime=0) as packed:
                _write(packed, scan, description)
        else:
            _write(file, scan, description)


def _write(file: BinaryIO | gzip.GzipFile, scan: Scan, description: bytes) -> None:
    """Header, then slice after slice: x runs fastest in both layouts."""
    file.write(_header(scan, description).tobytes())
    is_colour = scan.pixels.shape[3] == 3
    kind = np.dtype(np.uint8) if is_colour else scan.pixels.dtype.newbyteorder("<")
    for image in scan.pixels:
        values = np.rint(image) if is_colour else image
        file.write(values.astype(kind, copy=False).tobytes())


def _header(scan: Scan, description: bytes) -> np.ndarray:
    """() structured array of `_HEADER`."""
    slices, rows, columns, channels = scan.pixels.shape
    header = np.zeros((), _HEADER)
    header["sizeof_hdr"] = 348
    header["dim"] = [3, columns, rows, slices, 1, 1, 1, 1]
    header["datatype"] = _RGB if channels == 3 else _TYPES[scan.pixels.dtype.name]
    header["bitpix"] = 24 if channels == 3 else 8 * scan.pixels.dtype.itemsize
    header["pixdim"] = [1, *(mm or 1 for mm in reversed(scan.spacing_mm)), 0, 0, 0, 0]
    header["vox_offset"] = _HEADER.itemsize
    header["scl_slope"] = 1
    header["xyzt_units"] = _MILLIMETRE if any(scan.spacing_mm) else 0
    header["descrip"] = description
    header["magic"] = b"n+1"
    if scan.affine is not None:
        header["sform_code"] = _SCANNER
        header["srow"] = nifti_affine(scan.affine)[:3]
    return header


def nifti_affine(affine: np.ndarray) -> np.ndarray:
    """(4, 4) array index (z, y, x) → LPS mm as voxel index (x, y, z) → RAS mm."""
    reordered: np.ndarray = LPS_TO_RAS @ affine[:, [2, 1, 0, 3]]
    return reordered
