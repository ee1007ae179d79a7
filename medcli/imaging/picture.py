"""PNG, JPEG, TIFF and BMP pictures → `Scan`; other formats are never opened.

Rules: 16-bit grey stays whole; palettes, CMYK and other colour spaces become RGB;
transparency is laid on black; the EXIF orientation is applied; of an animated or
multi-page file the first frame counts. Radiographs are often saved as RGB, so a
colour picture whose channels differ nowhere by more than `GREY_TOLERANCE` is grey.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL import __version__ as pillow_version

from medcli.errors import ScanError
from medcli.imaging.files import open_file
from medcli.imaging.formats import HEAD_BYTES, picture_format
from medcli.imaging.quiet import collected_warnings
from medcli.imaging.values import check_budget, compact, replace_nonfinite
from medcli.records import Case, Scan, ScanWarning

GREY_TOLERANCE = 2
"""Grey levels by which JPEG compression may part the channels of a grey picture."""

_FORMATS = ("PNG", "JPEG", "TIFF", "BMP")
_DEEP = ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")
_TRANSPARENT = ("RGBA", "RGBa", "LA", "La", "PA")

Warnings = tuple[ScanWarning, ...]


def read_pictures(case: Case) -> Scan:
    """Read one picture, or several as a stack in the given order.

    Raises
    ------
    ScanError : not_found, unreadable, not_an_image, truncated, crc, damaged_pixels,
        too_large; mixed_sizes where the pictures of a stack differ in size
    """
    read = [_read(path) for path in case.files]
    pixels = _stack(case, [picture for picture, _, _ in read])
    eight_bits = pixels.dtype == np.uint8
    return Scan(
        pixels=pixels,
        path=case.path,
        files=case.files,
        slice_files=case.files,
        scan_id=case.scan_id,
        format=read[0][1],
        unit="display" if eight_bits else "stored",
        decoder=f"Pillow {pillow_version}",
        patient_id=case.patient_id,
        warnings=tuple(dict.fromkeys(warning for _, _, found in read for warning in found)),
    )


def _stack(case: Case, pictures: Sequence[np.ndarray]) -> np.ndarray:
    """(S, H, W, C) of pictures (H, W, C); colour if any of them is."""
    sizes = {picture.shape[:2] for picture in pictures}
    if len(sizes) > 1:
        named = ", ".join(sorted(f"{width}×{height}" for height, width in sizes))
        raise ScanError(
            "mixed_sizes",
            f"{case.path}: the pictures of one scan have several sizes ({named})",
            "Bring them to one size, or give them scan_ids of their own",
        )
    check_budget(case.path, (len(pictures), *pictures[0].shape))
    channels = max(picture.shape[2] for picture in pictures)
    alike = [np.repeat(p, channels, axis=2) if p.shape[2] < channels else p for p in pictures]
    return compact(np.stack(alike))


def _read(path: str) -> tuple[np.ndarray, str, Warnings]:
    """(H, W, C) pixels, format and warnings of one picture."""
    with open_file(path) as file:
        kind = picture_format(file.read(HEAD_BYTES))
        file.seek(0)
        if kind is None:
            raise ScanError("not_an_image", f"{path}: neither PNG, JPEG, TIFF nor BMP")
        noticed = _check_png(path, file.read()) if kind == "png" else ()
        file.seek(0)
        try:
            # Pillow's warnings are notes on metadata; damage to pixels raises.
            with collected_warnings(), Image.open(file, formats=_FORMATS) as image:
                check_budget(path, (*image.size, len(image.getbands())))
                frames = _first_frame(image)
                pixels = _values(ImageOps.exif_transpose(image))
        except ScanError:
            raise
        except Exception as error:  # decoders of damaged pictures raise anything
            raise _failure(path, error) from error
    values, replaced = replace_nonfinite(pixels)
    return values, kind, (*noticed, *frames, *replaced)


def _failure(path: str, error: Exception) -> ScanError:
    """Pillow's exception as one of ours; it has no types of its own for these."""
    if isinstance(error, Image.DecompressionBombError | MemoryError):
        return ScanError("too_large", f"{path}: more pixels than the budget allows")
    if isinstance(error, UnidentifiedImageError):
        return ScanError("damaged_header", f"{path}: the header is damaged", "Copy it again")
    if "truncated" in str(error).lower() or isinstance(error, EOFError):
        return ScanError("truncated", f"{path}: the file ends early", "Copy it again")
    return ScanError("damaged_pixels", f"{path}: the picture cannot be decoded", "Copy it again")


def _first_frame(image: Image.Image) -> Warnings:
    """Stand on the first frame, and warn where there is a second."""
    try:
        image.seek(1)
    except EOFError:
        return ()
    finally:
        image.seek(0)
    return (ScanWarning("first_frame", "several frames or pages; the first was read"),)


def _values(image: Image.Image) -> np.ndarray:
    """(H, W, 1 or 3) values of a picture in any of Pillow's modes."""
    if image.mode in _DEEP:
        return compact(np.asarray(image))[..., np.newaxis]
    if image.mode in ("1", "L"):
        return np.asarray(image.convert("L"))[..., np.newaxis]
    if image.mode in _TRANSPARENT or "transparency" in image.info:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, (0, 0, 0, 255)), layer)
    return _grey_if_grey(np.asarray(image.convert("RGB")))


def _grey_if_grey(colour: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 → (H, W, 1) where the channels agree, else unchanged."""
    green = colour[..., 1:2]
    spread = np.maximum(colour, green) - np.minimum(colour, green)
    return green.copy() if spread.max(initial=0) <= GREY_TOLERANCE else colour


def _check_png(path: str, data: bytes) -> Warnings:
    """Walk through the chunks of a PNG: Pillow checks neither their CRC nor the end.

    References
    ----------
    PNG (ISO/IEC 15948), 5.3 chunk layout
    """
    position, ended, reduced = 8, False, False
    while not ended:
        length = int.from_bytes(data[position : position + 4], "big")
        end = position + 12 + length
        if end > len(data):
            raise ScanError("truncated", f"{path}: the file ends early", "Copy it again")
        chunk = data[position + 4 : end - 4]
        if zlib.crc32(chunk) != int.from_bytes(data[end - 4 : end], "big"):
            raise ScanError("crc", f"{path}: a checksum is wrong", "Copy it again")
        if chunk[:4] == b"IHDR":
            reduced = chunk[12:13] == b"\x10" and chunk[13:14] != b"\0"
        position, ended = end, chunk[:4] == b"IEND"
    message = "16 bits a channel with colour or transparency reduced to 8"
    return (ScanWarning("reduced_bits", message),) if reduced else ()
