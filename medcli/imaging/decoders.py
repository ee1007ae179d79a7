"""Which library decodes which transfer syntax: one table, readable without pydicom.

Only what medcli has chosen stands here, in order of preference; that a library is
installed is asked of the package metadata, so nothing is loaded. Decoders of compressed
data run in worker processes (`medcli.imaging.isolation`); GDCM never anywhere else,
since it aborts its process on damaged files.

References
----------
DICOM PS3.6 A, Registry of DICOM Unique Identifiers; PS3.5 10, Transfer Syntax
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cache
from typing import cast

NATIVE = (
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2.2",
)
"""Implicit and Explicit VR Little Endian, Explicit VR Big Endian: nothing to decode."""

DEFLATED = "1.2.840.10008.1.2.1.99"
DEFLATED_FRAMES = "1.2.840.10008.1.2.8.1"
RLE = "1.2.840.10008.1.2.5"
JPEG_EXTENDED = "1.2.840.10008.1.2.4.51"

GDCM_PLUGIN = "medcli"
"""What `medcli.imaging.dicom_gdcm` is called among pydicom's plugins."""


@dataclass(frozen=True, slots=True)
class Library:
    """A package that decodes.

    Parameters
    ----------
    package : its name on the package index
    plugin : what pydicom calls it; "" where pydicom only unpacks
    install : the line that installs it
    """

    package: str
    plugin: str
    install: str

    @property
    def version(self) -> str | None:
        """The installed version, None where it is not installed."""
        return _installed(self.package)


@cache  # a third of a millisecond each
def _installed(package: str) -> str | None:
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


@dataclass(frozen=True, slots=True)
class Syntax:
    """A transfer syntax and who decodes it, best first; nobody where it is not supported.

    `max_bits` parts the two processes that share the UID of JPEG Extended.
    """

    uid: str
    name: str
    libraries: tuple[Library, ...]
    max_bits: int = 64


@dataclass(frozen=True, slots=True)
class DecoderRow:
    """A row of the matrix that `medcli doctor` shows.

    Parameters
    ----------
    syntax : UID of the transfer syntax
    decoder, version : the library in use, None where none is installed or fits
    isolated : whether it runs in a worker process
    install : the line to type where the library is missing; None where nothing is
        missing, and where medcli does not support the syntax
    """

    syntax: str
    name: str
    decoder: str | None
    version: str | None
    isolated: bool
    install: str | None


UNPACKED = Library("pydicom", "", "pip install pydicom")
"""No decoder: pydicom reads the values as they are, or as medcli unpacked them."""

_PYDICOM = Library("pydicom", "pydicom", "pip install pydicom")
_PILLOW = Library("Pillow", "pillow", "pip install Pillow")
_JPEGLS = Library("pyjpegls", "pyjpegls", "pip install pyjpegls")
_OPENJPEG = Library("pylibjpeg-openjpeg", "pylibjpeg", "pip install pylibjpeg pylibjpeg-openjpeg")
_GDCM = Library("python-gdcm", GDCM_PLUGIN, "pip install python-gdcm")
_LIBJPEG = Library("pylibjpeg-libjpeg", "pylibjpeg", "pip install 'medcli[gpl]'")

