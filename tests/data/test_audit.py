from __future__ import annotations

from collections.abc import Callable

from medcli.data.audit import identical_pixels, shared_patients
from medcli.records import Case

Make = Callable[..., list[Case]]


def test_shared_patients_leave_unknown_ones_out(make_cases: Make) -> None:
    first = make_cases([("p", "a"), ("q", "a"), (None, "a")])
    second = make_cases([("q", "a"), ("r", "a"), (None, "a")])
    assert shared_patients(first, second) == {"q"}


def test_identical_pixels_count_only_across_parts(make_cases: Make) -> None:
    a, b, c, d = make_cases([("p", "a"), ("q", "a"), ("r", "a"), ("s", "a")])
    hashes = {"s0": "same", "s1": "twin", "s2": "twin", "s3": "same"}
    parts = {"train": [a, b, c], "test": [d]}
    assert identical_pixels(parts, hashes) == [(a, d)]
    assert identical_pixels(parts, {}) == []
