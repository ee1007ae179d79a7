"""NIfTI, NRRD and MetaImage → `Scan`, by SimpleITK.

Volumes are reoriented to LPS by flips and swaps of axes (no resampling): array axis z
runs to the head, y to the back, x to the patient's left, as in an axial CT series.
"""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk

from medcli.errors import ScanError
from medcli.imaging.values import compact, replace_nonfinite
from medcli.imaging.volume_header import check_volume, nonfinite_voxels
from medcli.records import Case, Scan, ScanWarning

AIR_HU, TISSUE_HU = -900, 100
"""A volume that goes below the first and above the second is taken for CT in HU."""

Warnings = tuple[ScanWarning, ...]


def read_volume(case: Case) -> Scan:
    """Read one volume file, axial slices from the feet up.

    These formats do not name the modality. A minimum of at most `AIR_HU` with a
    maximum of at least `TISSUE_HU` is taken for CT, and said so by a warning.

    Raises
    ------
    ScanError : the codes of `check_volume`, damaged_pixels, unsupported_pixels
    """
    path = case.files[0]
    header = check_volume(path)
    image, noticed = _read(path, nonfinite_voxels(header))
    voxels, reduced = _channels(sitk.GetArrayFromImage(image))
    pixels, replaced = replace_nonfinite(compact(voxels))
    is_ct = pixels.min() <= AIR_HU and pixels.max() >= TISSUE_HU and pixels.shape[3] == 1
    assumed = ScanWarning("assumed_hu", "values like CT: taken as Hounsfield units")
    x, y, z = image.GetSpacing()
    return Scan(
        pixels=pixels,
        path=case.path,
        files=tuple(dict.fromkeys((*case.files, header.data_file))),
        slice_files=(path,) * len(pixels),
        scan_id=case.scan_id,
        format=header.format,
        modality="CT" if is_ct else None,
        unit="HU" if is_ct else "stored",
        spacing_mm=(z if len(header.size) > 2 else None, y, x),
        affine=_affine(image),
        decoder=f"SimpleITK {sitk.Version.VersionString()}",
        patient_id=case.patient_id,
        warnings=(*noticed, *reduced, *replaced, *((assumed,) if is_ct else ())),
    )


def _read(path: str, nonfinite: np.ndarray | None) -> tuple[sitk.Image, Warnings]:
    """A three-dimensional image oriented to LPS; of several time points the first.

    `nonfinite` (z, y, x) marks voxels to be given back their NaN.
    """
    reader = sitk.ImageFileReader()
    warnings: Warnings = ()
    try:
        sitk.ProcessObject.SetGlobalWarningDisplay(False)  # quotes the file on stderr
        reader.SetFileName(path)
        reader.ReadImageInformation()
        size = list(reader.GetSize())
        if len(size) > 3:
            if max(size[3:]) > 1:
                message = f"{size[3]} time points; the first was read"
                warnings = (ScanWarning("first_time_point", message),)
            reader.SetExtractSize(size[:3] + [0] * (len(size) - 3))
        image = reader.Execute()
        if image.GetDimension() == 2:
            image = sitk.JoinSeries([image])
        if "complex" in image.GetPixelIDTypeAsString():
            raise ScanError("unsupported_pixels", f"{path}: complex numbers")
        if nonfinite is not None:
            image = _with_nan(image, nonfinite)
        return sitk.DICOMOrient(image, "LPS"), warnings
    except ScanError:
        raise
    except Exception as error:  # SimpleITK raises RuntimeError for all; SWIG adds its own
        raise ScanError(
            "damaged_pixels", f"{path}: SimpleITK cannot read the volume", "Convert it again"
        ) from error


def _with_nan(image: sitk.Image, mask: np.ndarray) -> sitk.Image:
    """The image with NaN where `mask` is set."""
    restored = sitk.GetImageFromArray(np.where(mask, np.nan, sitk.GetArrayViewFromImage(image)))
    restored.CopyInformation(image)
    return restored


def _channels(voxels: np.ndarray) -> tuple[np.ndarray, Warnings]:
    """(S, H, W[, C]) → (S, H, W, 1 or 3): bytes of three or four components are a colour."""
    if voxels.ndim == 3:
        return voxels[..., np.newaxis], ()
    if voxels.dtype == np.uint8 and voxels.shape[3] in (3, 4):
        return voxels[..., :3], ()
    message = f"{voxels.shape[3]} values a voxel; the first was read"
    return voxels[..., :1], (ScanWarning("first_channel", message),)


def _affine(image: sitk.Image) -> np.ndarray:
    """(4, 4) array index (z, y, x) → LPS mm; ITK's physical space is LPS."""
    direction = np.array(image.GetDirection()).reshape(3, 3)  # columns: x, y, z
    affine = np.eye(4)
    affine[:3, :3] = (direction * np.array(image.GetSpacing()))[:, ::-1]
    affine[:3, 3] = image.GetOrigin()
    return affine
