"""Pixel data of a DICOM dataset → stored values, by the decoders of `decoders`.

What may end the process it runs in is not called outside of workers.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, cast

import numpy as np
from pydicom import uid
from pydicom.dataset import FileDataset
from pydicom.pixels.decoders.base import Decoder, get_decoder

from medcli.errors import ScanError
from medcli.imaging.decoders import (
    DEFLATED,
    DEFLATED_FRAMES,
    GDCM_PLUGIN,
    NATIVE,
    RLE,
    UNPACKED,
    Library,
    find_syntax,
)
from medcli.imaging.dicom_file import PIXELS, transfer_syntax, unsupported_syntax
from medcli.imaging.dicom_frames import check_frames, unpack_frames
from medcli.imaging.dicom_tags import integer, text, value
from medcli.imaging.isolation.inside import leave_compressed_to_worker
from medcli.imaging.values import check_budget

_COLOUR = (
    "RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "YBR_PARTIAL_422", "YBR_PARTIAL_420",
)  # fmt: skip
_GREY = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")
_EIGHT_BITS_ONLY = tuple(name for name in _COLOUR if name.startswith(("YBR_FULL", "YBR_PARTIAL")))


@dataclass(frozen=True, slots=True)
class Layout:
    """The Image Pixel module, checked (DICOM PS3.3 C.7.6.3).

    `shift` is how many bits lie below the stored ones in their cell; the decoder leaves
    them where they are.
    """

    frames: int
    rows: int
    columns: int
    samples: int
    photometric: str
    bits_allocated: int
    bits_stored: int
    signed: bool
    shift: int = 0

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(F, H, W, C)"""
        return self.frames, self.rows, self.columns, self.samples


def layout(path: str, dataset: FileDataset) -> Layout:
    """The pixel layout a header announces, refused before anything is decoded.

    The dataset is left with the values that were checked, so that a decoder finds no
    damaged or missing ones.

    Raises
    ------
    ScanError : damaged_header, unsupported_pixels, too_large
    """
    photometric = (text(dataset, "PhotometricInterpretation") or "").upper()
    samples = integer(dataset, "SamplesPerPixel", 3 if photometric in _COLOUR else 1)
    bits_allocated = integer(dataset, "BitsAllocated")
    bits_stored = integer(dataset, "BitsStored") or bits_allocated
    found = Layout(
        frames=max(1, integer(dataset, "NumberOfFrames", 1)),
        rows=integer(dataset, "Rows"),
        columns=integer(dataset, "Columns"),
        samples=samples,
        photometric=photometric or ("RGB" if samples == 3 else "MONOCHROME2"),
        bits_allocated=bits_allocated,
        bits_stored=bits_stored,
        signed=integer(dataset, "PixelRepresentation") == 1,
        shift=_shift(dataset, bits_allocated, bits_stored),
    )
    if min(found.rows, found.columns) < 1 or not 0 < bits_stored <= bits_allocated:
        raise ScanError("damaged_header", f"{path}: the header gives no valid image size or depth")
    known = found.photometric in {1: _GREY, 3: _COLOUR}.get(samples, ())
    fits = bits_allocated in (*range(1, 33), 64)
    if not known or not fits or (found.photometric in _EIGHT_BITS_ONLY and bits_allocated != 8):
        raise ScanError(
            "unsupported_pixels",
            f"{path}: {samples} sample(s) of {bits_allocated} bits as {found.photometric}",
            "Convert the file with another program",
        )
    check_budget(path, found.shape)
    describe(dataset, found)
    return found


def describe(dataset: FileDataset, image: Layout) -> None:
    """Write a layout into the Image Pixel module of a dataset."""
    planar = integer(dataset, "PlanarConfiguration")
    for keyword, kind, number in (
        ("SamplesPerPixel", "US", image.samples),
        ("PhotometricInterpretation", "CS", image.photometric),
        ("NumberOfFrames", "IS", image.frames),
        ("Rows", "US", image.rows),
        ("Columns", "US", image.columns),
        ("BitsAllocated", "US", image.bits_allocated),
        ("BitsStored", "US", image.bits_stored + image.shift),
        ("PixelRepresentation", "US", int(image.signed)),
        ("PlanarConfiguration", "US", planar if planar in (0, 1) else 0),
    ):
        dataset.add_new(keyword, kind, number)


