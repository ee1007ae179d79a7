"""Conditions against the same question asked in Python."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medcli.errors import UsageError
from medcli.records import GalleryEntry
from medcli.retrieval.gallery import Gallery
from medcli.retrieval.where import COLUMNS, matching, parse_where

Entry = Callable[..., GalleryEntry]

ROWS = {
    1: {"label": "malignant", "modality": "CT", "metadata": {"Manufacturer": "SIEMENS"}},
    2: {"label": "benign", "modality": "CT", "metadata": {"KVP": "120", "site": "north wing"}},
    3: {"label": "not sure", "modality": "CR", "metadata": {"KVP": "80.5"}},
    4: {"label": None, "modality": None, "metadata": {"site": "o'hare", "KVP": "unknown"}},
}


@pytest.fixture
def filled(gallery: Gallery, make_entry: Entry) -> Gallery:
    gallery.add(make_entry(str(i), seed=i, n_slices=i, **row) for i, row in ROWS.items())
    return gallery


@pytest.mark.parametrize(
    ("condition", "ids"),
    [
        ("label = malignant", {1}),
        ("LABEL == MALIGNANT", {1}),
        ("label != malignant", {2, 3}),
        ("not label = malignant", {2, 3}),
        ("label = 'not sure'", {3}),
        ('label = "not sure"', {3}),
        ("site = 'o''hare'", {4}),
        ("label in (benign, 'not sure')", {2, 3}),
        ("label in (BENIGN)", {2}),
        ("label not in (benign)", {1, 3}),
        ("label like mal%", {1}),
        ("manufacturer like %iem_ns", {1}),
        ("label not like '%sure'", {1, 2}),
        ("label is null", {4}),
        ("modality is not null", {1, 2, 3}),
        ("modality = CT and label = benign", {2}),
        ("label = benign or label = malignant and modality = CR", {2}),
        ("(label = benign or label = malignant) and modality = CT", {1, 2}),
        ("not (modality = CT or modality = CR)", set()),
        ("slices >= 3", {3, 4}),
        ("slices < 2 or slices > 3", {1, 4}),
        ("kvp > 100", {2}),
        ("kvp <= 80.5", {3}),
        ("kvp is null", {1, 4}),
        ("id in (2, 4) and slices <> 4", {2}),
        ("site='north wing'", {2}),
        ("label = ''' or 1=1 --'", set()),
    ],
)
def test_a_condition_chooses_the_rows_that_meet_it(
    filled: Gallery, condition: str, ids: set[int]
) -> None:
    with filled.snapshot():
        members = matching(filled.catalogue, parse_where(condition))
        assert members.held(range(-1, 99)) == ids
        assert len(members) == len(ids)


@pytest.mark.parametrize(
    ("condition", "position", "what"),
    [
        ("", 1, "a column is expected"),
        ("lable = x", 1, "did you mean label?"),
        ("label = ", 9, "a value is expected"),
        ("label malignant", 7, "'in', 'like' or 'is null' is expected"),
        ("label = a b", 11, "'and', 'or' or the end"),
        ("(label = a", 11, "')' is expected"),
        ("label in a", 10, "'(' is expected"),
        ("label in (a,)", 13, "a value is expected"),
        ("slices = many", 10, "a number is expected"),
        ("label = null", 9, "'is null'"),
        ("label = 'open", 9, "not closed"),
        ("label = a and or", 15, "a column is expected"),
        ("label; drop table scans", 1, "there is no column"),
        ("label not = a", 11, "'in' or 'like' is expected"),
        ("label ! a", 7, "not understood"),
    ],
)
def test_an_error_names_the_position_and_the_columns(
    condition: str, position: int, what: str
) -> None:
    with pytest.raises(UsageError) as caught:
        parse_where(condition)
    assert f"position {position} " in caught.value.message
    assert what in caught.value.message
    assert all(column in caught.value.hint for column in COLUMNS)


def test_a_condition_of_many_brackets_is_refused() -> None:
    with pytest.raises(UsageError, match="too many brackets"):
        parse_where("(" * 500 + "label = a" + ")" * 500)
    with pytest.raises(UsageError, match="longer"):
        parse_where("label = " + "a" * 5000)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40))
def test_any_value_is_a_value_and_never_sql(text: str) -> None:
    quoted = text.replace("'", "''")
    found = parse_where(f"label = '{quoted}'")
    assert found.values == (text,)
    assert found.sql == parse_where("label = x").sql


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="label=<>(),'\" and or not in 1;-", max_size=30))
def test_nothing_but_a_condition_or_a_usage_error_comes_of_any_text(text: str) -> None:
    try:
        found = parse_where(text)
    except UsageError:
        return
    assert found.sql.count("?") == len(found.values)
