"""Folds never share a patient and spread the classes."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from medcli.data.folds import check_no_parts, fold_split
from medcli.errors import ManifestError
from medcli.records import Case


def make_cases(patients: int, each: int = 3, *, known: bool = True) -> list[Case]:
    """Scans of patients of whom every third is sick."""
    return [
        Case(
            path=f"{patient}-{scan}.png",
            files=(),
            kind="picture",
            scan_id=f"{patient}-{scan}",
            label="sick" if patient % 3 == 0 else "well",
            patient_id=f"p{patient}" if known else None,
        )
        for patient in range(patients)
        for scan in range(each)
    ]


def patient_folds(cases: list[Case], folds: int, seed: int = 0) -> list[int]:
    """The fold in whose test part each case stands."""
    parts = [fold_split(cases, fold, folds, seed=seed).test for fold in range(folds)]
    fold_of = {case.scan_id: fold for fold, part in enumerate(parts) for case in part}
    return [fold_of[case.scan_id] for case in cases]


@pytest.mark.parametrize("folds", [2, 3, 5])
def test_no_patient_stands_in_two_folds_and_every_scan_in_one(folds: int) -> None:
    cases = make_cases(30)
    found = patient_folds(cases, folds)
    by_patient = {(case.patient_id, fold) for case, fold in zip(cases, found, strict=True)}
    assert len(by_patient) == 30
    assert set(found) == set(range(folds))


def test_classes_are_spread_alike() -> None:
    cases = make_cases(60)
    found = patient_folds(cases, 5)
    counts = Counter((case.label, fold) for case, fold in zip(cases, found, strict=True))
    assert {counts["sick", fold] for fold in range(5)} == {12}
    assert {counts["well", fold] for fold in range(5)} == {24}


def test_copies_stay_in_one_fold() -> None:
    cases = make_cases(30)
    links = [(0, 45), (10, 80)]
    for fold in range(3):
        inside = {case.scan_id for case in fold_split(cases, fold, 3, links=links).test}
        for one, other in links:
            assert (cases[one].scan_id in inside) == (cases[other].scan_id in inside)


def test_the_seed_decides_and_the_order_does_not() -> None:
    cases = make_cases(30)
    found = dict(zip([c.scan_id for c in cases], patient_folds(cases, 3), strict=True))
    order = np.random.default_rng(0).permutation(len(cases))
    mixed = [cases[place] for place in order]
    assert dict(zip([c.scan_id for c in mixed], patient_folds(mixed, 3), strict=True)) == found
    assert patient_folds(cases, 3, seed=1) != patient_folds(cases, 3)


def test_unknown_patients_are_groups_of_their_own() -> None:
    cases = make_cases(12, each=2, known=False)
    found = patient_folds(cases, 3)
    pairs = {found[place : place + 2][0] == found[place + 1] for place in range(0, 24, 2)}
    assert False in pairs  # two scans may part


def test_each_fold_is_the_test_part_once() -> None:
    cases = make_cases(30)
    tested: list[str] = []
    for fold in range(3):
        split = fold_split(cases, fold, 3)
        parts = [
            {case.patient_id for case in part} for part in (split.train, split.val, split.test)
        ]
        assert not parts[0] & parts[1] | parts[0] & parts[2] | parts[1] & parts[2]
        assert sum(map(len, (split.train, split.val, split.test))) == len(cases)
        tested += [case.scan_id for case in split.test]
    assert sorted(tested) == sorted(case.scan_id for case in cases)


def test_a_class_with_too_few_patients_is_named() -> None:
    with pytest.raises(ManifestError, match="'sick' has 2 patients"):
        patient_folds(make_cases(6), 5)


def test_given_parts_are_refused() -> None:
    case = make_cases(1)[0]
    check_no_parts([case])
    with pytest.raises(ManifestError, match="--folds makes its own parts"):
        check_no_parts([case, Case("a", (), "picture", "a", split="test")])
