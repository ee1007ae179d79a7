"""Stored scans by what a person calls them: an id, a path, a file of theirs, a folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from medcli.retrieval.checking import scan_ids
from medcli.retrieval.sources import stored_sources

if TYPE_CHECKING:
    from medcli.retrieval.gallery import Gallery


def select(gallery: Gallery, names: Sequence[str]) -> tuple[list[int], list[str]]:
    """The ids that `names` choose, and the names that choose none.

    Digits are an id (``./17`` is a file). A folder chooses every scan in it.

    Raises
    ------
    DamagedError : a path is asked for, and a row does not match its checksum
    """
    chosen: set[int] = set()
    unknown = []
    with gallery.snapshot():
        known = set(scan_ids(gallery.catalogue))
        paths = {
            each.id: {each.row.path, each.row.scan_id, *each.row.files}
            for each in (stored_sources(gallery.catalogue) if not all(map(_is_id, names)) else ())
        }
    for name in names:
        found = {int(name)} & known if _is_id(name) else _at(name, paths)
        chosen |= found
        unknown += [] if found else [name]
    return sorted(chosen), unknown


def _is_id(name: str) -> bool:
    return name.isascii() and name.isdigit()


def _at(name: str, paths: dict[int, set[str]]) -> set[int]:
    place = os.path.abspath(name)
    below = place.rstrip(os.sep) + os.sep
    return {
        scan
        for scan, own in paths.items()
        if own & {name, place} or any(each.startswith((below, place + "!/")) for each in own)
    }
