"""What is measured, and two ways of doing a thing timed in turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Group = Literal["start", "classify", "embed", "search", "gallery", "read"]
Unit = Literal["s", "ms", "MiB", "scans/s", "frames/s", "rows/s"]
Way = Callable[[], object]

RATES: tuple[Unit, ...] = ("scans/s", "frames/s", "rows/s")


@dataclass(frozen=True, slots=True)
class Measure:
    """A number of this machine, and what stands beside it.

    Attributes
    ----------
    value : the median over the turns, in `unit`
    beside : what `reference` is: a physical limit, or the same work without medcli
    reference : in `unit`; None where there is none on this machine
    ratio : how many times the time or memory of the reference medcli takes, 1 at the limit
    """

    group: Group
    name: str
    value: float
    unit: Unit
    beside: str
    reference: float | None
    ratio: float | None


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured.

    Attributes
    ----------
    scans : files of each kind that are embedded
    files : of each transfer syntax that are read
    vectors : that are searched, of `DIM` values
    rows : that go into a gallery
    queries : that are asked together
    turns : of each pair that is measured, after one that warms up
    """

    scans: int = 32
    files: int = 6
    vectors: int = 100_000
    rows: int = 1024
    queries: int = 32
    turns: int = 3


def seconds_in_turns(ways: Mapping[str, Way], turns: int) -> dict[str, list[float]]:
    """For each way its seconds in each turn, taken one after the other, a first turn unmeasured.

    Whatever else the machine does slows all of them down alike.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(turns + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def compared(
    group: Group,
    name: str,
    unit: Unit,
    ours: Sequence[float],
    beside: str,
    theirs: Sequence[float] | None,
    count: int = 1,
) -> Measure:
    """A measure from the seconds (or MiB) of the same turns; the ratio is that of each turn.

    Parameters
    ----------
    count : what was done in each turn, of which rates are told a second and times each
    """

    def told(values: Sequence[float]) -> float:
        middle = statistics.median(values)
        if unit in RATES:
            return count / middle
        return middle * (1000 if unit == "ms" else 1) / count

    if theirs is None:
        return Measure(group, name, told(ours), unit, beside, None, None)
    ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
    return Measure(group, name, told(ours), unit, beside, told(theirs), ratio)
