"""PNG, JPEG, TIFF and BMP pictures → `Scan`; other formats are never opened.

Rules (docs/pixels.md): more than 8 bits stay whole; palettes, CMYK, YCbCr
and Lab become RGB; transparency is laid on black; where white is 0 values are inverted; the EXIF
orientation is applied; of an animated or multi-page file the first frame counts.
Radiographs are often saved as RGB, so a colour picture whose channels differ nowhere by
more than `GREY_TOLERANCE` is grey.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL import __version__ as pillow_version

from medcli.errors import ScanError
from medcli.imaging.files import check_size, open_file
from medcli.imaging.formats import HEAD_BYTES, PictureFormat, picture_format
from medcli.imaging.picture_checks import check_picture, truncated
from medcli.imaging.picture_deep import is_deep, mend_byte_order, read_deep
from medcli.imaging.quiet import collected_warnings
from medcli.imaging.values import check_budget, compact, replace_nonfinite
from medcli.records import Case, Scan, ScanWarning

PICTURE_BYTES = 2**28
"""Most bytes of a picture in an archive that shrank by more than such data do."""

GREY_TOLERANCE = 2
"""Grey levels by which JPEG compression may part the channels of a grey picture."""

_FORMATS = ("PNG", "JPEG", "TIFF", "BMP")
_DEEP = ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")
_TRANSPARENT = ("RGBA", "RGBa", "LA", "La", "PA")
_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # TIFF tags
_UNSIGNED, _SIGNED = 1, 2

Warnings = tuple[ScanWarning, ...]


@dataclass(frozen=True, slots=True)
class _Picture:
    """One picture that was read; `pixels` are (H, W, C). `for_display`: 255 is white."""

    pixels: np.ndarray
    format: str
    for_display: bool
    warnings: Warnings


def read_pictures(case: Case) -> Scan:
    """Read one picture, or several as a stack in the given order.

    Raises
    ------
    ScanError : not_found, unreadable, not_an_image, truncated, crc, damaged_pixels,
        too_large; of a stack also mixed_sizes, and unsupported_pixels where some pictures
        have 8 bits and others more, so that their values do not compare
    """
    read = [_read(case.files[0])]
    check_budget(case.path, (len(case.files), *read[0].pixels.shape))
    read += [_read(path) for path in case.files[1:]]
    pixels, replaced = replace_nonfinite(case.path, _stack(case, read))
    return Scan(
        pixels=pixels,
        path=case.path,
        files=case.files,
        slice_files=case.files,
        scan_id=case.scan_id,
        format=read[0].format,
        unit="display" if read[0].for_display else "stored",
        decoder=f"Pillow {pillow_version}",
        patient_id=case.patient_id,
        warnings=(
            *case.warnings,
            *dict.fromkeys(warning for each in read for warning in each.warnings),
            *replaced,
        ),
    )


def _stack(case: Case, read: Sequence[_Picture]) -> np.ndarray:
    """(S, H, W, C) of pictures of one size and depth; colour if any of them is."""
    pictures = [each.pixels for each in read]
    sizes = {picture.shape[:2] for picture in pictures}
    if len(sizes) > 1:
        named = ", ".join(sorted(f"{width}×{height}" for height, width in sizes))
        raise ScanError(
            "mixed_sizes",
            f"{case.path}: the pictures of one scan have several sizes ({named})",
            "Bring them to one size, or give them scan_ids of their own",
        )
    if len({each.for_display for each in read}) > 1:
        raise ScanError(
            "unsupported_pixels",
            f"{case.path}: of the pictures of one scan some have 8 bits and some more, so that "
            "their values do not compare",
            "Bring them to one depth, or give them scan_ids of their own",
        )
    channels = max(picture.shape[2] for picture in pictures)
    alike = [np.repeat(p, channels, axis=2) if p.shape[2] < channels else p for p in pictures]
    return compact(np.stack(alike))


def _read(path: str) -> _Picture:
    """One picture, upright and laid on black."""
    check_size(path, PICTURE_BYTES)
    with open_file(path) as file:
        kind = picture_format(file.read(HEAD_BYTES))
        if kind is None:
            raise ScanError("not_an_image", f"{path}: neither PNG, JPEG, TIFF nor BMP")
        noticed = check_picture(path, file, kind)
        file.seek(0)
        try:
            # Pillow's warnings are notes on metadata; damage to pixels raises.
            with collected_warnings(), Image.open(file, formats=_FORMATS) as image:
                check_budget(path, (*image.size, len(image.getbands())))
                frames = () if kind == "tiff" else _first_frame(image)
                pixels, for_display, reduced = _pixels(path, file, image)
        except ScanError:
            raise
        except Exception as error:  # decoders of damaged pictures raise anything
            raise _failure(path, kind, error) from error
    return _Picture(pixels, kind, for_display, (*noticed, *frames, *reduced))


def _pixels(path: str, file: BinaryIO, image: Image.Image) -> tuple[np.ndarray, bool, Warnings]:
    """(H, W, 1 or 3) values of an opened picture, whether 255 is white, and what was lost."""
    mend_byte_order(image)
    if not is_deep(image):
        values = _values(path, image)
        return values, values.dtype == np.uint8, ()

    def again() -> Image.Image:
        file.seek(0)
        return Image.open(file, formats=_FORMATS)

    deep = read_deep(image, again)
    if deep is None:
        message = "16 bits a channel reduced to 8"
        return _values(path, image), True, (ScanWarning("reduced_bits", message),)
    if deep.shape[2] == 1:
        return deep, False, ()
    return _grey_if_grey(deep / np.float32(257)), True, ()


def _failure(path: str, kind: PictureFormat, error: Exception) -> ScanError:
    """Pillow's exception as one of ours; it has no types of its own for these."""
    words = str(error).lower()
    if isinstance(error, Image.DecompressionBombError | MemoryError):
        return ScanError("too_large", f"{path}: more pixels than the budget allows")
    if "unsupported" in words or "not supported" in words:
        return _unsupported(path)
    if isinstance(error, UnidentifiedImageError):
        # The directory of a TIFF was checked, so it is its layout that Pillow does not know.
        damaged = ScanError("damaged_header", f"{path}: the header is damaged", "Copy it again")
        return _unsupported(path) if kind == "tiff" else damaged
    if "truncated" in words or isinstance(error, EOFError):
        return truncated(path)
    return ScanError("damaged_pixels", f"{path}: the picture cannot be decoded", "Copy it again")


