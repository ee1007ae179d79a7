"""Patients and pictures that stand in several places: parts of a split, classes, files."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence

from medcli.records import Case


def shared_patients(first: Iterable[Case], second: Iterable[Case]) -> set[str]:
    """Patients that stand in both; an unknown patient equals no other."""
    return _patients(first) & _patients(second)


def identical_pixels(
    parts: Mapping[str, Sequence[Case]], pixel_hashes: Mapping[str, str]
) -> list[tuple[Case, ...]]:
    """Scans with identical pixels that stand in different parts.

    Parameters
    ----------
    parts : cases of each part, "train", "val", "test"
    pixel_hashes : scan_id → hash of the pixels; scans without one are left out

    Returns
    -------
    one tuple for each set of identical scans, in the order of the parts
    """
    found: defaultdict[str, list[tuple[str, Case]]] = defaultdict(list)
    for part, cases in parts.items():
        for case in cases:
            if case.scan_id in pixel_hashes:
                found[pixel_hashes[case.scan_id]].append((part, case))
    return [
        tuple(case for _, case in scans)
        for scans in found.values()
        if len({part for part, _ in scans}) > 1
    ]


def _patients(cases: Iterable[Case]) -> set[str]:
    return {case.patient_id for case in cases if case.patient_id is not None}


def alike(keys: Sequence[Hashable | None]) -> list[tuple[int, ...]]:
    """Positions that have one key in common, two or more together; None is like no other."""
    places: defaultdict[Hashable, list[int]] = defaultdict(list)
    for place, key in enumerate(keys):
        if key is not None:
            places[key].append(place)
    return [tuple(group) for group in places.values() if len(group) > 1]


def torn(
    groups: Iterable[tuple[int, ...]], values: Sequence[Hashable | None]
) -> list[tuple[int, ...]]:
    """The groups of positions that have two or more `values`; None is no value."""
    return [
        group
        for group in groups
        if len({values[place] for place in group if values[place] is not None}) > 1
    ]
