"""One synthetic slice in every transfer syntax that medcli reads, as DICOM files.

Encoders: zlib, pydicom (RLE, JPEG-LS by pyjpegls), Pillow (JPEG with 8 bits), openjpeg (JPEG
2000) and GDCM (JPEG Lossless, Extended with 12 bits, JPEG-LS near-lossless). For HTJ2K no
encoder is at hand; public test files stand for it, of another size.
"""

from __future__ import annotations

import io
import tempfile
import zlib
from pathlib import Path

import numpy as np
import pydicom
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate

from medcli.bench.made import write_ct_slices

SIDE = 512
DEFLATED_FRAMES = uid.UID("1.2.840.10008.1.2.8.1")
EIGHT_BITS = "8 bits"
ROWS: tuple[tuple[uid.UID, str], ...] = (
    (uid.ImplicitVRLittleEndian, ""),
    (uid.ExplicitVRLittleEndian, ""),
    (uid.ExplicitVRBigEndian, ""),
    (uid.DeflatedExplicitVRLittleEndian, ""),
    (DEFLATED_FRAMES, ""),
    (uid.RLELossless, ""),
    (uid.JPEGBaseline8Bit, EIGHT_BITS),
    (uid.JPEGExtended12Bit, EIGHT_BITS),
    (uid.JPEGExtended12Bit, "12 bits"),
    (uid.JPEGLossless, ""),
    (uid.JPEGLosslessSV1, ""),
    (uid.JPEGLSLossless, ""),
    (uid.JPEGLSNearLossless, ""),
    (uid.JPEG2000Lossless, ""),
    (uid.JPEG2000, ""),
)
"""Transfer syntaxes that can be written, and the bits where a syntax knows several processes."""

GIVEN = {
    uid.HTJ2KLossless: "HTJ2KLossless_08_RGB.dcm",
    uid.HTJ2K: "HTJ2K_08_RGB.dcm",
}
"""Files of pydicom's test data that stand for those that cannot: 480 × 640, RGB."""

_GDCM = {
    uid.JPEGExtended12Bit: "JPEGExtendedProcess2_4",
    uid.JPEGLossless: "JPEGLosslessProcess14",
    uid.JPEGLosslessSV1: "JPEGLosslessProcess14_1",
    uid.JPEGLSNearLossless: "JPEGLSNearLossless",
}


def slice_of_noise_and_shapes() -> np.ndarray:
    """(512, 512) uint16 of 12 bits: soft ellipses and the noise of a scanner."""
    rows, columns = np.mgrid[:SIDE, :SIDE] / SIDE - 0.5
    body = 1000 * (rows**2 / 0.16 + columns**2 / 0.2 < 1)
    organs = sum(
        60 * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 0.01)
        for y, x in ((0.1, 0.1), (-0.1, 0.2), (0.0, -0.2))
    )
    noise = np.random.default_rng(0).normal(0, 12, (SIDE, SIDE))
    made: np.ndarray = np.clip(body + organs + noise, 0, 4095).astype(np.uint16)
    return made


def write_syntax(folder: Path, syntax: uid.UID, bits: str, files: int) -> list[str]:
    """So many files of one slice in a transfer syntax, each a scan of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    dataset = _encoded(folder, syntax, eight_bits=bits == EIGHT_BITS)
    return _copies(folder, dataset, files)


def write_given(folder: Path, source: Path, files: int) -> list[str]:
    """So many files of one that is given, each a scan of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    return _copies(folder, pydicom.dcmread(source), files)


def write_series(folder: Path, slices: int) -> list[str]:
    """An axial CT series of uncompressed slices, 1 mm apart, in HU."""
    folder.mkdir(parents=True, exist_ok=True)
    dataset = _slice(slice_of_noise_and_shapes())
    dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = uid.CTImageStorage
    dataset.Modality, dataset.RescaleType = "CT", "HU"
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
    dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID = uid.generate_uid(), uid.generate_uid()
    dataset.PixelSpacing, dataset.ImageOrientationPatient = [0.7, 0.7], [1, 0, 0, 0, 1, 0]
    paths = []
    for number in range(slices):
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid.generate_uid()
        dataset.ImagePositionPatient, dataset.InstanceNumber = [0, 0, number], number + 1
        paths.append(str(folder / f"{number:04}.dcm"))
        dataset.save_as(paths[-1], implicit_vr=False, little_endian=True)
    return paths


