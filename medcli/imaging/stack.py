"""Slices → a stack along their normal: order, spacing, affine, and what is wrong with them.

Pure geometry, no files are read here. The rules, in this order:

1. slices of another series than asked for (or than most belong to) are dropped: mixed_series
2. localizers are dropped where the series has other slices: localizer
3. of slices that differ in size, orientation (by more than 1°), pixel spacing (1 %) or in
   having a position, the largest group stays: mixed_series
4. slices that all lie at one position and differ in time stay as a stack in time: time_points
5. where positions repeat and a tag of `MARKS` tells the slices apart, one part is read, by
   default the first: first_time_point (`medcli.imaging.dicom_groups` parts files before)
6. the rest is sorted by position along the slice normal, or by InstanceNumber where
   there are no positions: no_positions
7. of slices at one position the first by InstanceNumber stays: duplicate_slice
8. the spacing is the median step; longer steps are named as gap (over 1.5 times) or
   uneven_spacing (over 1 % + 0.01 mm off), and nothing is resampled
9. a drift of more than 0.5° against the normal is named (tilt) and kept in the affine
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath

import numpy as np

from medcli.imaging.dicom_marks import MARKS, Mark
from medcli.imaging.header import Header, Plane
from medcli.imaging.time_points import asked_time_point
from medcli.records import Case, ScanWarning

SAME_DIRECTION = math.cos(math.radians(1.0))
SAME_POSITION_MM = 1e-3
GAP = 1.5
TILT_DEGREES = 0.5
STRAYS = 2
"""So few slices beside a larger stack are strays of it, and no stack of their own."""


@dataclass(frozen=True, slots=True)
class Slice:
    """One frame of one file, and where it lies."""

    header: Header = field(repr=False)
    frame: int
    plane: Plane

    def mark(self, mark: Mark) -> str:
        """The value of one of `MARKS`, blank where absent."""
        return self.header.marks[self.frame][MARKS.index(mark)] or ""

    @property
    def name(self) -> str:
        """What a warning calls the slice."""
        file = PurePath(self.header.path).name
        return file if self.header.frames == 1 else f"{file} frame {self.frame + 1}"


@dataclass(frozen=True, slots=True)
class Stack:
    """Slices in array order with the geometry of `medcli.records.Scan`."""

    slices: tuple[Slice, ...]
    spacing_mm: tuple[float | None, float | None, float | None]
    affine: np.ndarray | None
    warnings: tuple[ScanWarning, ...]


@dataclass(frozen=True, slots=True)
class Parts:
    """Slices parted so that positions repeat less; `mark` tells the parts apart, None for one."""

    slices: tuple[tuple[Slice, ...], ...] = field(repr=False)
    mark: Mark | None


def slices_of(headers: Sequence[Header]) -> list[Slice]:
    """Every frame of every file."""
    return [
        Slice(header, frame, plane)
        for header in headers
        for frame, plane in enumerate(header.planes)
    ]


def stack_slices(headers: Sequence[Header], case: Case) -> Stack:
    """Order the frames of `headers`, the files of `case`, along their normal.

    Slice 0 has the smallest projection. The case says which series and which time point of
    its files is meant.

    The normal is the row direction × the column direction, so that array index
    (z, y, x) → LPS is right-handed.

    Raises
    ------
    ScanError : not_found, where there is no such time point
    """
    slices, mixed = _one_series(slices_of(headers), case.series_uid)
    slices, localizers = _without_localizers(slices)
    slices, odd = _largest_group(slices)
    dropped = _warning("mixed_series", "dropped because they do not fit the others", mixed + odd)
    if slices[0].plane.position is None or slices[0].plane.orientation is None:
        asked_time_point(case, 1)
        return _unplaced(slices, (*localizers, *dropped))
    parts = part_repeats(slices)
    asked = asked_time_point(case, len(parts.slices))
    if asked is None and is_cine(parts):
        return _cine(parts, (*localizers, *dropped))
    slices, chosen = _one_part(parts, asked)
    ordered, duplicates = _ordered(slices)
    z, irregular = _spacing(ordered)
    affine, tilt = _affine(ordered, z)
    y, x = ordered[0].plane.spacing or (None, None)
    warnings = (*localizers, *dropped, *chosen, *duplicates, *irregular, *tilt)
    return Stack(tuple(ordered), (z, y, x), affine, warnings)


Warnings = tuple[ScanWarning, ...]


def _warning(code: str, what: str, slices: Sequence[Slice]) -> Warnings:
    """A warning that counts the slices and names the first five; none for no slices."""
    if not slices:
        return ()
    names = ", ".join(each.name for each in slices[:5])
    more = f" and {len(slices) - 5} more" if len(slices) > 5 else ""
    return (ScanWarning(code, f"{len(slices)} slice(s) {what}: {names}{more}"),)


def _partition(
    slices: Sequence[Slice], keep: Callable[[Slice], bool]
) -> tuple[list[Slice], list[Slice]]:
    """The slices to keep, and the others."""
    return [each for each in slices if keep(each)], [each for each in slices if not keep(each)]


def _one_series(slices: Sequence[Slice], series_uid: str | None) -> tuple[list[Slice], list[Slice]]:
    """The slices of the series asked for, else of the most frequent one; and the others."""
    counts = Counter(each.header.series_uid for each in slices)
    wanted = series_uid if series_uid in counts else counts.most_common(1)[0][0]
    return _partition(slices, lambda each: each.header.series_uid == wanted)


def _without_localizers(slices: Sequence[Slice]) -> tuple[list[Slice], Warnings]:
    """The slices that are no localizers; all of them where there is nothing else."""
    kept, localizers = _partition(slices, lambda each: not each.header.is_localizer)
    if not kept:
        return localizers, _warning("localizer", "are localizer images", localizers)
    return kept, _warning("localizer", "dropped as localizers", localizers)


def _largest_group(slices: Sequence[Slice]) -> tuple[list[Slice], list[Slice]]:
    """The largest group of slices that fit each other, and the others."""
    groups: list[list[Slice]] = []
    for each in slices:
        group = next((group for group in groups if _fit(group[0], each)), None)
        if group is None:
            groups.append([each])
        else:
            group.append(each)
    largest = max(groups, key=len)
    chosen = {id(each) for each in largest}
    return _partition(slices, lambda each: id(each) in chosen)


def _fit(a: Slice, b: Slice) -> bool:
    """Whether two slices may stand in one stack."""
    same_size = (a.header.rows, a.header.columns, a.header.samples) == (
        b.header.rows,
        b.header.columns,
        b.header.samples,
    )
    placed = (a.plane.position is None) == (b.plane.position is None)
    return same_size and placed and same_orientation(a.plane, b.plane) and _same_spacing(a, b)


def same_orientation(a: Plane, b: Plane) -> bool:
    """Whether rows and columns of two planes run alike, to 1°; unknown fits unknown only."""
    if a.orientation is None or b.orientation is None:
        return a.orientation is b.orientation
    return all(
        np.dot(a.orientation[part], b.orientation[part]) > SAME_DIRECTION
        for part in (slice(0, 3), slice(3, 6))
    )


def _same_spacing(a: Slice, b: Slice) -> bool:
    if a.plane.spacing is None or b.plane.spacing is None:
        return a.plane.spacing is b.plane.spacing
    return bool(np.allclose(a.plane.spacing, b.plane.spacing, rtol=0.01, atol=0))


def _unplaced(slices: list[Slice], warnings: Warnings) -> Stack:
    """A stack without positions: frames as stored, files by InstanceNumber."""
    ordered = sorted(slices, key=lambda each: each.header.instance_number)  # stable
    several = len({each.header.path for each in ordered}) > 1
    missing = "ordered by InstanceNumber, they carry no positions"
    y, x = ordered[0].plane.spacing or (None, None)
    step = ordered[0].header.slice_step if len(ordered) > 1 else None
    noticed = _warning("no_positions", missing, ordered) if several else ()
    return Stack(tuple(ordered), (step, y, x), None, (*warnings, *noticed))


def _directions(plane: Plane) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit vectors in LPS along a row, along a column and along the normal."""
    row, column = np.array(plane.orientation, dtype=float).reshape(2, 3)
    normal = np.cross(row, column)
    return row, column, normal / np.linalg.norm(normal)


