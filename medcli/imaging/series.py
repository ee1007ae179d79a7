"""The DICOM files of one series → a `Scan`; the rules of order stand in `stack`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from medcli.imaging.dicom import DicomImage, Unit, read_image
from medcli.imaging.dicom_header import read_header
from medcli.imaging.stack import Stack, stack_slices
from medcli.imaging.values import check_budget, compact
from medcli.records import Case, Scan, ScanWarning


def read_series(case: Case) -> Scan:
    """Read the DICOM files of `case` as one stack along the slice normal.

    Every header is read before any pixel, so that nothing is decoded that is over
    the budget or will be dropped.

    Raises
    ------
    ScanError : any file that cannot be read, named, with its code
    """
    headers = [read_header(path) for path in case.files]
    stack = stack_slices(headers, case.series_uid)
    first = stack.slices[0].header
    check_budget(case.path, (len(stack.slices), first.rows, first.columns, first.samples))
    images = {path: read_image(path) for path in _used_files(stack)}
    return Scan(
        pixels=_pixels(stack, images),
        path=case.path,
        files=case.files,
        slice_files=tuple(each.header.path for each in stack.slices),
        scan_id=case.scan_id,
        format="dicom",
        modality=first.modality,
        unit=_common_unit(images.values()),
        spacing_mm=stack.spacing_mm,
        affine=stack.affine,
        window=images[first.path].window,
        photometric=first.photometric,
        transfer_syntax=first.transfer_syntax,
        decoder=", ".join(dict.fromkeys(image.decoder for image in images.values())),
        patient_id=case.patient_id or first.patient_id,
        study_uid=first.study_uid,
        series_uid=first.series_uid,
        metadata=first.metadata,
        warnings=(
            *stack.warnings,
            *_merged([header.warnings for header in headers]),
            *_merged([image.warnings for image in images.values()]),
        ),
    )


def _used_files(stack: Stack) -> list[str]:
    """The files that hold the stack's slices, each once."""
    return list(dict.fromkeys(each.header.path for each in stack.slices))


def _pixels(stack: Stack, images: dict[str, DicomImage]) -> np.ndarray:
    """(S, H, W, C) in stack order, in one number type."""
    frames = [images[each.header.path].pixels[each.frame] for each in stack.slices]
    pixels = np.stack(frames) if len(frames) > 1 else frames[0][np.newaxis]
    same = pixels.dtype in (np.uint8, np.int16, np.uint16, np.float32)
    return pixels if same else compact(pixels)


def _common_unit(images: Iterable[DicomImage]) -> Unit:
    """The unit of all images, "stored" where they differ."""
    units = {image.unit for image in images}
    return units.pop() if len(units) == 1 else "stored"


def _merged(found: Sequence[Sequence[ScanWarning]]) -> tuple[ScanWarning, ...]:
    """One warning for each code: the first message, and in how many files it stands."""
    by_code: dict[str, list[ScanWarning]] = {}
    for warnings in found:
        for warning in warnings:
            by_code.setdefault(warning.code, []).append(warning)
    return tuple(
        same[0] if len(same) == 1 else ScanWarning(code, f"{same[0].message} ({len(same)} files)")
        for code, same in by_code.items()
    )