def _copies(folder: Path, dataset: Dataset, files: int) -> list[str]:
    syntax = dataset.file_meta.TransferSyntaxUID
    paths = []
    for number in range(files):
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid.generate_uid()
        dataset.SeriesInstanceUID = uid.generate_uid()
        paths.append(str(folder / f"{number}.dcm"))
        list(dataset)  # no element may stay as it was read: its bytes may have to turn round
        pydicom.dcmwrite(
            paths[-1],
            dataset,
            implicit_vr=syntax == uid.ImplicitVRLittleEndian,
            little_endian=syntax != uid.ExplicitVRBigEndian,
            force_encoding=syntax == DEFLATED_FRAMES,  # pydicom does not know it
        )
    return paths


def _slice(pixels: np.ndarray) -> Dataset:
    """A CT slice of (H, W) stored values, little endian."""
    with tempfile.TemporaryDirectory() as scratch:
        (plain,) = write_ct_slices(Path(scratch), 1)
        dataset = pydicom.dcmread(plain)
    dataset.Rows, dataset.Columns = pixels.shape
    deep = pixels.dtype == np.uint16
    dataset.BitsAllocated, dataset.BitsStored = (16, 12) if deep else (8, 8)
    dataset.HighBit, dataset.PixelRepresentation = dataset.BitsStored - 1, 0
    dataset.PixelData = pixels.tobytes()
    dataset["PixelData"].VR = "OW" if deep else "OB"
    return dataset


def _encoded(folder: Path, syntax: uid.UID, *, eight_bits: bool) -> Dataset:
    """The slice in a transfer syntax."""
    pixels = slice_of_noise_and_shapes()
    if eight_bits:
        pixels = (pixels >> 4).astype(np.uint8)
    dataset = _slice(pixels)
    if syntax in (uid.RLELossless, uid.JPEGLSLossless):
        dataset.compress(syntax)
    elif syntax == uid.ExplicitVRBigEndian:
        dataset.PixelData = pixels.byteswap().tobytes()
    elif syntax in _GDCM and not eight_bits:
        return _with_gdcm(folder, dataset, syntax)
    elif syntax == DEFLATED_FRAMES or syntax.is_encapsulated:
        dataset.PixelData = encapsulate([_frame(pixels, syntax)])
        dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
    dataset.file_meta.TransferSyntaxUID = syntax
    return dataset


def _frame(pixels: np.ndarray, syntax: uid.UID) -> bytes:
    """The encoded frame."""
    from openjpeg.utils import encode_array
    from PIL import Image

    if syntax == DEFLATED_FRAMES:
        packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        return packer.compress(pixels.tobytes()) + packer.flush()
    if pixels.dtype == np.uint8:
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "JPEG", quality=90)
        return stream.getvalue()
    ratios = [10.0] if syntax == uid.JPEG2000 else None
    return bytes(encode_array(pixels, bits_stored=12, compression_ratios=ratios))


def _with_gdcm(folder: Path, dataset: Dataset, syntax: uid.UID) -> Dataset:
    """The slice as GDCM encodes it."""
    import gdcm

    plain, encoded = str(folder / "plain.dcm"), str(folder / "encoded.dcm")
    dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    dataset.save_as(plain, implicit_vr=False, little_endian=True)
    reader, change, writer = (
        gdcm.ImageReader(),
        gdcm.ImageChangeTransferSyntax(),
        gdcm.ImageWriter(),
    )
    reader.SetFileName(plain)
    kind = getattr(gdcm.TransferSyntax, _GDCM[syntax])
    change.SetTransferSyntax(gdcm.TransferSyntax(kind))
    if not reader.Read():
        raise RuntimeError(f"GDCM cannot read {plain}")
    change.SetInput(reader.GetImage())
    if not change.Change():
        raise RuntimeError(f"GDCM cannot encode {syntax.name}")
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    writer.SetFileName(encoded)
    if not writer.Write():
        raise RuntimeError(f"GDCM cannot write {encoded}")
    found = pydicom.dcmread(encoded)
    for path in (plain, encoded):
        Path(path).unlink()
    return found