def _unsupported(path: str) -> ScanError:
    message = f"{path}: a number type or layout of pixels that is not read"
    hint = "Save it as PNG, or floats as TIFF of 32 bits"
    return ScanError("unsupported_pixels", message, hint)


def _first_frame(image: Image.Image) -> Warnings:
    """Stand on the first frame, and warn where there is a second."""
    try:
        image.seek(1)
    except EOFError:
        return ()
    finally:
        image.seek(0)
    return (ScanWarning("first_frame", "several frames or pages; the first was read"),)


def _values(path: str, image: Image.Image) -> np.ndarray:
    """(H, W, 1 or 3) values of a picture in any of Pillow's modes, upright."""
    tags: Mapping[int, Any] = getattr(image, "tag_v2", {})  # of a TIFF
    transparent = image.info.get("transparency")
    image = ImageOps.exif_transpose(image)
    if image.mode in _DEEP:
        return compact(_deep(path, np.asarray(image), tags, transparent))[..., np.newaxis]
    if tags.get(_SAMPLE_FORMAT, (_UNSIGNED,))[0] == _SIGNED:  # Pillow takes them for unsigned
        raise _unsupported(path)
    if image.mode in _TRANSPARENT or transparent is not None:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, (0, 0, 0, 255)), layer)
    if image.mode in ("1", "L"):
        return np.asarray(image.convert("L"))[..., np.newaxis]
    return _grey_if_grey(np.asarray(image.convert("RGB")))


def _deep(
    path: str, values: np.ndarray, tags: Mapping[int, Any], transparent: object
) -> np.ndarray:
    """Grey (H, W) of more than 8 bits, larger is brighter, transparent pixels 0."""
    bits, kind = tags.get(_BITS, (16,))[0], tags.get(_SAMPLE_FORMAT, (_UNSIGNED,))[0]
    if bits == 32 and kind == _UNSIGNED:
        values = values.view(np.uint32)  # Pillow takes them for signed
    if tags.get(_PHOTOMETRIC) == 0:  # white is 0, which Pillow minds up to 8 bits only
        if kind != _UNSIGNED:
            raise _unsupported(path)
        values = (1 << bits) - 1 - values.astype(np.int64)
    return values if transparent is None else np.where(values == transparent, 0, values)


def _grey_if_grey(colour: np.ndarray) -> np.ndarray:
    """(H, W, 3) of 0 to 255 → (H, W, 1) where the channels agree, else unchanged."""
    green = colour[..., 1:2]
    spread = np.maximum(colour, green) - np.minimum(colour, green)
    return green.copy() if spread.max(initial=0) <= GREY_TOLERANCE else colour