def _projections(slices: Sequence[Slice]) -> np.ndarray:
    """(S,) positions along the first slice's normal, mm."""
    positions = np.array([each.plane.position for each in slices], dtype=float)
    along: np.ndarray = positions @ _directions(slices[0].plane)[2]
    return along


def complement(slices: Sequence[Slice]) -> bool:
    """Whether slices from several places make one stack: alike, on one line, no position twice.

    Their frame of reference is one; or, of more than `STRAYS`, each has its own, which then
    tells slices apart and not the spaces they lie in.
    """
    first = slices[0]
    if first.plane.position is None or first.plane.orientation is None:
        return False
    frames = {each.header.frame_of_reference for each in slices}
    own = len(frames) == len(slices) > STRAYS and None not in frames
    alike = (_fit(first, each) and not each.header.is_localizer for each in slices)
    return (
        (len(frames) == 1 or own)
        and all(alike)
        and _most_at_one_position(slices) == 1
        and _on_a_line(slices)
    )


def _on_a_line(slices: Sequence[Slice]) -> bool:
    """Whether no slice lies over half a pixel beside the line from the first to the last."""
    along = _projections(slices)
    positions = np.array([each.plane.position for each in slices], dtype=float)
    low, high = positions[along.argmin()], positions[along.argmax()]
    share = (along - along.min()) / np.ptp(along)
    beside = positions - (low + share[:, np.newaxis] * (high - low))
    pixel = min(slices[0].plane.spacing or (1.0, 1.0))
    return float(np.linalg.norm(beside, axis=1).max()) <= pixel / 2


