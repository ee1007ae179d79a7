"""Typed access to the tags of a DICOM dataset: a damaged value counts as blank.

The functions warn (with the tag's name only) where a value cannot be read; `quiet`
of `dicom_file` counts that.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from functools import cache
from typing import Any, cast

from pydicom.dataset import Dataset
from pydicom.tag import BaseTag, Tag

from medcli.imaging.dicom_bounds import check_bounds

Vector = tuple[float, ...]


@cache  # of the few that are asked for; pydicom looks it up each time
def tag_of(keyword: str) -> BaseTag:
    """The tag of a keyword of the standard."""
    return Tag(keyword)


def value(dataset: Dataset, keyword: str) -> Any:
    """A tag's value; None where it is absent, blank or cannot be converted.

    Raises
    ------
    ScanError : too_large, a header that is a bomb
    """
    tag = tag_of(keyword)
    if tag not in dataset:  # half of what is asked for; cheaper than the exception
        return None
    try:
        found = dataset[tag].value
    except Exception:  # pydicom's converters raise whatever a damaged value leads to
        check_bounds()
        warnings.warn(f"{keyword} is unreadable", stacklevel=2)  # counted by `quiet`
        return None
    return None if found is None or found == "" else found


def text(dataset: Dataset, keyword: str) -> str | None:
    """A tag as text without padding and control characters; None where blank."""
    found = value(dataset, keyword)
    if found is None:
        return None
    if not isinstance(found, str | bytes) and isinstance(found, Sequence):
        found = "\\".join(str(part) for part in found)
    written = str(found)
    if not written.isprintable():
        written = "".join(character for character in written if character.isprintable())
    return written.strip() or None


def numbers(dataset: Dataset, keyword: str, count: int) -> Vector | None:
    """A tag as `count` finite numbers; None where it holds anything else."""
    found = value(dataset, keyword)
    if found is None:
        return None
    single = isinstance(found, float | int | str) or not isinstance(found, Sequence)
    parts = [found] if single else found
    try:
        result = tuple(float(part) for part in parts)
    except (TypeError, ValueError, OverflowError):
        warnings.warn(f"{keyword} is no number", stacklevel=2)  # counted by `quiet`
        return None
    return result if len(result) == count and all(map(math.isfinite, result)) else None


def integer(dataset: Dataset, keyword: str, default: int = 0) -> int:
    """A tag as one whole number, `default` where it holds anything else."""
    found = numbers(dataset, keyword, 1)
    return default if found is None else int(found[0])


def functional_groups(dataset: Dataset, frames: int = 0) -> list[list[Dataset]]:
    """For each frame of an enhanced object, where to look for its macros: itself, then shared.

    As many as the object names, which may be fewer than its frames; of an object that names
    nothing by frame `frames` times what all share; none for other objects.

    References
    ----------
    DICOM PS3.3 C.7.6.16, Multi-frame Functional Groups Module
    """
    per_frame = value(dataset, "PerFrameFunctionalGroupsSequence") or []
    shared = list(value(dataset, "SharedFunctionalGroupsSequence") or [])[:1]
    if shared and not per_frame:
        return [shared] * frames
    return [[frame, *shared] for frame in per_frame]


def macro(groups: Sequence[Dataset], keyword: str) -> Dataset | None:
    """The first item of a functional group's sequence, None where no group has it."""
    for group in groups:
        items = value(group, keyword)
        if items:
            return cast(Dataset, items[0])
    return None
