"""A region of a scan: where it lies, what is beyond the borders, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from medcli.errors import UsageError
from medcli.imaging.region import Box, crop_box, crop_point, pixel_of, whole_ct
from medcli.records import Scan, Tones

SHAPE = (6, 40, 60)  # slices, rows, columns
SPACING = (2.0, 0.5, 1.0)


def make_scan(shape: Sequence[int] = SHAPE, **others: Any) -> Scan:
    """A scan each of whose values names its place."""
    pixels = np.arange(np.prod(shape), dtype=np.int32).reshape(*shape, 1) - 1000
    affine = np.array([[0, 0, 1.0, -30], [0, 0.5, 0, 7], [2.0, 0, 0, 100], [0, 0, 0, 1]])
    facts: dict[str, Any] = {
        "path": "scan",
        "files": tuple(f"{n}.dcm" for n in range(shape[0])),
        "slice_files": tuple(f"{n}.dcm" for n in range(shape[0])),
        "scan_id": "1",
        "format": "dicom",
        "unit": "HU",
        "spacing_mm": SPACING,
        "affine": affine,
    }
    return Scan(pixels=pixels, **{**facts, **others})


def test_a_point_has_the_cube_of_that_side_around_it() -> None:
    scan = make_scan()
    part = crop_point(scan, (30, 20, 3), side_mm=8.0)
    np.testing.assert_array_equal(part.pixels, scan.pixels[1:5, 12:28, 26:34])
    assert part.slice_files == ("1.dcm", "2.dcm", "3.dcm", "4.dcm")
    assert (part.spacing_mm, part.unit, part.scan_id) == (SPACING, "HU", "1")
    assert part.files == scan.files
    assert part.padded == 0


def test_the_region_lies_where_it_lay_in_the_body() -> None:
    scan = make_scan()
    part = crop_point(scan, (2, 20, 0), side_mm=8.0)
    at = np.argwhere(part.pixels[..., 0] == scan.pixels[1, 21, 3, 0])[0]
    assert part.affine is not None
    assert scan.affine is not None
    here, there = part.affine @ [*at, 1], scan.affine @ [1, 21, 3, 1]
    np.testing.assert_allclose(here, there)


def test_beyond_the_picture_is_padding_and_beyond_the_stack_is_nothing() -> None:
    scan = make_scan()
    part = crop_point(scan, (0, 0, 5), side_mm=8.0)
    assert part.pixels.shape == (3, 16, 8, 1)
    assert (part.pixels[:, :8] == scan.pixels.min()).all()
    np.testing.assert_array_equal(part.pixels[:, 8:, 4:], scan.pixels[3:, :8, :4])
    assert part.padded == 3 * (16 * 8 - 8 * 4)


def test_a_point_in_mm_is_the_pixel_there() -> None:
    scan = make_scan()
    assert scan.affine is not None
    x, y, z = (scan.affine @ [3, 20, 30, 1])[:3]
    assert pixel_of(scan, (x, y, z)) == pytest.approx((30, 20, 3))
    with pytest.raises(UsageError, match="no position in space"):
        pixel_of(make_scan(affine=None), (x, y, z))


def test_a_box_is_cut_as_it_is_or_gives_the_middle() -> None:
    scan = make_scan()
    box = Box(26, 12, 34, 28, 1, 5)
    np.testing.assert_array_equal(crop_box(scan, box).pixels, scan.pixels[1:5, 12:28, 26:34])
    wider = crop_box(scan, Box(29, 18, 31, 22, 2, 4), side_mm=8.0)
    np.testing.assert_array_equal(wider.pixels, crop_box(scan, box).pixels)


def test_a_picture_needs_no_slice() -> None:
    scan = make_scan((1, 40, 60), spacing_mm=(None, 1.0, 1.0))
    np.testing.assert_array_equal(
        crop_point(scan, (30, 20), side_mm=10.0).pixels, scan.pixels[:, 15:25, 25:35]
    )
    np.testing.assert_array_equal(crop_box(scan, Box(1, 2, 3, 5)).pixels, scan.pixels[:, 2:5, 1:3])


def test_the_tones_of_the_slices_go_with_them() -> None:
    tones = tuple(Tones(np.array([0.0, n + 1]), np.array([0.0, 1.0])) for n in range(6))
    assert crop_point(make_scan(tones=tones), (30, 20, 3), 8.0).tones == tones[1:5]
    assert crop_point(make_scan(tones=tones[:1]), (30, 20, 3), 8.0).tones == tones[:1]


@pytest.mark.parametrize(
    ("point", "facts", "message"),
    [
        ((60, 20, 3), {}, "outside of the scan: it has 60 × 40 pixels in 6 slices"),
        ((30, -1, 3), {}, "outside of the scan"),
        ((30, 20), {}, "has 6 slices: the point needs its slice"),
        ((30, 20, 3), {"spacing_mm": (2.0, None, None)}, "does not say how large its pixels are"),
        ((30, 20, 3), {"spacing_mm": (None, 1.0, 1.0)}, "does not say how large"),
    ],
)
def test_a_point_that_means_nothing_is_refused(
    point: tuple[float, ...], facts: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        crop_point(make_scan(**facts), point, 8.0)


@pytest.mark.parametrize(
    ("corners", "message"),
    [
        ((5, 5, 5, 9, 0, 2), "the region is empty"),
        ((5, 5, 9, 9, 2, 2), "the region is empty"),
        ((5, 5, 61, 9, 0, 2), "not inside of the scan"),
        ((-1, 5, 9, 9, 0, 2), "not inside of the scan"),
        ((5, 5, 9, 9), "the region needs its slices too"),
    ],
)
def test_a_box_that_means_nothing_is_refused(corners: tuple[int, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        crop_box(make_scan(), Box(*corners))


def test_a_whole_ct_is_told_from_a_crop() -> None:
    ct = make_scan((1, 400, 400), spacing_mm=(1.0, 0.8, 0.8))
    (warning,) = whole_ct(ct, 50.0)
    assert warning.code == "whole_ct"
    assert "--point" in warning.message
    assert "320 mm wide" in warning.message
    for scan, side in (
        (ct, None),
        (crop_point(ct, (200, 200), 50.0), 50.0),
        (make_scan((1, 400, 400), unit="stored", spacing_mm=(1.0, 0.8, 0.8)), 50.0),
        (make_scan((1, 400, 400), spacing_mm=(None, None, None)), 50.0),
    ):
        assert whole_ct(scan, side) == ()