SYNTAXES: tuple[Syntax, ...] = (
    Syntax(NATIVE[0], "Implicit VR Little Endian", (UNPACKED,)),
    Syntax(NATIVE[1], "Explicit VR Little Endian", (UNPACKED,)),
    Syntax(NATIVE[2], "Explicit VR Big Endian", (UNPACKED,)),
    Syntax(DEFLATED, "Deflated Explicit VR Little Endian", (UNPACKED,)),
    Syntax(DEFLATED_FRAMES, "Deflated Image Frame Compression", (UNPACKED,)),
    Syntax(RLE, "RLE Lossless", (_PYDICOM,)),
    Syntax("1.2.840.10008.1.2.4.50", "JPEG Baseline", (_PILLOW, _LIBJPEG)),
    Syntax(JPEG_EXTENDED, "JPEG Extended, 8 bits", (_PILLOW, _GDCM, _LIBJPEG), max_bits=8),
    Syntax(JPEG_EXTENDED, "JPEG Extended, 12 bits", (_GDCM, _LIBJPEG)),
    Syntax("1.2.840.10008.1.2.4.57", "JPEG Lossless", (_GDCM, _LIBJPEG)),
    Syntax("1.2.840.10008.1.2.4.70", "JPEG Lossless, first order", (_GDCM, _LIBJPEG)),
    Syntax("1.2.840.10008.1.2.4.80", "JPEG-LS Lossless", (_JPEGLS, _LIBJPEG)),
    Syntax("1.2.840.10008.1.2.4.81", "JPEG-LS Near-lossless", (_JPEGLS, _LIBJPEG)),
    Syntax("1.2.840.10008.1.2.4.90", "JPEG 2000 Lossless", (_OPENJPEG, _PILLOW)),
    Syntax("1.2.840.10008.1.2.4.91", "JPEG 2000", (_OPENJPEG, _PILLOW)),
    Syntax("1.2.840.10008.1.2.4.201", "HTJ2K Lossless", (_OPENJPEG,)),
    Syntax("1.2.840.10008.1.2.4.202", "HTJ2K Lossless RPCL", (_OPENJPEG,)),
    Syntax("1.2.840.10008.1.2.4.203", "HTJ2K", (_OPENJPEG,)),
    *(
        Syntax(f"1.2.840.10008.1.2.4.{number}", name, ())
        for number, name in (
            (100, "MPEG-2 Main Profile"),
            (101, "MPEG-2 High Level"),
            (102, "MPEG-4 AVC High Profile"),
            (103, "MPEG-4 AVC BD-compatible"),
            (104, "MPEG-4 AVC for 2D video"),
            (105, "MPEG-4 AVC for 3D video"),
            (106, "MPEG-4 AVC Stereo"),
            (107, "HEVC Main Profile"),
            (108, "HEVC Main 10 Profile"),
            (110, "JPEG XL Lossless"),
            (111, "JPEG XL JPEG Recompression"),
            (112, "JPEG XL"),
        )
    ),
)
"""Every transfer syntax that medcli knows; those without a library are skipped."""


def find_syntax(uid: str, bits_stored: int = 8) -> Syntax | None:
    """The entry of a transfer syntax, None where the table has none."""
    fitting = (each for each in SYNTAXES if each.uid == uid and bits_stored <= each.max_bits)
    return next(fitting, None)


def is_supported(uid: str) -> bool:
    """Whether medcli reads a transfer syntax, be its decoder installed or not."""
    found = find_syntax(uid)
    return found is not None and bool(found.libraries)


def is_isolated(uid: str) -> bool:
    """Whether pixel data in a transfer syntax are read in a worker process."""
    return uid not in NATIVE


def keep_out(*modules: str) -> None:
    """Forbid the import of libraries that pydicom loads if it can and this process will not need.

    In a process of medcli's own only, since other code in it will not find them either.
    """
    for name in modules:
        cast("dict[str, object]", sys.modules).setdefault(name, None)  # as Python documents


def let_in(*modules: str) -> None:
    """Undo `keep_out`."""
    for name in modules:
        if sys.modules.get(name, sys) is None:
            del sys.modules[name]


def decoder_matrix() -> list[DecoderRow]:
    """For every known transfer syntax the decoder in use, or what is missing."""
    return [_row(syntax) for syntax in SYNTAXES]


def _row(syntax: Syntax) -> DecoderRow:
    isolated = is_isolated(syntax.uid)
    for library in syntax.libraries:
        found = library.version
        if found is not None:
            return DecoderRow(syntax.uid, syntax.name, library.package, found, isolated, None)
    install = syntax.libraries[0].install if syntax.libraries else None
    return DecoderRow(syntax.uid, syntax.name, None, None, isolated, install)
