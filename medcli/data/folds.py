"""Folds for cross-validation that never share a patient."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from medcli.data.splits import Split, assign_by_patient, split_by_patient
from medcli.errors import ManifestError
from medcli.records import Case


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


def fold_split(
    cases: Sequence[Case],
    fold: int,
    folds: int,
    *,
    val_fraction: float = 0.15,
    seed: int = 0,
    links: Iterable[tuple[int, int]] = (),
) -> Split:
    """The parts of one fold, counted from 0: it is the test part, validation is of the rest.

    Parameters
    ----------
    links : pairs of positions in `cases` that stay together, as copies of one picture do

    Raises
    ------
    ManifestError : a class has fewer patients than there are folds
    """
    together = tuple(links)
    shares = {str(number): 1 / folds for number in range(folds)}
    chosen = assign_by_patient(cases, shares, seed=seed, links=together)
    marked = [
        replace(case, split="test" if own == str(fold) else None)
        for case, own in zip(cases, chosen, strict=True)
    ]
    return split_by_patient(marked, val_fraction=val_fraction, seed=seed, links=together)
