"""The DICOM files of one folder → series, each to be read as one stack."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace

from medcli.errors import ScanError
from medcli.imaging.dicom_header import SECONDARY_CAPTURE
from medcli.imaging.header import Header
from medcli.imaging.header_memory import found_header, known_header
from medcli.imaging.stack import (
    STRAYS,
    complement,
    is_cine,
    part_repeats,
    same_orientation,
    slices_of,
)
from medcli.records import Case, ScanWarning

STACKED_MODALITIES = ("CT", "MR", "PT")
"""Modalities whose files form a stack even where they carry no positions."""


def group_files(
    paths: Sequence[str], folder: str | None = None, *, own_outputs: bool = False
) -> tuple[list[Case], dict[str, ScanError]]:
    """The scans among the DICOM files of `folder`, and the files that hold none.

    A lone image is named by its file, a series by its folder: by default the one that
    its files have in common. What medcli drew is passed over without `own_outputs`.
    """
    headers: list[Header] = []
    errors: dict[str, ScanError] = {}
    for path in paths:
        try:
            header = found_header(path)
            if own_outputs or not header.is_own_output:
                headers.append(header)
        except ScanError as error:
            errors[path] = error
    cases = [case for group in _series(headers) for case in _cases(group, folder)]
    return cases, errors


def unite_folders(parts: Sequence[Case]) -> Case | None:
    """One case of the parts of a series that lie in several folders.

    None where they do not complement each other (copies, time points), or cannot be read.
    """
    try:
        headers = [known_header(path) for part in parts for path in part.files]
    except ScanError:  # to be told by who reads the part
        return None
    if not complement(slices_of(headers)):
        return None
    case = _case(headers, None)
    folders = len({os.path.dirname(path) for path in case.files})
    message = f"the slices of the series lie in {folders} folders; read as one scan"
    return replace(case, warnings=(*case.warnings, ScanWarning("several_folders", message)))


def _series(headers: Sequence[Header]) -> list[list[Header]]:
    """Headers grouped into stacks: by series and frame of reference, then by orientation.

    Multi-frame files, and images without a position unless their modality is one of
    `STACKED_MODALITIES` and they are no screen captures, stand alone.
    """
    alone: list[list[Header]] = []
    groups: dict[tuple[object, ...], list[Header]] = {}
    for header in headers:
        placed = header.planes[0].position is not None
        captured = (header.sop_class or "").startswith(SECONDARY_CAPTURE)
        stacked = placed or (header.modality in STACKED_MODALITIES and not captured)
        if header.frames > 1 or not stacked:
            alone.append([header])
        else:
            groups.setdefault(_series_key(header), []).append(header)
    return alone + [stack for group in _joined(groups.values()) for stack in _stacks(group)]


def _joined(groups: Iterable[list[Header]]) -> list[list[Header]]:
    """Groups, with those of one slice joined that make a stack but for the frame of reference.

    Some devices write a new frame of reference into each slice of a series.
    """
    kept: list[list[Header]] = []
    lone: dict[str, list[Header]] = {}
    for group in groups:
        if len(group) == 1 and group[0].series_uid is not None:
            lone.setdefault(group[0].series_uid, []).append(group[0])
        else:
            kept.append(group)
    for series in lone.values():
        for stack in _stacks(series):
            one = len(stack) > 1 and complement(slices_of(stack))
            kept += [stack] if one else [[each] for each in stack]
    return kept


def _series_key(header: Header) -> tuple[object, ...]:
    """What the files of one series share; where its UID is blank, what they look like."""
    if header.series_uid is not None:
        return header.series_uid, header.frame_of_reference
    return (
        header.study_uid,
        header.frame_of_reference,
        header.modality,
        header.series_number,
        (header.rows, header.columns, header.samples),
        header.planes[0].spacing,
        header.metadata.get("SliceThickness"),
        header.metadata.get("ConvolutionKernel"),
    )


def _stacks(series: Sequence[Header]) -> list[list[Header]]:
    """One series parted by orientation; localizers and strays stay with its largest stack."""
    stacks: list[list[Header]] = []
    for header in series:
        plane = header.planes[0]
        fitting = (stack for stack in stacks if same_orientation(stack[0].planes[0], plane))
        stack = next(fitting, None)
        if stack is None:
            stacks.append([header])
        else:
            stack.append(header)
    largest = max(stacks, key=lambda stack: (not _all_localizers(stack), len(stack)))
    kept = [largest]
    for stack in stacks:
        if stack is largest:
            continue
        scout = _all_localizers(stack) and not _all_localizers(largest)
        if scout or len(stack) <= STRAYS < len(largest):
            largest.extend(stack)
        else:
            kept.append(stack)
    places = {header.path: position for position, header in enumerate(series)}
    return [sorted(stack, key=lambda header: places[header.path]) for stack in kept]


def _all_localizers(stack: Sequence[Header]) -> bool:
    return all(header.is_localizer for header in stack)


def _cases(stack: Sequence[Header], folder: str | None) -> list[Case]:
    """The cases of one stack: one for each time point or acquisition where positions repeat.

    Localizers and strays stay with the first, whose reader drops and names them.
    """
    first = next((header for header in stack if not header.is_localizer), stack[0])
    plane = first.planes[0]
    if len(stack) == 1 or plane.position is None or plane.orientation is None:
        return [_case(stack, folder)]
    fitting = [
        header
        for header in stack
        if header.is_localizer == first.is_localizer
        and header.planes[0].position is not None
        and same_orientation(header.planes[0], plane)
    ]
    parts = part_repeats(slices_of(fitting))
    if parts.mark is None or is_cine(parts):
        return [_case(stack, folder)]
    numbers = {
        each.header.path: number for number, part in enumerate(parts.slices) for each in part
    }
    code, what = (
        ("time_points", "time points")
        if parts.mark.is_time
        else ("several_acquisitions", "acquisitions")
    )
    cases = []
    for number in range(len(parts.slices)):
        group = [header for header in stack if numbers.get(header.path, 0) == number]
        message = (
            f"the series holds {len(parts.slices)} {what}, told apart by {parts.mark.keyword}; "
            f"this is number {number + 1}"
        )
        case = _case(group, folder)
        scan_id = f"{case.scan_id}~{number + 1}" if number and len(group) > 1 else case.scan_id
        warnings = (*case.warnings, ScanWarning(code, message))
        cases.append(replace(case, scan_id=scan_id, warnings=warnings))
    return cases


def _case(group: Sequence[Header], folder: str | None) -> Case:
    """The case of one file or of one series in `folder`."""
    files = tuple(header.path for header in group)
    first = group[0]
    alone = len(files) == 1
    frames = len({header.frame_of_reference for header in group})
    message = f"the slices name {frames} frames of reference; read as one scan"
    return Case(
        path=files[0] if alone else folder or os.path.commonpath(map(os.path.dirname, files)),
        files=files,
        kind="dicom",
        scan_id=(first.sop_uid if alone else first.series_uid) or _geometry_id(group),
        series_uid=first.series_uid,
        warnings=(ScanWarning("frames_of_reference", message),) if frames > 1 else (),
    )


def _geometry_id(group: Sequence[Header]) -> str:
    """An id for a scan without UIDs: it stays when the folder is moved or renamed."""
    parts = sorted(
        repr((os.path.basename(each.path), each.frame_of_reference, each.planes[0]))
        for each in group
    )
    return f"geometry-{hashlib.sha256(chr(10).join(parts).encode()).hexdigest()[:32]}"