def part_repeats(slices: Sequence[Slice], marks: Sequence[Mark] = MARKS) -> Parts:
    """Part placed slices of one orientation whose positions repeat, by what tells them apart.

    A mark parts them where it has no more values than a position has slices at most (else
    it tells slices apart, such as a time of acquisition), where each part repeats less, and
    where no part is of `STRAYS` only. Parts stand in the order of the mark's values. Slices
    whose positions do not repeat are parted where they are uneven, and each part is even
    and lies among the others: two acquisitions at slightly other positions.
    """
    most = _most_at_one_position(slices)
    uneven = most == 1 and not _is_even(slices)
    for number, mark in enumerate(marks if most > 1 or uneven else ()):
        groups: dict[str, list[Slice]] = {}
        for each in slices:
            groups.setdefault(each.mark(mark), []).append(each)
        sizes = [len(group) for group in groups.values()]
        if len(groups) < 2 or not (min(sizes) > STRAYS or min(sizes) == max(sizes)):
            continue
        if uneven:
            parted = _interleave(list(groups.values()))
        else:
            repeats = [_most_at_one_position(group) for group in groups.values()]
            parted = len(groups) <= most and max(repeats) < most
        if parted:
            ordered = [groups[value] for value in sorted(groups, key=_by_number)]
            finer = [part_repeats(group, marks[number + 1 :]).slices for group in ordered]
            return Parts(tuple(part for parts in finer for part in parts), mark)
    return Parts((tuple(slices),), None)


def _interleave(groups: Sequence[Sequence[Slice]]) -> bool:
    """Whether each group is even, of more than `STRAYS`, and each begins within another."""
    if any(len(group) <= STRAYS or not _is_even(group) for group in groups):
        return False
    origin = groups[0][:1]  # one normal for all
    along = [_projections([*origin, *group])[1:] for group in groups]
    ends = sorted((float(each.min()), float(each.max())) for each in along)
    return all(second[0] < first[1] for first, second in itertools.pairwise(ends))


def _is_even(slices: Sequence[Slice]) -> bool:
    """Whether the steps between positions are alike."""
    steps = np.diff(np.sort(_projections(slices)))
    return len(steps) == 0 or not _is_off(steps, float(np.median(steps))).any()


def _is_off(steps: np.ndarray, step: float) -> np.ndarray:
    """Which steps are not `step`, to 1 % and a hundredth of a millimetre."""
    off: np.ndarray = np.abs(steps - step) > 0.01 * step + 0.01
    return off


def is_cine(parts: Parts) -> bool:
    """Whether the parts are moments in time at one position."""
    if parts.mark is None or not parts.mark.is_time:
        return False
    return (
        all(len(part) == 1 for part in parts.slices)
        and _positions([part[0] for part in parts.slices]) == 1
    )


def _by_number(value: str) -> tuple[float, str]:
    """A sort key: numbers by their size, then what is none."""
    try:
        return float(value), value
    except ValueError:
        return math.inf, value


