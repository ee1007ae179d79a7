"""Compare what medcli reads of the public DICOM corpus with pydicom and with SimpleITK.

Run: python tests/imaging/compare_dicom.py DATA

Prints one JSON object for each file that holds pixel data: its path, how medcli's reading
ends ("ok" or a code), and for both others "same", how the values differ, or "fails". All
plugins of pydicom that are installed take part, GDCM among them, so this is a process of
its own.
"""

from __future__ import annotations

import json
import logging
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.dataset import FileDataset
from pydicom.pixels import apply_color_lut, apply_modality_lut

from medcli.errors import ScanError
from medcli.imaging.discovery import find_scans
from medcli.imaging.reader import read_scan
from medcli.records import Case, Scan

PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")


def by_pydicom(path: Path) -> np.ndarray:
    """Modality values by pydicom's own functions; MONOCHROME1 inverted, colour 0 to 255."""
    dataset = pydicom.dcmread(path, force=True)
    if not dataset.file_meta.get("TransferSyntaxUID"):
        dataset.file_meta.TransferSyntaxUID = _syntax_of(dataset)
    pixels = dataset.pixel_array
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        pixels = apply_color_lut(pixels, dataset)
        return np.asarray(pixels >> 8 * (pixels.itemsize - 1))
    if dataset.SamplesPerPixel == 3:
        return np.asarray(pixels * (255 / (2**dataset.BitsStored - 1)))
    shared = dataset.get("SharedFunctionalGroupsSequence", [dataset])[0]
    transformation = shared.get("PixelValueTransformationSequence", [dataset])[0]
    values = apply_modality_lut(pixels, transformation)
    if dataset.PhotometricInterpretation != "MONOCHROME1":
        return values
    top = 2**dataset.BitsStored - 1
    low = -(top + 1) // 2 if dataset.PixelRepresentation else 0
    return np.asarray(apply_modality_lut(np.array([low, low + top]), dataset).sum() - values)


def _syntax_of(dataset: FileDataset) -> pydicom.uid.UID:
    """The syntax in which a file that names none could be parsed."""
    implicit, little_endian = dataset.original_encoding
    if implicit:
        return pydicom.uid.ImplicitVRLittleEndian
    explicit = pydicom.uid.ExplicitVRLittleEndian, pydicom.uid.ExplicitVRBigEndian
    return explicit[0] if little_endian else explicit[1]


def by_simpleitk(path: Path) -> np.ndarray:
    """Modality values by GDCM through SimpleITK, which inverts MONOCHROME1, too.

    It shows single bits as 0 and 255, and leaves colour as deep as it is. Of palettes the
    upper bits are compared.
    """
    image = sitk.ReadImage(str(path))
    values = np.asarray(sitk.GetArrayFromImage(image))
    dataset = pydicom.dcmread(path, force=True, stop_before_pixels=True)
    if image.GetNumberOfComponentsPerPixel() == 3:
        if dataset.get("PhotometricInterpretation") == "PALETTE COLOR":
            return values >> 8 * (values.itemsize - 1)
        return np.asarray(values * (255 / (256**values.itemsize - 1)))
    is_mask = dataset.get("BitsAllocated") == 1
    return values // 255 if is_mask else values


def comparison(path: Path, scan: Scan | None, other: Callable[[Path], np.ndarray]) -> str:
    """How another library reads a file: "same", where it differs, or "fails"."""
    try:
        values = other(path)
    except Exception:  # whatever a library makes of a damaged file
        return "fails"
    if scan is None:
        return "reads"
    if values.size != scan.pixels.size:
        return f"{values.shape} against {scan.pixels.shape}"
    theirs = values.reshape(scan.pixels.shape).astype(float)
    differences = {
        "same": np.abs(scan.pixels - theirs),
        "same, frames in the other order": np.abs(scan.pixels - theirs[::-1]),
    }
    imaged = scan.pixels > scan.pixels.min() if scan.padded else True
    for name, difference in differences.items():
        if difference.max(where=imaged, initial=0) <= 1e-6 * np.abs(theirs).max():
            return name
    return f"up to {differences['same'].max():g} in {np.mean(differences['same'] > 0):.0%}"


def main() -> None:
    warnings.simplefilter("ignore")
    logging.getLogger("pydicom").disabled = True
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    data = Path(sys.argv[1]).resolve()
    for path in sorted(each for each in (data / "dicom").rglob("*") if each.is_file()):
        if not any(name in pydicom.dcmread(path, force=True) for name in PIXELS):
            continue
        (found,) = find_scans([str(path)])
        scan, ended = None, "ok"
        try:
            if isinstance(found, Case):
                scan = read_scan(found)
            else:
                ended = found.code
        except ScanError as error:
            ended = error.code
        row = {
            "path": path.relative_to(data).as_posix(),
            "medcli": ended,
            "pydicom": comparison(path, scan, by_pydicom),
            "simpleitk": comparison(path, scan, by_simpleitk),
        }
        print(json.dumps(row))


if __name__ == "__main__":
    main()