def _shift(dataset: FileDataset, allocated: int, stored: int) -> int:
    """Bits below the stored ones: HighBit tells in files older than the rule about it.

    A codestream other than RLE holds the stored bits only.

    References
    ----------
    DICOM PS3.3 C.7.6.3: "High Bit … shall be one less than Bits Stored"
    """
    high = integer(dataset, "HighBit", stored - 1)
    in_cells = transfer_syntax(dataset)[0] in (*uid.UncompressedTransferSyntaxes, uid.RLELossless)
    if not stored <= high < allocated or not in_cells or "PixelData" not in dataset:
        return 0
    warnings.warn("HighBit is not BitsStored - 1", stacklevel=2)  # counted by `quiet`
    return high + 1 - stored


def stored_values(path: str, dataset: FileDataset, image: Layout) -> tuple[np.ndarray, str]:
    """(F, H, W, C) stored values, colour as RGB, and the decoder's name and version.

    Raises
    ------
    ScanError : unsupported_transfer_syntax, decoder_missing, truncated,
        damaged_pixels, decoder_crashed, too_large
    """
    syntax, guessed = transfer_syntax(dataset)
    if guessed:
        dataset.file_meta.TransferSyntaxUID = syntax
    library = _library(path, syntax, image)
    _check_pixels(path, dataset, image)
    try:
        dataset.pop("NumberOfFrames", None)  # the decoder would stumble over a damaged value
        dataset.NumberOfFrames = image.frames
        values, _ = get_decoder(dataset.file_meta.TransferSyntaxUID).as_array(
            dataset,
            decoding_plugin=library.plugin,
            allow_excess_frames=cast(Any, False),
        )
        return values.reshape(image.shape), f"{library.package} {library.version}"
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except MemoryError as error:
        raise ScanError("too_large", f"{path}: not enough memory to decode it") from error
    except Exception as error:  # decoders raise anything; their text may quote the file
        raise ScanError(
            "damaged_pixels", f"{path}: the pixel data are damaged", "Copy or export it again"
        ) from error
    except BaseException as error:  # a Rust decoder's panic is no Exception
        raise ScanError("decoder_crashed", f"{path}: the decoder broke down") from error


def _library(path: str, syntax: uid.UID, image: Layout) -> Library:
    """The library that decodes a transfer syntax, ready to be called by pydicom.

    Raises
    ------
    ScanError : unsupported_transfer_syntax, decoder_missing
    """
    found = find_syntax(syntax, image.bits_stored)
    if found is None or not found.libraries:
        raise unsupported_syntax(path, syntax)
    if not found.libraries[0].plugin or _single_bits_in_rle(syntax, image):
        return UNPACKED
    decoder = get_decoder(syntax)
    for library in found.libraries:
        if library.plugin == GDCM_PLUGIN:
            _add_gdcm(decoder)
        if library.plugin in decoder.available_plugins:
            return library
    raise ScanError(
        "decoder_missing",
        f"{path}: no decoder for transfer syntax {found.name} ({syntax})",
        found.libraries[0].install,
    )


def _add_gdcm(decoder: Decoder) -> None:
    """Make GDCM known to a decoder of pydicom's, once, where it is installed.

    Raises
    ------
    NeedsWorkerError : GDCM may end the process, and this one must live
    """
    leave_compressed_to_worker([decoder.UID])
    if GDCM_PLUGIN not in decoder.available_plugins and find_spec("gdcm"):
        decoder.add_plugin(GDCM_PLUGIN, ("medcli.imaging.dicom_gdcm", "decode_frame"))


def _single_bits_in_rle(syntax: str, image: Layout) -> bool:
    """Whether pydicom's decoder of RLE would refuse."""
    return syntax == RLE and image.bits_allocated == 1


def _check_pixels(path: str, dataset: FileDataset, image: Layout) -> None:
    """Refuse pixel data that do not fit the header; make native what is merely packed."""
    syntax = str(dataset.file_meta.TransferSyntaxUID)
    if syntax in (*NATIVE, DEFLATED):
        _check_length(path, dataset, image)
        return
    check_frames(path, dataset, image)
    if syntax == DEFLATED_FRAMES or _single_bits_in_rle(syntax, image):
        unpack_frames(path, dataset, image)


def _check_length(path: str, dataset: FileDataset, image: Layout) -> None:
    """Refuse uncompressed pixel data that are shorter than the header says."""
    data = next(value(dataset, name) for name in PIXELS if name in dataset)
    expected = math.prod(image.shape) * image.bits_allocated / 8
    if image.photometric == "YBR_FULL_422":
        expected *= 2 / 3  # two pixels share their colour
    if data is None or len(data) < math.floor(expected):
        raise ScanError(
            "truncated", f"{path}: the file ends before its pixel data do", "Copy it again"
        )
