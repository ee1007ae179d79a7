from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medcli.data.splits import (
    PARTS,
    Split,
    assign_by_patient,
    split_by_patient,
    split_table,
)
from medcli.errors import LeakageError, ManifestError
from medcli.records import Case

Make = Callable[..., list[Case]]


def parts(split: Split) -> dict[str, tuple[Case, ...]]:
    return {"train": split.train, "val": split.val, "test": split.test}


def patients(cases: tuple[Case, ...]) -> set[str | None]:
    return {case.patient_id for case in cases}


def many(make: Make, count: int = 100) -> list[Case]:
    """Patients with one to three scans, a third of them positive."""
    return make(
        [
            (f"p{number}", "bad" if number % 3 == 0 else "good")
            for number in range(count)
            for _ in range(1 + number % 3 % 2 + number % 2)
        ]
    )


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 25), st.sampled_from("abc")), min_size=1, max_size=80),
    st.integers(0, 5),
)
def test_no_patient_is_shared_and_no_scan_is_lost(rows: list[tuple[int, str]], seed: int) -> None:
    cases = [
        Case(f"{i}", (f"{i}",), "picture", f"{i}", label, f"p{patient}")
        for i, (patient, label) in enumerate(rows)
    ]
    try:
        split = split_by_patient(cases, seed=seed)
    except ManifestError:
        return  # a class with too few patients
    everything = [case for part in parts(split).values() for case in part]
    assert sorted(case.scan_id for case in everything) == sorted(case.scan_id for case in cases)
    assert not patients(split.train) & patients(split.val)
    assert not patients(split.train) & patients(split.test)
    assert not patients(split.val) & patients(split.test)
    for part in parts(split).values():
        assert {case.label for case in part} == {case.label for case in cases}


def test_parts_have_the_asked_size_and_alike_classes(make_cases: Make) -> None:
    cases = many(make_cases)
    split = split_by_patient(cases, val_fraction=0.2, test_fraction=0.1, seed=3)
    share = Counter(case.label for case in cases)["bad"] / len(cases)
    for part, fraction in (("train", 0.7), ("val", 0.2), ("test", 0.1)):
        members = parts(split)[part]
        assert len(members) == pytest.approx(fraction * len(cases), abs=3)
        found = sum(case.label == "bad" for case in members) / len(members)
        assert found == pytest.approx(share, abs=0.08)


def test_the_split_depends_on_the_seed_and_not_on_the_order(make_cases: Make) -> None:
    cases = many(make_cases)
    shuffled = random.Random(1).sample(cases, len(cases))
    assert split_by_patient(cases, seed=7) == split_by_patient(shuffled, seed=7)
    assert split_by_patient(cases, seed=7) != split_by_patient(cases, seed=8)


def test_file_names_that_are_no_utf8_are_split_as_others(make_cases: Make) -> None:
    cases = [replace(case, scan_id=f"M\udcfcller {case.scan_id}") for case in many(make_cases)]
    nameless = [replace(case, patient_id=None) for case in cases]
    assert sum(map(len, parts(split_by_patient(nameless, seed=1)).values())) == len(cases)


def test_unknown_patients_are_groups_of_their_own_with_a_warning(make_cases: Make) -> None:
    cases = make_cases([(None, "ab"[i % 2]) for i in range(20)])
    split = split_by_patient(cases)
    assert sum(len(part) for part in parts(split).values()) == 20
    assert "no scan names a patient" in split.warnings[0]
    mixed = make_cases([("p" if i < 2 else None, "ab"[i % 2]) for i in range(20)])
    assert "18 scans of 20" in split_by_patient(mixed).warnings[0]


def test_a_test_fraction_of_zero_makes_no_test_part(make_cases: Make) -> None:
    assert split_by_patient(many(make_cases), test_fraction=0).test == ()


def test_a_given_test_part_holds_and_validation_is_carved(make_cases: Make) -> None:
    rows = [(f"p{i}", "ab"[i % 2], "test" if i < 10 else "train") for i in range(40)]
    cases = make_cases(rows)
    split = split_by_patient(cases, val_fraction=0.2)
    assert patients(split.test) == {f"p{i}" for i in range(10)}
    assert len(split.val) == 6
    assert len(split.train) == 24


