"""Order and intervals of a patient's studies are kept; dates are not."""

from __future__ import annotations

from datetime import date

import pytest

from medcli.retrieval.studies import STUDY, STUDY_DATE, days_between, study_marks

KEY = b"k" * 32


def moved(day: str, patient: str = "P1", key: bytes = KEY) -> str:
    return study_marks(key, patient, "1.2.3", day)[STUDY_DATE]


def test_the_days_between_two_studies_stay() -> None:
    first, second = moved("20190228"), moved("20200301")
    assert days_between(first, second) == (date(2020, 3, 1) - date(2019, 2, 28)).days
    assert days_between(second, first) == -days_between(first, second)  # type: ignore[operator]


def test_no_date_stays_and_each_patient_and_gallery_moves_it_otherwise() -> None:
    day = "20200301"
    places = {moved(day, f"P{i}") for i in range(50)}
    assert len(places) > 45
    assert all(each < "2020-03-01" for each in places)
    assert moved(day) != moved(day, key=b"x" * 32)


def test_a_study_is_a_keyed_hash() -> None:
    own = study_marks(KEY, "P1", "1.2.3", None)
    assert own == study_marks(KEY, "P2", "1.2.3", None)
    assert own[STUDY] != study_marks(b"x" * 32, "P1", "1.2.3", None)[STUDY]
    assert "1.2.3" not in own[STUDY]


@pytest.mark.parametrize("day", [None, "", "2020", "20201341", "00000101", "２０２００１０１"])
def test_what_is_no_date_is_not_stored(day: str | None) -> None:
    assert STUDY_DATE not in study_marks(KEY, "P1", None, day)


@pytest.mark.parametrize("patient", [None, "", "  "])
def test_an_unknown_patient_has_no_date(patient: str | None) -> None:
    assert STUDY_DATE not in study_marks(KEY, patient, None, "20200301")
    assert days_between(None, "2020-01-01") is None
