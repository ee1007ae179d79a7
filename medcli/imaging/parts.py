"""A part of a scan: some of its slices, or a rectangle of each."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from medcli.errors import UsageError
from medcli.records import Scan


@dataclass(frozen=True, slots=True)
class Part:
    """What is cut out of a scan.

    Parameters
    ----------
    region : x0, y0, x1, y1 in pixels of the original, x1 and y1 exclusive; None: all
    slices : the first and the last, from 0 in array order; None: all
    """

    region: tuple[int, int, int, int] | None = None
    slices: tuple[int, int] | None = None


def cut(scan: Scan, part: Part) -> Scan:
    """The part of `scan` as a scan of its own, of the same path and patient.

    Raises
    ------
    UsageError : the scan has no such part
    """
    count, rows, columns = scan.pixels.shape[:3]
    first, last = part.slices or (0, count - 1)
    x0, y0, x1, y1 = part.region or (0, 0, columns, rows)
    if not 0 <= first <= last < count:
        raise UsageError(
            f"{scan.path} has no slices {first}-{last}", f"It has the slices 0-{count - 1}"
        )
    if not (0 <= x0 < x1 <= columns and 0 <= y0 < y1 <= rows):
        raise UsageError(
            f"{scan.path} has no region {x0},{y0},{x1},{y1}",
            f"Give x0,y0,x1,y1 inside its {columns} columns and {rows} rows, x0 < x1, y0 < y1",
        )
    pixels = scan.pixels[first : last + 1, y0:y1, x0:x1]
    affine = scan.affine
    if affine is not None:
        affine = affine.copy()
        affine[:3, 3] += affine[:3, :3] @ np.array([first, y0, x0], dtype=float)
    # Padding holds the smallest value of its file.
    padded = int((pixels == pixels.min()).sum()) if scan.padded else 0
    return replace(
        scan,
        pixels=pixels,
        slice_files=scan.slice_files[first : last + 1],
        affine=affine,
        tones=scan.tones[first : last + 1] if len(scan.tones) == count > 1 else scan.tones,
        padded=min(padded, scan.padded),
    )
