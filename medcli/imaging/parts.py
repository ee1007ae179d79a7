"""A part of a scan to search with: some of its slices, or a rectangle of each."""

from __future__ import annotations

from dataclasses import dataclass

from medcli.errors import UsageError
from medcli.imaging.region import Box, crop_box
from medcli.records import Scan


@dataclass(frozen=True, slots=True)
class Part:
    """What is cut out of a scan.

    Parameters
    ----------
    region : in pixels of the original, of all slices unless it names some; None: all
    slices : the first and the last, from 0 in array order; None: all
    """

    region: Box | None = None
    slices: tuple[int, int] | None = None


def cut(scan: Scan, part: Part) -> Scan:
    """The part of `scan` as a scan of its own, of the same path and patient.

    Raises
    ------
    UsageError : the scan has no such part
    """
    depth, rows, columns = scan.pixels.shape[:3]
    box = part.region or Box(0, 0, columns, rows)
    first, end = (0, depth) if box.z0 is None else box.slices
    if part.slices is not None:
        first, end = part.slices[0], part.slices[1] + 1
    if not 0 <= first < end <= depth:
        raise UsageError(
            f"{scan.path} has no slices {first}-{end - 1}", f"It has the slices 0-{depth - 1}"
        )
    return crop_box(scan, Box(box.x0, box.y0, box.x1, box.y1, first, end))
