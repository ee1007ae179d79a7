"""Sound files, and mutants of them by number and seed."""

from __future__ import annotations

import io
import random
from pathlib import Path

import numpy as np

from fuzzing.verdict import Outcome
from medcli.imaging.formats import IMAGE_SUFFIXES, VOLUME_SUFFIXES, has_suffix

SAMPLE = Path(__file__).parents[2] / "sample_data" / "scan.dcm"
MAX_BYTES = 2**20  # larger originals would only make the run longer
KINDS = ("cut", "change", "gap", "double", "extreme", "zero")
SUFFIXES = {
    "nifti": (".nii", ".nii.gz"),
    "pictures": (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"),
}
PREAMBLE = 132


def mutated(data: bytes, kind: str, rng: random.Random) -> bytes:
    """`data` with damage of one of `KINDS`; half of it in the first kilobyte, where headers are."""
    changed, size = bytearray(data), len(data)
    place = rng.randrange(min(size, rng.choice((1024, size))))
    length = rng.randrange(1, min(100, size - place) + 1)
    if kind == "cut":
        return data[: rng.randrange(size)]
    if kind == "change":
        for _ in range(rng.choice((1, 3, 10))):
            changed[rng.randrange(min(size, rng.choice((1024, size))))] = rng.randrange(256)
    elif kind == "gap":
        del changed[place : place + length]
    elif kind == "double":
        changed[place:place] = changed[place : place + length]
    elif kind == "extreme":
        value = rng.choice((b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\xff"))
        changed[place : place + len(value)] = value
    else:
        changed[place : place + length] = bytes(length)
    return bytes(changed)


def made_files(folder: Path) -> dict[str, list[Path]]:
    """Small sound files of the formats and transfer syntaxes that can be encoded here."""
    import pydicom
    import SimpleITK as sitk
    from openjpeg.utils import encode_array
    from PIL import Image
    from pydicom import uid
    from pydicom.encaps import encapsulate

    rng = np.random.default_rng(0)
    grey = np.clip(np.cumsum(rng.integers(-9, 10, (48, 64)), 1) + 120, 0, 255).astype(np.uint8)
    dicom = []
    for name, syntax in (
        ("raw", uid.ExplicitVRLittleEndian),
        ("implicit", uid.ImplicitVRLittleEndian),
        ("deflated", uid.DeflatedExplicitVRLittleEndian),
        ("rle", uid.RLELossless),
        ("jpegls", uid.JPEGLSLossless),
        ("jpeg2000", uid.JPEG2000Lossless),
        ("jpeg", uid.JPEGBaseline8Bit),
    ):
        dataset = pydicom.dcmread(SAMPLE)
        if syntax.is_encapsulated:
            dataset.Rows, dataset.Columns = grey.shape
            dataset.BitsAllocated = dataset.BitsStored = 8
            dataset.HighBit, dataset.PixelRepresentation = 7, 0
            dataset.PixelData = grey.tobytes()
            dataset["PixelData"].VR = "OB"
        if name in ("rle", "jpegls"):
            dataset.compress(syntax)
        elif name in ("jpeg2000", "jpeg"):
            stream = io.BytesIO()
            Image.fromarray(grey).save(stream, "JPEG")
            encoded = encode_array(grey) if name == "jpeg2000" else stream.getvalue()
            dataset.PixelData = encapsulate([encoded])
            dataset["PixelData"].is_undefined_length = True
        dataset.file_meta.TransferSyntaxUID = syntax
        dicom.append(folder / f"{name}.dcm")
        implicit = name == "implicit"
        dataset.save_as(dicom[-1], implicit_vr=implicit, little_endian=True)
    volumes = [folder / f"volume{suffix}" for suffix in SUFFIXES["nifti"]]
    for path in volumes:
        volume = sitk.GetImageFromArray(np.stack([grey[:20, :24]] * 5).astype(np.int16))
        sitk.WriteImage(volume, str(path), useCompression=path.suffix == ".gz")
    pictures = [folder / f"picture{suffix}" for suffix in SUFFIXES["pictures"]]
    for path in pictures:
        Image.fromarray(grey).save(path)
    Image.fromarray(grey.astype(np.uint16) * 200).save(folder / "deep.png")
    return {"dicom": dicom, "nifti": volumes, "pictures": [*pictures, folder / "deep.png"]}


def corpus_files(corpus: Path, rng: random.Random) -> dict[str, list[Path]]:
    """Files of the folders `dicom` and `nifti`, and some pictures of other folders."""
    dicom = _small_files(corpus / "dicom")
    nifti = [p for p in _small_files(corpus / "nifti") if has_suffix(p.name, SUFFIXES["nifti"])]
    others = (
        folder for folder in sorted(corpus.iterdir()) if folder.name not in ("dicom", "nifti")
    )
    pictures = [
        path
        for folder in others
        if folder.is_dir()
        for path in _small_files(folder)[:400]
        if has_suffix(path.name, SUFFIXES["pictures"])
    ]
    return {
        "dicom": dicom,
        "nifti": nifti,
        "pictures": rng.sample(pictures, min(60, len(pictures))),
    }


def _small_files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.stat().st_size <= MAX_BYTES)


def write_mutants(
    folder: Path, originals: dict[str, str], numbers: range, seed: int
) -> list[Outcome]:
    """Write the mutants of these numbers; each depends on its number and the seed only."""
    paths, written = sorted(originals), []
    for number in numbers:
        rng = random.Random(f"{seed}/{number}")
        source, kind = Path(rng.choice(paths)), rng.choice(KINDS)
        suffix = next(
            (s for s in VOLUME_SUFFIXES if source.name.lower().endswith(s)), source.suffix
        )
        target = folder / f"{number}{suffix}"
        data = mutated(source.read_bytes(), kind, rng)
        target.write_bytes(data)
        nameless = kind == "cut" and is_nameless(source, data)
        written.append(Outcome(str(target), kind, originals[str(source)], is_nameless=nameless))
    return written


def is_nameless(source: Path, data: bytes) -> bool:
    """Whether what is left of a DICOM file ends in its preamble and could be any file."""
    is_dicom = source.read_bytes()[128:PREAMBLE] == b"DICM"
    is_blank = not data.strip(b"\0")
    named = has_suffix(source.name, IMAGE_SUFFIXES)
    return is_dicom and len(data) < PREAMBLE and not is_blank and not named
