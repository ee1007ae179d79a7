"""The gate before training: what leaks from one part of a split into another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from medcli.data.audit import Copies, Group, alike, torn
from medcli.data.splits import PARTS
from medcli.errors import LeakageError
from medcli.records import Case

NAMED = 3  # pairs that an error names


@dataclass(frozen=True, slots=True)
class Gate:
    """What may go on to the split.

    Attributes
    ----------
    cases : all, or those that are left of an archive
    links : pairs of positions in `cases` that belong into one part
    warnings : what was noticed and done about it
    """

    cases: tuple[Case, ...]
    links: tuple[tuple[int, int], ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Leaks:
    """What stands in several given parts: scans of one patient, copies of one picture."""

    patients: tuple[Group, ...]
    copies: Copies

    def __bool__(self) -> bool:
        return bool(self.patients or self.copies.groups)


def find_leaks(cases: Sequence[Case], copies: Copies) -> Leaks:
    """Patients and pictures that the given parts (`Case.split`) share.

    Parameters
    ----------
    copies : as from `find_copies` for these cases
    """
    parts = [case.split for case in cases]
    patients = torn(alike([case.patient_id for case in cases]), parts)
    return Leaks(tuple(patients), copies.across(parts))


def pass_gate(
    cases: Sequence[Case], copies: Copies, *, clean: str, allow_overlap: bool = False
) -> Gate:
    """Refuse parts that share a patient or a picture; keep copies together where none are given.

    The parts of a published archive stay as they are, so that numbers remain comparable:
    what training or validation holds of a later part is left out and counted.

    Parameters
    ----------
    copies : as from `find_copies` for these cases
    clean : the command that writes a split without leaks, for the error
    allow_overlap : warn instead of refusing

    Raises
    ------
    LeakageError : the given parts share a patient or a picture
    """
    leaks = find_leaks(cases, copies)
    if not leaks:
        return Gate(tuple(cases), tuple(copies.links), tuple(_kept_together(cases, copies)))
    if not leaks.patients and all(_of_archive(cases, group) for group in leaks.copies.groups):
        return _without_copies(cases, copies, leaks.copies)
    told = f"{_count(leaks)} in more than one part: {_named(cases, leaks)}"
    if allow_overlap:
        inside = [pair for pair in copies.links if not torn([pair], [c.split for c in cases])]
        return Gate(tuple(cases), tuple(inside), (f"{told}; the numbers flatter",))
    raise LeakageError(
        told, f"`{clean}` writes a split that is clean; --allow-overlap trains all the same"
    )


def _of_archive(cases: Sequence[Case], group: Group) -> bool:
    return all(cases[place].kind == "array" for place in group)


def _without_copies(cases: Sequence[Case], copies: Copies, leaked: Copies) -> Gate:
    """Of each leaked set of copies what stands in its last part; the rest is left out."""
    out: set[int] = set()
    for group in leaked.groups:
        last = max(_rank(cases[place]) for place in group)
        out |= {place for place in group if _rank(cases[place]) < last}
    kept = [place for place in range(len(cases)) if place not in out]
    new = {place: number for number, place in enumerate(kept)}
    links = [(new[a], new[b]) for a, b in copies.links if a in new and b in new]
    parts = Counter(str(cases[place].split or "train") for place in out)
    told = " and ".join(f"{parts[part]} of {part}" for part in PARTS if parts[part])
    warning = f"left out: {told}, copies of pictures in a later part of the archive"
    return Gate(tuple(cases[place] for place in kept), tuple(links), (warning,))


def _rank(case: Case) -> int:
    return PARTS.index(case.split or "train")


def _kept_together(cases: Sequence[Case], copies: Copies) -> Iterable[str]:
    """What is worth saying of copies that leak nowhere."""
    labels = copies.across([case.label for case in cases])
    if labels.groups:
        scans = len({place for group in labels.groups for place in group})
        yield f"{scans} copies of one picture stand under two labels: medcli data audit names them"
    parts_given = all(case.split for case in cases)
    scans = len({place for group in copies.groups for place in group})
    if scans and not parts_given:
        yield f"{scans} scans are copies of each other; each set of copies is kept in one part"


def _count(leaks: Leaks) -> str:
    """`2 patients, 8 identical pictures and 1 near-copy`."""
    identical = sum(map(len, leaks.copies.identical))
    near = len({place for pair in leaks.copies.near for place in pair})
    told = [
        _plural(len(leaks.patients), "patient"),
        _plural(identical, "identical picture"),
        _plural(near, "near-identical picture"),
    ]
    told = [each for each in told if each]
    return f"{', '.join(told[:-1])} and {told[-1]}" if len(told) > 1 else told[0]


def _plural(count: int, name: str) -> str:
    return f"{count:,} {name}{'s' if count != 1 else ''}" if count else ""


def _named(cases: Sequence[Case], leaks: Leaks) -> str:
    """The first pairs by path, then how many more there are."""
    groups = [*leaks.patients, *leaks.copies.groups]
    pairs = [_pair(cases, group) for group in groups[:NAMED]]
    more = len(groups) - len(pairs)
    return "; ".join(pairs) + (f"; and {more:,} more" if more else "")


def _pair(cases: Sequence[Case], group: Group) -> str:
    """Two scans of a group that stand in different parts."""
    first = cases[group[0]]
    parts = {cases[place].split: cases[place] for place in reversed(group)}
    known = [parts[part] for part in PARTS if part in parts]
    told = known if len(known) > 1 else [first, cases[group[1]]]
    return " and ".join(f"{_short(case.path)} ({case.split or 'no part'})" for case in told[:2])


def _short(path: str) -> str:
    """The end of a path: its last folder and the file."""
    return "/".join(PurePath(path).parts[-2:])
