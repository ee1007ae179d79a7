"""What neighbours share, counted by hand."""

from __future__ import annotations

import pytest

from medcli.evaluation.intervals import wilson_interval
from medcli.evaluation.shortcuts import Known, shortcuts, third


def scan(scanner: str | None, label: str, patient: str | None = None) -> Known:
    return Known({"scanner": scanner, "label": label}, patient)


GALLERY = [scan("A", "x", "P1"), scan("A", "y", "P2"), scan("B", "x", "P3"), scan(None, "y")]


def test_shares_and_chance_leave_the_own_patient_and_the_unknown_out() -> None:
    query = scan("A", "x", "P1")
    found = shortcuts([query], [[GALLERY[1], GALLERY[2], GALLERY[3]]], GALLERY, ["scanner"])
    row = found["scanner"]
    assert row["share"] == pytest.approx(1 / 2)  # A and B; the third is unknown
    assert row["chance"] == pytest.approx(1 / 2)  # of the scans of P2 and P3
    assert row["lift"] == pytest.approx(0)
    assert row["share_of_wrong"] == 1  # the one hit of another label has the scanner
    assert (row["values"], row["hits"]) == (2, 2)


def test_a_property_of_one_value_tells_nothing() -> None:
    same = [scan("A", "x"), scan("A", "y")]
    assert shortcuts([same[0]], [[same[1]]], same, ["scanner"]) == {}


def test_a_query_of_unknown_value_is_not_counted() -> None:
    assert shortcuts([scan(None, "x")], [GALLERY], GALLERY, ["scanner"]) == {}


def test_thirds() -> None:
    assert [third(v, (1.0, 2.0)) for v in (0.5, 1.5, 2.5, None)] == [
        "small",
        "middle",
        "large",
        None,
    ]


@pytest.mark.parametrize(
    ("count", "total", "bounds"),
    # Reference: statsmodels proportion_confint(method="wilson")
    [(4, 5, (0.3755, 0.9638)), (0, 5, (0.0, 0.4345)), (5, 5, (0.5655, 1.0)), (0, 0, (0, 1))],
)
def test_wilson_intervals(count: int, total: int, bounds: tuple[float, float]) -> None:
    assert wilson_interval(count, total) == pytest.approx(bounds, abs=1e-4)
