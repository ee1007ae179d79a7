"""`--point` and `--region`: which part of a scan a model is asked about."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from medcli.cli.output import Names, note, show_warnings
from medcli.errors import UsageError
from medcli.records import Case, Failure, Prediction, Scan

if TYPE_CHECKING:
    from medcli.imaging.region import Box
    from medcli.inference.predictor import Predictor

Point = Annotated[
    str | None,
    typer.Option(
        "--point",
        metavar="X,Y,Z",
        help="Ask about the region around this point: pixels and slice from 0, or LPS mm as in "
        "12.5,-30,88mm.",
        show_default=False,
    ),
]
Region = Annotated[
    str | None,
    typer.Option(
        "--region",
        metavar="X0,Y0,X1,Y1,Z0,Z1",
        help="Ask about the region around this box of pixels and slices; without slices for a "
        "picture. Ends are exclusive.",
        show_default=False,
    ),
]
Crop = Callable[[Scan, float | None], Scan]
"""A scan and the side in mm that a model answers about → the region as a scan."""

MM = "mm"


def asked_crop(point: str | None, region: str | None) -> Crop | None:
    """What the options ask for; None where they are not given.

    Raises
    ------
    UsageError : both, or numbers that are none
    """
    if point is not None and region is not None:
        raise UsageError("--point and --region both name the region", "Give one of them")
    if point is not None:
        return _around_point(point)
    if region is not None:
        box = box_of(region)
        return lambda scan, side_mm: _crop_box(scan, box, side_mm)
    return None


def check_one_scan(cases: Sequence[Case | Failure]) -> None:
    """Raise where a region is to be cut out of several scans.

    Raises
    ------
    UsageError : names how many were found
    """
    found = sum(isinstance(case, Case) for case in cases)
    if found > 1:
        raise UsageError(
            f"a region is one of one scan, and {found} were found", "Classify them one by one"
        )


def for_region(predictor: Predictor) -> Predictor:
    """The model, asked for the task that answers about a region; said where others are known."""
    asked = predictor.for_region()
    if len(asked.package.heads) < len(predictor.package.heads):
        note(f"a region is asked of the task {asked.package.task_names}; --task names another")
    return asked


def tell_whole_ct(predictions: Iterable[Prediction], names: Names) -> None:
    """How a region is named, once, where a model that answers about one was given whole CT."""
    whole = [
        (each.path, warning)
        for each in predictions
        for warning in each.warnings
        if warning.code == "whole_ct"
    ]
    if whole:
        path, warning = whole[0]
        show_warnings(path, [warning], names)
    if len(whole) > 1:
        note(f"the same of {len(whole) - 1:,} more")


def cropped(
    scans: Iterable[Scan | Failure], crop: Crop, side_mm: float | None
) -> Iterator[Scan | Failure]:
    """The region of each scan, its size told; failures pass through."""
    for scan in scans:
        if isinstance(scan, Failure):
            yield scan
            continue
        yield region_of(scan, crop, side_mm)


def region_of(scan: Scan, crop: Crop, side_mm: float | None) -> Scan:
    """The region of a scan, its size told."""
    part = crop(scan, side_mm)
    depth, rows, columns = part.pixels.shape[:3]
    slices = f" in {depth} slice{'s' * (depth > 1)}"
    note(f"the region is {columns} × {rows} px{slices}")
    return part


def _around_point(text: str) -> Crop:
    in_mm = text.strip().lower().endswith(MM)
    if in_mm:
        values = _numbers("--point", text, (3,), "12.5,-30,88mm", MM)
    else:
        values = _numbers("--point", text, (2, 3), "120,200,34")

    def crop(scan: Scan, side_mm: float | None) -> Scan:
        from medcli.imaging.region import crop_point, pixel_of

        if side_mm is None:
            raise UsageError(
                "the model does not say how large a region it answers about",
                "Give the whole region: --region x0,y0,x1,y1,z0,z1",
            )
        return crop_point(scan, pixel_of(scan, values) if in_mm else values, side_mm)

    return crop


def box_of(text: str) -> Box:
    """The box of `x0,y0,x1,y1` or `x0,y0,x1,y1,z0,z1`.

    Raises
    ------
    UsageError : anything else
    """
    from medcli.imaging.region import Box

    values = _numbers("--region", text, (4, 6), "90,170,150,230,30,38")
    if any(value != int(value) for value in values):
        raise UsageError(f"--region {text}: the corners are whole pixels", "Round them")
    return Box(*map(int, values))


def _crop_box(scan: Scan, box: Box, side_mm: float | None) -> Scan:
    from medcli.imaging.region import crop_box

    return crop_box(scan, box, side_mm)


def _numbers(
    option: str, text: str, counts: tuple[int, ...], example: str, unit: str = ""
) -> tuple[float, ...]:
    """Numbers between commas, as many as one of `counts`, with the unit behind them."""
    try:
        values = tuple(map(float, text.strip().lower().removesuffix(unit).split(",")))
    except ValueError:
        values = ()
    if len(values) not in counts or not all(map(math.isfinite, values)):
        wanted = " or ".join(map(str, counts))
        raise UsageError(
            f"{option} {text}: not {wanted} numbers", f"Write them with commas, as in {example}"
        )
    return values