def _position_numbers(slices: Sequence[Slice]) -> np.ndarray:
    """(S,) which position along the normal each slice has, counting from 0."""
    along = _projections(slices)
    order = np.argsort(along, kind="stable")
    numbers = np.empty(len(along), int)
    numbers[order] = np.cumsum(np.diff(along[order], prepend=along[order[0]]) > SAME_POSITION_MM)
    return numbers


def _most_at_one_position(slices: Sequence[Slice]) -> int:
    return int(np.bincount(_position_numbers(slices)).max())


def _positions(slices: Sequence[Slice]) -> int:
    return int(_position_numbers(slices).max()) + 1


def _one_part(parts: Parts, time_point: int | None) -> tuple[list[Slice], Warnings]:
    """The slices of the part asked for, else of the first, with a warning."""
    count = len(parts.slices)
    if parts.mark is None or time_point is not None:
        return list(parts.slices[time_point or 0]), ()
    message = f"{count} slices at a position, told apart by {parts.mark.keyword}; the first of each"
    return list(parts.slices[0]), (ScanWarning("first_time_point", f"{message} was read"),)


def _cine(parts: Parts, warnings: Warnings) -> Stack:
    """A stack in time: slices of one position, in the order of the mark."""
    slices = tuple(part[0] for part in parts.slices)
    affine, _ = _affine(slices[:1], None)
    y, x = slices[0].plane.spacing or (None, None)
    message = f"{len(slices)} moments at one position; they stand in the order of time"
    return Stack(slices, (None, y, x), affine, (*warnings, ScanWarning("time_points", message)))


def _ordered(slices: Sequence[Slice]) -> tuple[list[Slice], Warnings]:
    """Slices sorted along the normal, one at each position."""
    first = sorted(
        slices, key=lambda each: (each.header.instance_number, each.header.path, each.frame)
    )
    along = _projections(first)
    order: list[int] = np.argsort(along, kind="stable").tolist()
    new_position = np.diff(along[order], prepend=-np.inf) > SAME_POSITION_MM
    kept: dict[int, int] = {}  # position → index of its earliest slice
    for position, index in zip(np.cumsum(new_position).tolist(), order, strict=True):
        kept[position] = min(index, kept.get(position, index))
    chosen = list(kept.values())
    repeated = [first[index] for index in order if index not in set(chosen)]
    warnings = _warning("duplicate_slice", "dropped, their position is taken", repeated)
    return [first[index] for index in chosen], warnings


def _spacing(slices: Sequence[Slice]) -> tuple[float | None, Warnings]:
    """The median step along the normal, mm, and what is wrong with the steps."""
    if len(slices) < 2:
        return None, ()
    steps = np.diff(_projections(slices))
    step = float(np.median(steps))
    gap = steps > GAP * step
    uneven = _is_off(steps, step) & ~gap
    after = [slices[index + 1] for index in np.flatnonzero(gap).tolist()]
    off = [slices[index + 1] for index in np.flatnonzero(uneven).tolist()]
    return step, (
        *_warning("gap", f"come after a gap (spacing {step:.3g} mm)", after),
        *_warning("uneven_spacing", f"are not {step:.3g} mm from the one before", off),
    )


def _affine(slices: Sequence[Slice], step: float | None) -> tuple[np.ndarray | None, Warnings]:
    """(4, 4) index (z, y, x) → LPS mm; a lone slice gets a step of 1 mm."""
    plane = slices[0].plane
    row, column, normal = _directions(plane)
    first, last = (np.array(each.plane.position) for each in (slices[0], slices[-1]))
    length = float((last - first) @ normal)
    drift = (last - first - length * normal) / length if len(slices) > 1 else np.zeros(3)
    angle = math.degrees(math.atan(float(np.linalg.norm(drift))))
    tilt: Warnings = ()
    if angle > TILT_DEGREES:
        tilt = (ScanWarning("tilt", f"the slices are sheared by {angle:.1f}° to their normal"),)
    if plane.spacing is None or not plane.in_patient:
        return None, tilt
    affine = np.eye(4)
    affine[:3, 0] = (normal + drift) * (step or 1.0)
    affine[:3, 1] = column * plane.spacing[0]
    affine[:3, 2] = row * plane.spacing[1]
    affine[:3, 3] = first
    return affine, tilt
