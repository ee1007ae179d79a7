"""Folds for cross-validation that never share a patient."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from medcli.data.splits import Split, split_by_patient
from medcli.errors import ManifestError
from medcli.records import Case

_SHUFFLES = 20  # tried until every fold holds every class


def check_no_parts(cases: Sequence[Case]) -> None:
    """Raise where the data name their own parts: a given test part is not to be trained on.

    Raises
    ------
    ManifestError : a case has a split
    """
    named = sum(case.split is not None for case in cases)
    if named:
        raise ManifestError(
            f"{named} of {len(cases)} scans name their part, and --folds makes its own parts",
            "Leave --folds out to keep the given parts, or drop the column 'split'",
        )


def patient_folds(cases: Sequence[Case], folds: int, seed: int = 0) -> list[int]:
    """The fold of each case, 0 … folds - 1: patients whole, classes spread alike.

    Scans of unknown patients are groups of their own. The result depends on the seed, not
    on the order of `cases`.

    Raises
    ------
    ManifestError : a class has too few patients to stand in every fold
    """
    from sklearn.model_selection import StratifiedGroupKFold

    order = sorted(range(len(cases)), key=lambda place: (cases[place].scan_id, cases[place].path))
    labels = np.array([str(cases[place].label) for place in order])
    groups = np.array([_group(cases[place]) for place in order])
    _check_patients(labels, groups, folds)
    for shuffle in range(_SHUFFLES):
        splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed + shuffle)
        found = np.empty(len(cases), dtype=int)
        for fold, (_, test) in enumerate(splitter.split(labels, labels, groups)):
            found[test] = fold
        if all(set(labels[found == fold]) == set(labels) for fold in range(folds)):
            by_place = dict(zip(order, found.tolist(), strict=True))
            return [by_place[place] for place in range(len(cases))]
    raise ManifestError(
        f"no way was found to put every class into each of {folds} folds by patient",
        "Give fewer --folds, or add patients",
    )


def fold_split(
    cases: Sequence[Case], fold: int, folds: int, *, val_fraction: float = 0.15, seed: int = 0
) -> Split:
    """The parts of one fold, counted from 0: it is the test part, validation is of the rest."""
    chosen = patient_folds(cases, folds, seed)
    marked = [
        replace(case, split="test" if own == fold else None)
        for case, own in zip(cases, chosen, strict=True)
    ]
    return split_by_patient(marked, val_fraction=val_fraction, seed=seed)


def _group(case: Case) -> str:
    """The patient; a scan of an unknown one is a group of its own."""
    if case.patient_id is None:
        return f"scan:{case.scan_id}:{case.path}"
    return f"patient:{case.patient_id}"


def _check_patients(labels: np.ndarray, groups: np.ndarray, folds: int) -> None:
    """Raise where a class has fewer patients than folds, or too few beside a fold."""
    patients = Counter(
        label for label, _ in set(zip(labels.tolist(), groups.tolist(), strict=True))
    )
    for label, count in sorted(patients.items()):
        needed = max(folds, 3)  # of two folds one must hold training and validation
        if count < needed:
            raise ManifestError(
                f"class {label!r} has {count} patient{'' if count == 1 else 's'}, "
                f"too few for {folds} folds",
                f"Each class needs {needed} patients; give fewer --folds, add scans, "
                "or leave the class out with --classes",
            )
