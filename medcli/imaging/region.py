"""A region of a scan as a scan of its own: a fixed side in mm around a point or a box.

The frame is that of the original: pixels and slices count from 0 in array order, x along a
row, y down the columns; the ends of a box are exclusive. A point may be given in LPS mm.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from medcli.errors import UsageError
from medcli.records import Scan, ScanWarning

_MUCH_LARGER = 1.5  # times its side a CT may have before it is no crop of the region any more
WAYS = "--point x,y,z or --region x0,y0,x1,y1,z0,z1"


@dataclass(frozen=True, slots=True)
class Box:
    """Columns x0…x1, rows y0…y1 and slices z0…z1 of a scan; the ends are exclusive.

    Without slices it is one of a scan that has one.
    """

    x0: int
    y0: int
    x1: int
    y1: int
    z0: int | None = None
    z1: int | None = None

    @property
    def center(self) -> tuple[float, float, float]:
        """(x, y, z) of the pixel or of the border between pixels in the middle."""
        z0, z1 = self.slices
        x, y, z = self.x0 + self.x1, self.y0 + self.y1, z0 + z1
        return (x - 1) / 2, (y - 1) / 2, (z - 1) / 2

    @property
    def slices(self) -> tuple[int, int]:
        """First slice and the one behind the last."""
        return (0, 1) if self.z0 is None or self.z1 is None else (self.z0, self.z1)


def crop_point(scan: Scan, point: Sequence[float], side_mm: float) -> Scan:
    """The cube of `side_mm` around a point, at the scan's own resolution.

    Parameters
    ----------
    point : (x, y, z) in pixels and slices; (x, y) of a scan of one slice
    side_mm : what lies beyond the picture is filled with the scan's smallest value; slices
        beyond the first and last are left out

    Returns
    -------
    pixels, slice files and geometry of the region; spacing, unit and identity of the scan

    Raises
    ------
    UsageError : the point is outside of the scan, or the spacing is unknown
    """
    x, y, z = _checked_point(scan, point)
    return _cut(scan, box_around(scan, (x, y, z), side_mm))


def crop_box(scan: Scan, box: Box, side_mm: float | None = None) -> Scan:
    """What lies in a box; with `side_mm` the cube of that side around its center.

    Raises
    ------
    UsageError : the box is empty or not inside of the scan; with `side_mm` as `crop_point`
    """
    depth, rows, columns = scan.pixels.shape[:3]
    z0, z1 = box.slices
    if box.z0 is None and depth > 1:
        raise UsageError(
            f"the scan has {depth} slices: the region needs its slices too",
            "Give x0,y0,x1,y1,z0,z1; slices count from 0, z1 is the one behind the last",
        )
    if not (box.x0 < box.x1 and box.y0 < box.y1 and z0 < z1):
        raise UsageError("the region is empty", "Each end is larger than its start: x0 < x1 …")
    inside = box.x0 >= 0 and box.y0 >= 0 and z0 >= 0
    if not (inside and box.x1 <= columns and box.y1 <= rows and z1 <= depth):
        raise UsageError(f"the region is not inside of the scan: {_size(scan)}", _FRAME)
    if side_mm is None:
        return _cut(scan, box)
    return _cut(scan, box_around(scan, box.center, side_mm))


def box_around(scan: Scan, center: tuple[float, float, float], side_mm: float) -> Box:
    """The box of `side_mm` in each direction around (x, y, z), which may pass the borders.

    A scan of one slice has that slice, whatever its thickness.

    Raises
    ------
    UsageError : the spacing that is needed is unknown
    """
    z_mm, y_mm, x_mm = scan.spacing_mm
    if y_mm is None or x_mm is None or (z_mm is None and len(scan.pixels) > 1):
        raise UsageError(
            f"the scan does not say how large its pixels are, so {side_mm:g} mm are unknown",
            "Crop it yourself and give the crop, or use a file with its spacing",
        )
    x, y, z = center
    x0, x1 = _interval(x, side_mm / x_mm)
    y0, y1 = _interval(y, side_mm / y_mm)
    if len(scan.pixels) == 1:
        return Box(x0, y0, x1, y1)
    assert z_mm is not None
    return Box(x0, y0, x1, y1, *_interval(z, side_mm / z_mm))


def pixel_of(scan: Scan, point_mm: Sequence[float]) -> tuple[float, float, float]:
    """(x, y, z) in LPS mm → (x, y, z) in pixels and slices.

    Raises
    ------
    UsageError : the scan has no position in space, or the point lies outside of it
    """
    if scan.affine is None:
        raise UsageError(
            "the scan has no position in space, so a point in mm means nothing in it",
            "Give the point in pixels and slices: x,y,z",
        )
    z, y, x = np.linalg.solve(scan.affine, [*point_mm, 1.0])[:3].tolist()
    if not _is_inside(scan, (x, y, z)):
        raise UsageError(
            f"the point lies at pixel {x:.0f},{y:.0f} of slice {z:.0f}, outside of the scan: "
            f"{_size(scan)}",
            "LPS mm count to the left, to the back and upwards; in RAS the first two have the "
            "other sign",
        )
    return x, y, z


def whole_ct(scan: Scan, region_mm: float | None) -> tuple[ScanWarning, ...]:
    """A warning where a CT in HU is much larger than the region that a model answers about."""
    spacing = [mm for mm in scan.spacing_mm[1:] if mm is not None]
    if region_mm is None or scan.unit != "HU" or len(spacing) < 2:
        return ()
    largest = max(np.multiply(scan.pixels.shape[1:3], spacing))
    if largest <= region_mm * _MUCH_LARGER:
        return ()
    message = (
        f"{largest:.0f} mm wide, and the model answers about a region of {region_mm:g} mm: "
        f"name one with {WAYS}"
    )
    return (ScanWarning("whole_ct", message),)


_FRAME = "Pixels and slices count from 0 in array order; `medcli inspect` shows the size"


def _size(scan: Scan) -> str:
    depth, rows, columns = scan.pixels.shape[:3]
    return f"it has {columns} × {rows} pixels in {depth} slice{'s' * (depth > 1)}"


def _checked_point(scan: Scan, point: Sequence[float]) -> tuple[float, float, float]:
    """(x, y, z) inside of the scan."""
    depth = len(scan.pixels)
    if len(point) == 2:
        if depth > 1:
            raise UsageError(
                f"the scan has {depth} slices: the point needs its slice too",
                "Give x,y,z; slices count from 0",
            )
        point = (*point, 0)
    x, y, z = map(float, point)
    if not _is_inside(scan, (x, y, z)):
        raise UsageError(f"the point is outside of the scan: {_size(scan)}", _FRAME)
    return x, y, z


def _is_inside(scan: Scan, point: tuple[float, float, float]) -> bool:
    """Whether (x, y, z) lies in a pixel."""
    depth, rows, columns = scan.pixels.shape[:3]
    ends = zip(point, (columns, rows, depth), strict=True)
    return all(-0.5 <= value <= end - 0.5 for value, end in ends)


def _interval(center: float, length: float) -> tuple[int, int]:
    """Start and end of `length` pixels, one at least, with `center` in the middle."""
    count = max(1, round(length))
    start = math.ceil(center - count / 2)
    return start, start + count


def _cut(scan: Scan, box: Box) -> Scan:
    """The pixels of `box`, which may pass the borders, with what belongs to them."""
    depth, rows, columns = scan.pixels.shape[:3]
    z0, z1 = max(box.slices[0], 0), min(box.slices[1], depth)
    y0, y1 = max(box.y0, 0), min(box.y1, rows)
    x0, x1 = max(box.x0, 0), min(box.x1, columns)
    inside = scan.pixels[z0:z1, y0:y1, x0:x1]
    beyond = ((0, 0), (y0 - box.y0, box.y1 - y1), (x0 - box.x0, box.x1 - x1), (0, 0))
    smallest = scan.pixels.min()
    pixels = np.pad(inside, beyond, constant_values=smallest)
    filled = pixels.size - inside.size
    affine = scan.affine
    if affine is not None:
        affine = affine.copy()
        affine[:3, 3] += affine[:3, :3] @ (z0, box.y0, box.x0)
    return replace(
        scan,
        pixels=pixels,
        slice_files=scan.slice_files[z0:z1],
        affine=affine,
        tones=scan.tones[z0:z1] if len(scan.tones) == depth > 1 else scan.tones,
        padded=int((pixels == smallest).sum()) if scan.padded else filled,
    )
