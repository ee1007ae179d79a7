"""The DICOM files of one series → a `Scan`; the rules of order stand in `stack`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from medcli.imaging.dicom import DicomImage, read_image
from medcli.imaging.dicom_voi import alike, of_frame
from medcli.imaging.header_memory import known_header
from medcli.imaging.isolation.inside import leave_compressed_to_worker
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
    NeedsWorkerError : compressed pixel data, outside of a worker
    """
    headers = [known_header(path) for path in case.files]
    leave_compressed_to_worker(header.transfer_syntax for header in headers)
    stack = stack_slices(headers, case)
    first = stack.slices[0].header
    check_budget(case.path, (len(stack.slices), first.rows, first.columns, first.samples))
    pixels, images = _decode(stack)
    units = {image.unit for image in images.values()}
    return Scan(
        pixels=pixels,
        path=case.path,
        files=case.files,
        slice_files=tuple(each.header.path for each in stack.slices),
        scan_id=case.scan_id,
        format="dicom",
        modality=first.modality,
        unit=units.pop() if len(units) == 1 else "stored",
        spacing_mm=stack.spacing_mm,
        affine=stack.affine,
        window=images[first.path].window,
        photometric=first.photometric,
        transfer_syntax=first.transfer_syntax,
        decoder=", ".join(dict.fromkeys(image.decoder for image in images.values())),
        patient_id=case.patient_id or first.patient_id,
        study_uid=first.study_uid,
        study_date=first.study_date,
        series_uid=first.series_uid,
        metadata=first.metadata,
        padded=sum(images[each.header.path].padded[each.frame] for each in stack.slices),
        tones=alike(
            [of_frame(images[each.header.path].tones, each.frame) for each in stack.slices]
        ),
        warnings=(
            *case.warnings,
            *stack.warnings,
            *_of_files([h.warnings for h in headers], [i.warnings for i in images.values()]),
        ),
    )


def _decode(stack: Stack) -> tuple[np.ndarray, dict[str, DicomImage]]:
    """(S, H, W, C) in stack order, and each file's record without its pixels.

    One file is in memory at a time beside the stack.
    """
    frames: dict[str, list[tuple[int, int]]] = {}  # file → (place in the stack, frame)
    for place, each in enumerate(stack.slices):
        frames.setdefault(each.header.path, []).append((place, each.frame))
    pixels = np.empty(0, np.uint8)
    images: dict[str, DicomImage] = {}
    for path, places in frames.items():
        image = read_image(path)
        if not images:
            pixels = np.empty((len(stack.slices), *image.pixels.shape[1:]), image.pixels.dtype)
        pixels = pixels.astype(np.result_type(pixels, image.pixels), copy=False)
        for place, frame in places:
            pixels[place] = image.pixels[frame]
        images[path] = replace(image, pixels=np.empty(0))
    known = pixels.dtype in (np.uint8, np.int16, np.uint16, np.float32)
    return (pixels if known else compact(pixels)), images


def _of_files(
    headers: Sequence[Sequence[ScanWarning]], images: Sequence[Sequence[ScanWarning]]
) -> tuple[ScanWarning, ...]:
    """The warnings of headers and images; of a code that both have what the image says.

    An image is read with its header, once more.
    """
    later = _merged(images)
    said = {warning.code for warning in later}
    return (*(warning for warning in _merged(headers) if warning.code not in said), *later)


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
