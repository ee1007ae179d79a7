"""Pixel data of a DICOM dataset → stored values, by decoders chosen here.

GDCM is never used in this process: it aborts it on damaged files.
"""

from __future__ import annotations

import importlib
import math
import warnings
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from pydicom import uid
from pydicom.dataset import FileDataset
from pydicom.pixels.decoders.base import Decoder, get_decoder

from medcli.errors import ScanError
from medcli.imaging.dicom_file import PIXELS, transfer_syntax
from medcli.imaging.dicom_tags import integer, text, value
from medcli.imaging.values import check_budget

_NATIVE = (
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.DeflatedExplicitVRLittleEndian,
)
_OPENJPEG = "pylibjpeg pylibjpeg-openjpeg"
_LIBJPEG = "pylibjpeg pylibjpeg-libjpeg"

# Transfer syntax → pydicom's plugins in order of preference, and what pip installs for it.
_PLUGINS: dict[str, tuple[tuple[str, ...], str]] = {
    uid.RLELossless: (("pydicom",), "pydicom"),
    uid.JPEGBaseline8Bit: (("pillow", "pylibjpeg"), "Pillow"),
    uid.JPEGExtended12Bit: (("pylibjpeg", "pillow"), _LIBJPEG),
    uid.JPEGLossless: (("pylibjpeg",), _LIBJPEG),
    uid.JPEGLosslessSV1: (("pylibjpeg",), _LIBJPEG),
    uid.JPEGLSLossless: (("pyjpegls",), "pyjpegls"),
    uid.JPEGLSNearLossless: (("pyjpegls",), "pyjpegls"),
    uid.JPEG2000Lossless: (("pylibjpeg", "pillow"), _OPENJPEG),
    uid.JPEG2000: (("pylibjpeg", "pillow"), _OPENJPEG),
    uid.HTJ2KLossless: (("pylibjpeg",), _OPENJPEG),
    uid.HTJ2KLosslessRPCL: (("pylibjpeg",), _OPENJPEG),
    uid.HTJ2K: (("pylibjpeg",), _OPENJPEG),
}

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
    decoder, plugin = _decoder(path, syntax, image)
    if not plugin:
        _check_length(path, dataset, image)
    try:
        dataset.pop("NumberOfFrames", None)  # the decoder would stumble over a damaged value
        dataset.NumberOfFrames = image.frames
        values, _ = decoder.as_array(
            dataset,
            decoding_plugin=plugin,
            allow_excess_frames=cast(Any, False),
        )
        return values.reshape(image.shape), _version(plugin, syntax)
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


def _decoder(path: str, syntax: uid.UID, image: Layout) -> tuple[Decoder, str]:
    """The decoder of a transfer syntax and its plugin to be used ("" for native data)."""
    if syntax in _NATIVE:
        return get_decoder(syntax), ""
    if syntax not in _PLUGINS:
        raise ScanError(
            "unsupported_transfer_syntax",
            f"{path}: transfer syntax {syntax.name} ({syntax}) is not supported",
            "Export it as Explicit VR Little Endian",
        )
    if syntax == uid.RLELossless and image.bits_allocated == 1:
        raise ScanError("unsupported_pixels", f"{path}: RLE of single bits is not supported")
    preferred, packages = _PLUGINS[syntax]
    if syntax == uid.JPEGExtended12Bit and image.bits_stored > 8:
        preferred = tuple(name for name in preferred if name != "pillow")  # 8 bits only
    decoder = get_decoder(syntax)
    for plugin in preferred:
        if plugin in decoder.available_plugins:
            return decoder, plugin
    raise ScanError(
        "decoder_missing",
        f"{path}: no decoder for transfer syntax {syntax.name} ({syntax})",
        f"pip install {packages}",
    )


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


def _version(plugin: str, syntax: uid.UID) -> str:
    """The name and version of the library behind a plugin, such as "pydicom 3.0.2"."""
    name, module = {
        "": ("pydicom", "pydicom"),
        "pydicom": ("pydicom", "pydicom"),
        "pillow": ("Pillow", "PIL"),
        "pyjpegls": ("pyjpegls", "jpeg_ls"),
        "pylibjpeg": ("pylibjpeg-openjpeg", "openjpeg"),
    }[plugin]
    if _PLUGINS.get(syntax, ((), ""))[1] != _OPENJPEG and plugin == "pylibjpeg":
        name, module = "pylibjpeg-libjpeg", "libjpeg"
    return f"{name} {importlib.import_module(module).__version__}"
