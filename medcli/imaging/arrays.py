"""Members of `.npz` archives in the MedMNIST layout → `Scan`.

An archive holds arrays such as ``train_images``; member "train_images/17" is the
item 17 of it: (28, 28) or (28, 28, 1) grey, (28, 28, 3) colour, (28, 28, 28) a volume.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from functools import lru_cache

import numpy as np
from numpy.lib import format as npy

from medcli.errors import ScanError
from medcli.imaging.files import open_file
from medcli.imaging.values import check_budget, compact, replace_nonfinite
from medcli.records import Case, Scan


def read_member(case: Case) -> Scan:
    """Read one item of an array in an `.npz` archive.

    Raises
    ------
    ScanError : not_found, unreadable, truncated, crc, damaged_header, too_large,
        unsupported_pixels, damaged_pixels
    """
    path = case.files[0]
    name, _, index = (case.member or "").rpartition("/")
    array = _load(path, name)
    if not index.isdecimal() or int(index) >= len(array):
        raise ScanError("not_found", f"{path}: there is no member {case.member}")
    pixels, warnings = replace_nonfinite(case.path, compact(_stack(path, name, array[int(index)])))
    return Scan(
        pixels=pixels,
        path=case.path,
        files=case.files,
        slice_files=(path,) * len(pixels),
        scan_id=case.scan_id,
        format="npz",
        unit="display" if pixels.dtype == np.uint8 else "stored",
        decoder=f"numpy {np.__version__}",
        patient_id=case.patient_id,
        warnings=warnings,
    )


def _stack(path: str, name: str, item: np.ndarray) -> np.ndarray:
    """(S, H, W, C) of one item, by its shape."""
    last = item.shape[-1]
    if item.ndim == 2 and item.size:
        return item[np.newaxis, :, :, np.newaxis]
    if item.ndim == 3 and item.size and last not in (2, 4):  # 2 or 4: with transparency
        return item[np.newaxis] if last in (1, 3) else item[..., np.newaxis]
    shape = " × ".join(map(str, item.shape))
    raise ScanError("unsupported_pixels", f"{path}: {name} holds items of {shape} values")


def _load(path: str, name: str) -> np.ndarray:
    """The array `name` of the archive as it is on the disk now."""
    with open_file(path) as file:
        status = os.fstat(file.fileno())
    return _load_version(path, name, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=2)  # images of two splits; an item at a time would inflate all of them
def _load_version(path: str, name: str, modified: int, size: int) -> np.ndarray:
    """The array `name` of one version of an archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            with archive.open(f"{name}.npy") as member:
                check_budget(path, _shape(member))
            with archive.open(f"{name}.npy") as member:
                array: np.ndarray = npy.read_array(member, allow_pickle=False)
    except KeyError as error:
        raise ScanError("not_found", f"{path}: there is no array {name}") from error
    except (zipfile.BadZipFile, zlib.error) as error:
        # zipfile has one exception for a broken archive and for a wrong CRC.
        code, what = ("crc", "a checksum is wrong") if "CRC" in str(error) else ("truncated", "cut")
        raise ScanError(
            code, f"{path}: the archive is damaged ({what})", "Copy it again"
        ) from error
    except (ValueError, EOFError, OSError, NotImplementedError, RuntimeError) as error:
        message = f"{path}: {name} is not an array of numbers"
        raise ScanError("damaged_header", message) from error
    if array.dtype.kind not in "biuf" or array.ndim < 3:
        raise ScanError("unsupported_pixels", f"{path}: {name} is not a stack of images")
    return array


def _shape(member: object) -> tuple[int, ...]:
    """The shape in the header of an open `.npy` member."""
    version = npy.read_magic(member)  # type: ignore[arg-type]
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    return read(member)[0]  # type: ignore[arg-type]