def test_with_train_and_validation_given_no_test_is_carved(make_cases: Make) -> None:
    cases = make_cases([(None, "ab"[i % 2], "val" if i < 6 else "train") for i in range(20)])
    split = split_by_patient(cases)
    assert (len(split.train), len(split.val), len(split.test)) == (14, 6, 0)


def test_a_set_that_is_all_training_is_split_like_any_other(make_cases: Make) -> None:
    cases = make_cases([(f"p{i}", "ab"[i % 2], "train") for i in range(40)])
    split = split_by_patient(cases)
    assert split.val
    assert split.test


def test_scans_without_a_split_follow_their_patient(make_cases: Make) -> None:
    rows = [(f"p{i}", "ab"[i % 2], "test" if i < 4 else None) for i in range(20)]
    cases = make_cases([*rows, ("p0", "a", None)])
    split = split_by_patient(cases)
    assert sum(case.patient_id == "p0" for case in split.test) == 2


def test_a_patient_in_two_given_splits_is_refused(make_cases: Make) -> None:
    cases = make_cases([("p", "a", "train"), ("p", "a", "test"), ("q", "b", "train")])
    with pytest.raises(LeakageError, match="1 patient in more than one given split") as caught:
        split_by_patient(cases)
    assert caught.value.exit_status == 2


def test_too_few_patients_are_named_with_what_is_needed(make_cases: Make) -> None:
    rows = [(f"p{i}", "good") for i in range(10)] + [("x", "bad"), ("x", "bad"), ("y", "bad")]
    with pytest.raises(ManifestError) as caught:
        split_by_patient(make_cases(rows))
    assert "class 'bad' has 2 patients" in caught.value.message
    assert "at least 3 patients" in caught.value.hint
    assert split_by_patient(make_cases(rows), test_fraction=0).val


def test_a_class_missing_in_a_given_part_is_refused(make_cases: Make) -> None:
    cases = make_cases([("p", "a", "train"), ("q", "b", "train"), ("r", "a", "val")])
    with pytest.raises(ManifestError, match="val split has no scan of class 'b'"):
        split_by_patient(cases)


@pytest.mark.parametrize("others", [["val", "test"], ["test", "test"]])
def test_data_that_mark_nothing_for_training_are_refused(
    make_cases: Make, others: list[str]
) -> None:
    rows = [(f"p{i}", "ab"[i // 2], others[i % 2]) for i in range(4)]
    with pytest.raises(ManifestError, match="the train split is empty") as caught:
        split_by_patient(make_cases(rows))
    assert "drop the column 'split'" in caught.value.hint


def test_the_table_counts_patients_scans_and_classes(make_cases: Make) -> None:
    cases = make_cases([("p", "a"), ("p", "b"), ("q", "a"), (None, "a"), (None, "b")])
    rows = split_table(Split(tuple(cases), (), ()))
    assert [row.part for row in rows] == list(PARTS)
    assert (rows[0].patients, rows[0].scans, rows[0].per_class) == (4, 5, {"a": 3, "b": 2})
    assert (rows[1].patients, rows[1].per_class) == (0, {"a": 0, "b": 0})


def test_assigned_parts_are_those_of_a_split(make_cases: Make) -> None:
    cases = make_cases([(f"p{n // 3}", "ab"[n % 2]) for n in range(90)])
    for seed in range(3):
        split = split_by_patient(cases, seed=seed)
        shares = {"train": 1 - 0.15 - 0.15, "val": 0.15, "test": 0.15}
        parts = assign_by_patient(cases, shares, seed=seed)
        for part in shares:
            wanted = {case.scan_id for case in getattr(split, part)}
            found = {c.scan_id for c, each in zip(cases, parts, strict=True) if each == part}
            assert found == wanted


def test_linked_scans_of_two_patients_share_a_part_whatever_the_order(make_cases: Make) -> None:
    cases = make_cases([(f"p{n}", "ab"[n % 2]) for n in range(40)])
    links = [(0, 8), (8, 16), (1, 9)]
    split = split_by_patient(cases, links=links)
    parts = {case.scan_id: part for part in PARTS for case in getattr(split, part)}
    assert parts["s0"] == parts["s8"] == parts["s16"]
    assert parts["s1"] == parts["s9"]
    backwards = [(39 - one, 39 - other) for one, other in links]
    assert split_by_patient(cases[::-1], links=backwards) == split
