"""NIfTI, Analyze, NRRD and MetaImage → `Scan`, by NumPy alone; MINC by `medcli.imaging.minc`.

Headers are checked against the file and the pixel budget before a voxel is read.
"""

from __future__ import annotations

import struct

import numpy as np

from medcli.errors import ScanError
from medcli.imaging.files import read_head
from medcli.imaging.formats import has_suffix, is_minc
from medcli.imaging.orientation import to_lps
from medcli.imaging.time_points import asked_time_point
from medcli.imaging.values import compact, replace_nonfinite
from medcli.imaging.volume_data import read_voxels
from medcli.imaging.volume_header import VolumeHeader, damaged
from medcli.records import Case, Scan, ScanWarning

AIR_HU, TISSUE_HU = -900, 100
"""A volume that goes below the first and above the second is taken for CT in HU."""

Warnings = tuple[ScanWarning, ...]


def read_volume(case: Case) -> Scan:
    """Read one volume file, axial slices from the feet up.

    Of several time points that of `Case.time_point` is read, by default the first, which
    a warning says. These formats do not name the modality. A minimum of at most `AIR_HU`
    with a maximum of at least `TISSUE_HU` is taken for CT, and said so by a warning.

    Raises
    ------
    ScanError : not_found, unreadable, damaged_header, truncated, crc, too_large,
        unsupported_pixels, damaged_pixels
    """
    path = case.files[0]
    header, voxels, chosen, decoder = _load(case)
    stored, affine = to_lps(voxels, header.affine)
    with np.errstate(all="ignore"):  # what is too large becomes infinite, and is replaced
        pixels, replaced = replace_nonfinite(path, compact(_modality_values(stored, header)))
    pixels = np.ascontiguousarray(pixels if pixels.ndim == 4 else pixels[..., np.newaxis])
    modality, assumed = _modality(case, pixels)
    return Scan(
        pixels=pixels,
        path=case.path,
        files=tuple(dict.fromkeys((*case.files, header.data_file))),
        slice_files=(path,) * len(pixels),
        scan_id=case.scan_id,
        format=header.format,
        modality=modality,
        unit="HU" if modality == "CT" else "stored",
        spacing_mm=_spacing(header, affine),
        affine=affine,
        decoder=decoder,
        patient_id=case.patient_id,
        warnings=(
            *case.warnings,
            *header.warnings,
            *chosen,
            *_first_channel(header),
            *replaced,
            *assumed,
        ),
    )


def _modality(case: Case, pixels: np.ndarray) -> tuple[str | None, Warnings]:
    """What a manifest says; else CT where grey values reach from air to soft tissue in HU."""
    named = case.columns.get("modality", "").strip().upper()
    if named:
        return named, ()
    if pixels.shape[3] > 1 or pixels.min() > AIR_HU or pixels.max() < TISSUE_HU:
        return None, ()
    return "CT", (ScanWarning("assumed_hu", "values like CT: taken as Hounsfield units"),)


def _load(case: Case) -> tuple[VolumeHeader, np.ndarray, Warnings, str]:
    """The header, the stored values of the time point, a warning about it, and the decoder."""
    path = case.files[0]
    if is_minc(read_head(path, 8)):
        from medcli.imaging.minc import read_minc

        header, voxels, decoder = read_minc(path)
        point, chosen = _time_point(case, header)
        return header, voxels[..., point], chosen, decoder
    header = read_volume_header(path)
    point, chosen = _time_point(case, header)
    return header, read_voxels(path, header, point), chosen, f"numpy {np.__version__}"


def read_volume_header(path: str) -> VolumeHeader:
    """Read the header of a volume file.

    Raises
    ------
    ScanError : not_found, unreadable, damaged_header, truncated, crc, unsupported_pixels
    """
    try:
        with np.errstate(all="ignore"):  # absurd numbers are refused below
            header = _read_header(path)
    except (ValueError, KeyError, IndexError, TypeError, struct.error, OverflowError) as error:
        raise damaged(path) from error
    axes = header.affine[:3, :3]
    if min(header.size) < 1 or not np.isfinite(header.affine).all() or not axes.any(axis=0).all():
        raise damaged(path)
    return header


def files_of_volume(path: str) -> tuple[str, ...]:
    """The files of a volume: its own and the data file that its header names, if any."""
    if not has_suffix(path, (".hdr", ".mhd", ".mha", ".nhdr", ".nrrd")):
        return (path,)
    try:
        header = read_volume_header(path)
        read_head(header.data_file, 1)
    except ScanError:  # to be told by who reads the volume
        return (path,)
    return tuple(dict.fromkeys((path, header.data_file)))


def _read_header(path: str) -> VolumeHeader:
    """The header by the format that content and name tell."""
    if has_suffix(path, (".mha", ".mhd")):
        from medcli.imaging.metaimage import read_metaimage_header

        return read_metaimage_header(path)
    if has_suffix(path, (".nrrd", ".nhdr")) or read_head(path, 4) == b"NRRD":
        from medcli.imaging.nrrd import read_nrrd_header

        return read_nrrd_header(path)
    from medcli.imaging.nifti import read_nifti_header

    return read_nifti_header(path)


def _time_point(case: Case, header: VolumeHeader) -> tuple[int, Warnings]:
    """The time point to be read, and a warning where the first was not asked for."""
    count = header.time_points
    chosen = asked_time_point(case, count)
    if chosen is not None or count == 1:
        return chosen or 0, ()
    return 0, (ScanWarning("first_time_point", f"{count} time points; the first was read"),)


def _first_channel(header: VolumeHeader) -> Warnings:
    """A warning where a voxel has several values that are no colour."""
    used = (*header.spatial, header.time, header.channel if header.is_colour else None)
    values = [size for axis, size in enumerate(header.size) if axis not in used and size > 1]
    if not values:
        return ()
    message = f"{int(np.prod(values))} values a voxel; the first was read"
    return (ScanWarning("first_channel", message),)


def _modality_values(stored: np.ndarray, header: VolumeHeader) -> np.ndarray:
    """Stored values × slope + intercept; whole numbers stay whole, so that HU are exact."""
    if header.slope == 1 and header.intercept == 0:
        return stored
    factors = np.array([header.slope, header.intercept])
    small = stored.dtype.kind in "iu" and stored.dtype.itemsize <= 2
    if small and not np.any(factors % 1) and np.abs(factors).max() < 2**14:
        return stored.astype(np.int32) * int(header.slope) + int(header.intercept)
    values: np.ndarray = stored * header.slope + header.intercept
    return values.astype(np.float32)


def _spacing(
    header: VolumeHeader, affine: np.ndarray
) -> tuple[float | None, float | None, float | None]:
    """(z, y, x) mm in the order of the turned array; None where the header has none."""
    stored = header.affine[:3, :3]
    known: list[float | None] = []
    for axis in range(3):
        same = np.abs(stored.T @ affine[:3, axis]) / np.linalg.norm(stored, axis=0)
        known.append(header.spacing[int(np.argmax(same))])
    return known[0], known[1], known[2]
