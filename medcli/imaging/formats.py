"""Which format a file has, by its content; names decide where a content tells nothing."""

from __future__ import annotations

import os
import re
import struct
import zlib
from pathlib import PurePath
from typing import Literal

from medcli.records import Kind

HEAD_BYTES = 512
VOLUME_SUFFIXES = (".nii", ".nii.gz", ".hdr", ".nrrd", ".nhdr", ".mha", ".mhd")
IMAGE_SUFFIXES = (
    *VOLUME_SUFFIXES, ".dcm", ".dicom", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp",
)  # fmt: skip

PictureFormat = Literal["png", "jpeg", "tiff", "bmp"]
Content = Kind | Literal["archive", "directory", "own picture", "own volume"]

_PICTURE_MAGIC: tuple[tuple[bytes, PictureFormat], ...] = (
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpeg"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
    (b"II+\0", "tiff"),  # BigTIFF
    (b"MM\0+", "tiff"),
)
_PICTURE_SUFFIXES: tuple[tuple[str, PictureFormat], ...] = (
    (".png", "png"), (".jpg", "jpeg"), (".jpeg", "jpeg"), (".tif", "tiff"), (".tiff", "tiff"),
    (".bmp", "bmp"),
)  # fmt: skip
_BMP_LEAST = 18  # bytes up to the size of its second header
_BMP_HEADER_SIZES = (12, 40, 52, 56, 64, 108, 124)
_PNG_HEADER = 33  # signature and IHDR, after which Pillow writes texts
_OWN_TEXT = b"tEXtSoftware\0medcli"  # of pictures to look at; converted data are not marked
OWN_DESCRIPTION = b"medcli heat map"
"""`descrip` in the header of a heat map that medcli wrote as NIfTI-1."""
_DESCRIPTION = 148  # where it begins
_ZIP_MAGIC = (b"PK\3\4", b"PK\5\6")  # the second begins an empty archive
NIFTI_SIZES = (b"\x5c\1\0\0", b"\0\0\1\x5c", b"\x1c\2\0\0", b"\0\0\2\x1c")  # 348 and 540
_SYNTAX = re.compile(rb"\x02\0\x10\0UI.\0([0-9.]{1,64})", re.DOTALL)  # in the File Meta Information
_DIRECTORY_CLASS = b"1.2.840.10008.1.3.10"  # Media Storage Directory Storage


def kind_of(path: str, head: bytes) -> Content | None:
    """What to read a file as, from its name and first `HEAD_BYTES`; None if it is no image.

    Only files named ``.zip`` are archives: many a document is a zip file too. NIfTI and
    NRRD are known by their content, the other volumes by one of `VOLUME_SUFFIXES`.
    """
    if head[128:132] == b"DICM":  # whatever its preamble says: it may be a TIFF header
        return "directory" if _DIRECTORY_CLASS in head[132:] else "dicom"
    if kind := picture_format(head):
        is_own = kind == "png" and head.startswith(_OWN_TEXT, _PNG_HEADER + 4)
        return "own picture" if is_own else "picture"
    if head.startswith(_ZIP_MAGIC):
        return "archive" if has_suffix(path, (".zip",)) else None
    if _is_volume(path, head):
        is_own = _inflated(head).startswith(OWN_DESCRIPTION, _DESCRIPTION)
        return "own volume" if is_own else "volume"
    return "dicom" if looks_like_dicom(head) else None


def _is_volume(path: str, head: bytes) -> bool:
    """Whether a file is a volume, or the header of one."""
    if has_suffix(path, (".hdr",)):  # a name of many formats
        return head.startswith(NIFTI_SIZES)
    if has_suffix(path, (".mnc",)):
        return is_minc(head)
    named = bool(head) and has_suffix(path, VOLUME_SUFFIXES)
    return named or is_nifti(head) or head.startswith(b"NRRD000")


def _inflated(head: bytes) -> bytes:
    """The beginning of a file whose first bytes these are; no more than a NIfTI-1 header."""
    if not head.startswith(b"\x1f\x8b"):
        return head
    try:
        return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(head, 348)
    except zlib.error:  # to be told by who reads the volume
        return b""


def is_minc(head: bytes) -> bool:
    """Whether the first bytes are those of HDF5, which holds MINC-2."""
    return head.startswith(b"\x89HDF\r\n\x1a\n")


def is_nifti(head: bytes) -> bool:
    """Whether the first bytes are those of a NIfTI file, of version 1 or 2."""
    return head.startswith(NIFTI_SIZES) and (
        head[344:348] in (b"n+1\0", b"ni1\0") or head[4:8] in (b"n+2\0", b"ni2\0")
    )


def header_of_pair(path: str) -> str | None:
    """The header ``x.hdr`` that lies beside ``x.img``, None where there is none."""
    if not has_suffix(path, (".img", ".img.gz")):
        return None
    stem = path[: path.lower().rindex(".img")]
    return next((name for name in (f"{stem}.hdr", f"{stem}.HDR") if os.path.isfile(name)), None)


def has_suffix(path: str, suffixes: tuple[str, ...]) -> bool:
    """Whether a file name ends in one of `suffixes`, in any case."""
    return PurePath(path).name.lower().endswith(suffixes)


def picture_format(head: bytes) -> PictureFormat | None:
    """The picture format that the first bytes of a file announce."""
    for magic, name in _PICTURE_MAGIC:
        if head.startswith(magic):
            return name
    if head.startswith(b"BM") and len(head) >= _BMP_LEAST:
        # "BM" alone begins many texts; the size of the next header tells.
        return "bmp" if struct.unpack_from("<I", head, 14)[0] in _BMP_HEADER_SIZES else None
    return None


def begins_a_picture(path: str, head: bytes) -> bool:
    """Whether all of a file is the beginning of the signature of the format it is named for."""
    name = next((name for suffix, name in _PICTURE_SUFFIXES if has_suffix(path, (suffix,))), None)
    if not head or name is None:
        return False
    if name == "bmp":
        return b"BM".startswith(head[:2]) and len(head) < _BMP_LEAST
    return any(magic.startswith(head) for magic, format in _PICTURE_MAGIC if format == name)


def looks_like_dicom(head: bytes) -> bool:
    """Whether the first bytes are a DICOM file's, with the preamble or without.

    Without it the data set begins with group 0002 or 0008, in implicit VR (four bytes
    of length) or explicit VR (two capital letters), little or big endian.
    """
    if head[128:132] == b"DICM":
        return True
    if len(head) < 16 or head[:2] not in (b"\x02\0", b"\x08\0", b"\0\x02", b"\0\x08"):
        return False
    little = head[1] == 0
    element = int.from_bytes(head[2:4], "little" if little else "big")
    explicit = re.match(rb"[A-Z]{2}", head[4:6]) is not None
    implicit = little and int.from_bytes(head[4:8], "little") <= 256
    return element <= 0x0100 and (explicit or implicit)


def named_syntax(head: bytes) -> str | None:
    """The transfer syntax that the first bytes of a DICOM file name; None where they do not."""
    if head[128:132] != b"DICM":
        return None
    found = _SYNTAX.search(head, 132)
    return found[1].decode() if found else None
