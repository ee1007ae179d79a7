"""MINC-2 (HDF5) volumes, by SimpleITK; the one volume format that NumPy alone cannot read.

HDF5 is parsed by a C library that damage can crash or make talkative, so that each file
is read by a process of its own.

References
----------
https://en.wikibooks.org/wiki/MINC/SoftwareDevelopment/MINC2.0_File_Format_Reference
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

import numpy as np

from medcli.errors import ScanError
from medcli.imaging.archive import split_path
from medcli.imaging.files import open_file, read_head
from medcli.imaging.values import MAX_SAMPLES
from medcli.imaging.volume_header import VolumeHeader, file_size, truncated

SECONDS = 60
"""Time limit for one file."""

_TOO_LARGE, _OTHER_AXES = 3, 4  # exit statuses of the process that reads


def read_minc(path: str) -> tuple[VolumeHeader, np.ndarray, str]:
    """Read a MINC-2 file: its header, (z, y, x, values) modality values, and the decoder.

    Raises
    ------
    ScanError : not_found, unreadable, truncated, too_large, unsupported_pixels,
        damaged_pixels, timeout
    """
    _check_whole(path)
    with tempfile.TemporaryDirectory(prefix="medcli-") as folder:
        source, target = path, os.path.join(folder, "voxels.npz")
        if split_path(path) is not None:
            source = os.path.join(folder, "volume.mnc")
            with open_file(path) as member, open(source, "wb") as copy:
                copy.write(member.read())
        _read_apart(path, source, target)
        with np.load(target) as found:
            voxels, decoder = found["voxels"], str(found["decoder"])
            affine, spacing = found["affine"], found["spacing"].tolist()
    header = VolumeHeader(
        format="minc",
        size=voxels.shape[::-1],
        spatial=(1, 2, 3),
        dtype=voxels.dtype,
        affine=affine,
        spacing=(spacing[0], spacing[1], spacing[2]),
        data_file=path,
        offset=0,
        time=0 if voxels.shape[3] > 1 else None,
    )
    return header, voxels, decoder


def _check_whole(path: str) -> None:
    """Refuse a file that is shorter than its superblock says.

    References
    ----------
    HDF5 File Format Specification, II.A, versions 0 to 3 of the superblock
    """
    head = read_head(path, 64)
    start = 40 if head[8:9] == b"\0" else 44 if head[8:9] == b"\1" else 28
    if file_size(path) < int.from_bytes(head[start : start + 8], "little"):
        raise truncated(path)


def _read_apart(path: str, source: str, target: str) -> None:
    """Have a process of its own turn the MINC file `source` into the archive `target`."""
    command = [sys.executable, "-m", "medcli.imaging.minc", os.path.abspath(source), target]
    try:
        done = subprocess.run(command, capture_output=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        message = f"{path}: reading took over {SECONDS} seconds"
        hint = "Try again while the machine is less busy, or convert it"
        raise ScanError("timeout", message, hint) from error
    if done.returncode == _TOO_LARGE:
        raise ScanError("too_large", f"{path}: more than {MAX_SAMPLES:,} values")
    if done.returncode == _OTHER_AXES:
        raise ScanError("unsupported_pixels", f"{path}: MINC with other than three axes")
    if done.returncode:
        message = f"{path}: SimpleITK cannot read the volume"
        raise ScanError("damaged_pixels", message, "Convert it again")


def _convert(source: str, target: str) -> int:
    """Read `source` and write its voxels and geometry to `target`; the exit status."""
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetImageIO("MINCImageIO")
    reader.SetFileName(source)
    reader.ReadImageInformation()
    if reader.GetDimension() != 3:
        return _OTHER_AXES
    if np.prod(reader.GetSize(), dtype=float) * reader.GetNumberOfComponents() > MAX_SAMPLES:
        return _TOO_LARGE
    image = reader.Execute()
    voxels = sitk.GetArrayFromImage(image)
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    np.savez(
        target,
        voxels=voxels if voxels.ndim == 4 else voxels[..., np.newaxis],
        affine=affine,
        spacing=np.array(image.GetSpacing()),
        decoder=f"SimpleITK {sitk.Version.VersionString()}",
    )
    return 0


if __name__ == "__main__":
    sys.exit(_convert(*sys.argv[1:]))
