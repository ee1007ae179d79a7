"""What may pass into training: nothing that stands in two parts that were given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from medcli.data.audit import Copies
from medcli.data.gate import Gate, pass_gate
from medcli.data.likeness import Pairs
from medcli.data.splits import split_by_patient
from medcli.errors import LeakageError
from medcli.records import Case

Make = Callable[..., list[Case]]


def copies(
    identical: Sequence[tuple[int, ...]] = (), near: Sequence[tuple[int, int]] = ()
) -> Copies:
    places = np.array(near, np.int64).reshape(len(near), 2)
    return Copies(tuple(identical), Pairs(places, np.ones(len(near), np.float32)))


def enter(cases: list[Case], found: Copies, *, allow_overlap: bool = False) -> Gate:
    command = "medcli data split set.csv -o clean.csv"
    return pass_gate(cases, found, clean=command, allow_overlap=allow_overlap)


def test_sound_parts_pass_without_a_word(make_cases: Make) -> None:
    cases = make_cases([("p", "a", "train"), ("q", "b", "test"), ("p", "a", "train")])
    assert enter(cases, copies([(0, 2)])) == Gate(tuple(cases), ((0, 2),), ())


def test_a_patient_in_two_parts_is_refused_with_the_way_out(make_cases: Make) -> None:
    cases = make_cases([("p", "a", "train"), ("q", "a", "test"), ("p", "a", "test")])
    with pytest.raises(LeakageError) as refusal:
        enter(cases, copies())
    assert "1 patient in more than one part: 0.png (train) and 2.png (test)" in str(refusal.value)
    assert "`medcli data split set.csv -o clean.csv`" in refusal.value.hint
    assert "--allow-overlap" in refusal.value.hint


def test_copies_in_two_parts_are_refused_and_the_first_are_named(make_cases: Make) -> None:
    cases = make_cases([(f"p{n}", "a", "train" if n < 5 else "val") for n in range(10)])
    pairs = [(n, n + 5) for n in range(5)]
    with pytest.raises(LeakageError) as refusal:
        enter(cases, copies(pairs[:4], pairs[4:]))
    message = refusal.value.message
    assert message.startswith("8 identical pictures and 2 near-identical pictures in more than one")
    assert "2.png (train) and 7.png (val); and 2 more" in message
    assert "3.png" not in message


def test_overlap_that_is_allowed_is_told_and_the_parts_hold(make_cases: Make) -> None:
    cases = make_cases(
        [("p", "a", "train"), ("p", "a", "val"), ("q", "b", "train"), ("r", "b", "val")]
    )
    gate = enter(cases, copies(near=[(2, 3)]), allow_overlap=True)
    assert "the numbers flatter" in gate.warnings[0]
    split = split_by_patient(gate.cases, links=gate.links, allow_overlap=True)
    assert [case.scan_id for case in split.train] == ["s0", "s2"]
    assert [case.scan_id for case in split.val] == ["s1", "s3"]


def test_where_no_part_is_given_copies_stay_together(make_cases: Make) -> None:
    cases = make_cases([(None, "a" if n % 2 else "b") for n in range(60)])
    twins = [(n, n + 30) for n in range(0, 30, 3)]
    gate = enter(cases, copies(near=twins))
    assert gate.warnings == (
        "20 scans are copies of each other; each set of copies is kept in one part",
    )
    for seed in range(5):
        split = split_by_patient(gate.cases, seed=seed, links=gate.links)
        part_of = {
            case.scan_id: part for part in ("train", "val", "test") for case in getattr(split, part)
        }
        assert all(part_of[f"s{one}"] == part_of[f"s{other}"] for one, other in twins)


def test_copies_under_two_labels_are_told(make_cases: Make) -> None:
    cases = make_cases([(None, "a"), (None, "b"), (None, "a")])
    assert (
        "2 copies of one picture stand under two labels"
        in enter(cases, copies([(0, 1)])).warnings[0]
    )


def test_an_archive_keeps_its_later_parts_whole(make_cases: Make) -> None:
    parts = ["train", "train", "val", "test", "train"]
    cases = [
        replace(case, kind="array") for case in make_cases([(None, "a", part) for part in parts])
    ]
    gate = enter(cases, copies([(0, 2), (1, 4)], near=[(2, 3)]))
    assert [case.scan_id for case in gate.cases] == ["s1", "s3", "s4"]
    assert gate.links == ((0, 2),)
    assert gate.warnings == (
        "left out: 1 of train and 1 of val, copies of pictures in a later part of the archive",
    )
