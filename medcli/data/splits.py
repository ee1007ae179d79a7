"""Train, validation and test parts that never share a patient."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from medcli.data.audit import alike, chained, united
from medcli.data.findings import SEPARATOR
from medcli.errors import LeakageError, ManifestError
from medcli.records import Case

PARTS = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class Split:
    """The parts of a data set; `test` may be empty."""

    train: tuple[Case, ...]
    val: tuple[Case, ...]
    test: tuple[Case, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SplitRow:
    """One line of the table that `split_table` makes; `task` is set where there are several."""

    part: str
    patients: int
    scans: int
    per_class: Mapping[str, int]
    task: str = ""


@dataclass(frozen=True, slots=True)
class _Group:
    """Scans that must stay together: those of one patient and their copies, or a single one."""

    key: str
    cases: tuple[Case, ...]

    @property
    def labels(self) -> Counter[str]:
        return _counts(self.cases)


def split_by_patient(
    cases: Sequence[Case],
    *,
    val_fraction: float = 0.15,
    test_fraction: float = 0.15,
    seed: int = 0,
    links: Iterable[tuple[int, int]] = (),
    allow_overlap: bool = False,
) -> Split:
    """Split scans so that no patient stands in two parts, classes spread alike.

    What the cases say about `Case.split` holds: with a test part given only validation
    is carved, with a validation part given and no test there is no test. Otherwise
    both are carved. The result depends on the seed, not on the order of `cases`.

    Parameters
    ----------
    cases : labelled, each `scan_id` once; a `patient_id` of None is unknown: a group of one
    val_fraction, test_fraction : share of scans; `val_fraction` is relative to what is
        split, a test_fraction of 0 makes no test part
    links : pairs of positions in `cases` that stay together, as copies of one picture do
    allow_overlap : given parts hold even where they share a patient

    Raises
    ------
    LeakageError : a patient stands in two of the given parts, and not `allow_overlap`
    ManifestError : a class has fewer patients than parts, or is missing in a given part
    """
    groups = _groups(cases, seed, links, keep_parts=allow_overlap)
    parts = _assign(groups, val_fraction, test_fraction, seed)
    _require_classes(cases, parts)
    train, val, test = (_cases_of(parts[part]) for part in PARTS)
    return Split(train, val, test, _warnings(cases))


def assign_by_patient(
    cases: Sequence[Case],
    fractions: Mapping[str, float],
    *,
    seed: int = 0,
    links: Iterable[tuple[int, int]] = (),
) -> list[str]:
    """The part of each scan: no patient in two of them, classes spread alike.

    What the cases say about `Case.split` does not count. The result depends on the seed,
    not on the order of `cases`. With the fractions of `split_by_patient` it is that split.

    Parameters
    ----------
    cases, links : as for `split_by_patient`
    fractions : share of the scans by name of the part, 1 together; a part with 0 stays empty

    Raises
    ------
    ManifestError : a class has fewer patients than there are parts
    """
    carved = _carve(_groups(cases, seed, links), fractions, seed)
    part_of = {
        (case.scan_id, case.path): part
        for part, groups in carved.items()
        for group in groups
        for case in group.cases
    }
    return [part_of[case.scan_id, case.path] for case in cases]


def split_table(split: Split) -> list[SplitRow]:
    """Patients, scans and scans per class of each part, for printing.

    Scans of unknown patients count as one patient each.
    """
    return part_table({part: getattr(split, part) for part in PARTS})


def part_table(parts: Mapping[str, Sequence[Case]]) -> list[SplitRow]:
    """`split_table` of parts by any name."""
    classes = sorted(_counts(case for cases in parts.values() for case in cases))
    rows = []
    for part, cases in parts.items():
        counts = _counts(cases)
        rows.append(
            SplitRow(
                part=part,
                patients=len({_group_key(case) for case in cases}),
                scans=len(cases),
                per_class={name: counts[name] for name in classes},
            )
        )
    return rows


def _counts(cases: Iterable[Case]) -> Counter[str]:
    """How many scans have each label; one that names several findings counts for each."""
    return Counter(
        name for case in cases if case.label is not None for name in case.label.split(SEPARATOR)
    )


def _group_key(case: Case) -> str:
    if case.patient_id is None:
        return f"scan:{case.scan_id}"
    return f"patient:{case.patient_id}"


def _draw(seed: int, key: str) -> bytes:
    """A number that stands for a key in a seed's lottery, whatever the order of the input.

    The key may be a file name that is no UTF-8.
    """
    return hashlib.sha256(f"{seed}:{key}".encode(errors="surrogatepass")).digest()


def _groups(
    cases: Sequence[Case],
    seed: int,
    links: Iterable[tuple[int, int]] = (),
    *,
    keep_parts: bool = False,
) -> list[_Group]:
    """Groups in the order in which the seed draws them; with `keep_parts` none has two parts."""
    by_key: defaultdict[str, list[Case]] = defaultdict(list)
    for case, key in zip(cases, _keys(cases, links), strict=True):
        by_key[f"{key} in {case.split}" if keep_parts and case.split else key].append(case)
    return [
        _Group(key, tuple(sorted(by_key[key], key=lambda case: case.scan_id)))
        for key in sorted(by_key, key=lambda key: _draw(seed, key))
    ]


def _keys(cases: Sequence[Case], links: Iterable[tuple[int, int]]) -> list[str]:
    """The group of each scan: its patient, or of linked ones the first by name."""
    own = [_group_key(case) for case in cases]
    roots = united(len(cases), [*chained(alike(own)), *links]).tolist()
    first: dict[int, str] = {}
    for root, key in zip(roots, own, strict=True):
        first[root] = min(key, first.get(root, key))
    return [first[root] for root in roots]


def _given_parts(groups: Iterable[_Group]) -> dict[str, str]:
    """Group key → the part its cases name; groups without one are left out."""
    named = {group.key: {case.split for case in group.cases} - {None} for group in groups}
    torn = [key for key, parts in named.items() if len(parts) > 1]
    if torn:
        raise LeakageError(
            f"{len(torn)} patient{'s' if len(torn) > 1 else ''} in more than one given split "
            "(a patient and all copies of its pictures count as one)",
            "put all scans of a patient into one split, or write a new one with medcli data split",
        )
    return {key: part for key, parts in named.items() for part in parts if part is not None}


def _assign(
    groups: Sequence[_Group], val_fraction: float, test_fraction: float, seed: int
) -> dict[str, list[_Group]]:
    """Given parts as they are, the missing ones carved out of the rest."""
    given = _given_parts(groups)
    parts: dict[str, list[_Group]] = {part: [] for part in PARTS}
    for group in groups:
        # What belongs to no given part is there to train on.
        parts[given.get(group.key, "train")].append(group)
    if parts["val"]:
        return parts
    fractions = {"train": 1 - val_fraction, "val": val_fraction}
    if not parts["test"]:
        fractions |= {"train": 1 - val_fraction - test_fraction, "test": test_fraction}
    return parts | _carve(parts["train"], fractions, seed)


def _carve(
    groups: Sequence[_Group], fractions: Mapping[str, float], seed: int
) -> dict[str, list[_Group]]:
    """Spread groups over parts: first one of each class for each part, then by need.

    Need of a part for a group: how far the part stays behind its share of the group's
    classes, rare classes weighing more. Large groups go first.
    """
    fractions = {part: share for part, share in fractions.items() if share > 0}
    parts, rest = _reserve(groups, tuple(fractions))
    totals = _label_counts(groups)
    have = {part: _label_counts(parts[part]) for part in parts}

    def need(part: str, group: _Group) -> float:
        return sum(
            count * (fractions[part] * totals[label] - have[part][label]) / totals[label] ** 2
            for label, count in group.labels.items()
        )

    for group in sorted(rest, key=lambda group: (-len(group.cases), _draw(seed, group.key))):
        part = max(fractions, key=lambda part: need(part, group))
        parts[part].append(group)
        have[part] += group.labels
    return parts


def _reserve(
    groups: Sequence[_Group], parts: tuple[str, ...]
) -> tuple[dict[str, list[_Group]], list[_Group]]:
    """Give each part one group of each class, rare classes and small groups first."""
    patients = Counter(label for group in groups for label in group.labels)
    reserved: dict[str, list[_Group]] = {part: [] for part in parts}
    rest = sorted(groups, key=lambda group: len(group.cases))
    for label in sorted(patients, key=lambda label: (patients[label], label)):
        for part in reversed(parts):
            if any(label in group.labels for group in reserved[part]):
                continue
            chosen = next((group for group in rest if label in group.labels), None)
            if chosen is None:
                raise _too_few(label, patients[label], parts)
            reserved[part].append(chosen)
            rest.remove(chosen)
    return reserved, rest


def _too_few(label: str, patients: int, parts: tuple[str, ...]) -> ManifestError:
    folds = all(part.isdigit() for part in parts)
    wanted = f"{len(parts)} folds" if folds else f"{len(parts)} parts ({', '.join(parts)})"
    fewer = "ask for fewer folds, " if folds else ""
    return ManifestError(
        f"class {label!r} has {patients} patient{'' if patients == 1 else 's'}, "
        f"too few for {wanted} that share none",
        f"each class needs at least {len(parts)} patients of its own; add scans, {fewer}"
        "or leave the class out (medcli train --classes)",
    )


def _label_counts(groups: Iterable[_Group]) -> Counter[str]:
    return sum((group.labels for group in groups), Counter())


def _require_classes(cases: Iterable[Case], parts: Mapping[str, Sequence[_Group]]) -> None:
    """Training and validation see every class; matters where the parts were given."""
    classes = set(_counts(cases))
    for part in ("train", "val"):
        if not parts[part]:
            raise ManifestError(
                f"the {part} split is empty: every scan is marked for another one",
                "mark scans of each class for it, or drop the column 'split'",
            )
        missing = sorted(classes - set(_label_counts(parts[part])))
        if missing:
            raise ManifestError(
                f"the {part} split has no scan of class {missing[0]!r}",
                "give each split a scan of each class, or drop the column 'split'",
            )


def _cases_of(groups: Iterable[_Group]) -> tuple[Case, ...]:
    cases = [case for group in groups for case in group.cases]
    return tuple(sorted(cases, key=lambda case: case.scan_id))


def _warnings(cases: Sequence[Case]) -> tuple[str, ...]:
    unknown = sum(case.patient_id is None for case in cases)
    if not unknown:
        return ()
    which = f"{unknown} scans of {len(cases)} name no patient"
    if unknown == len(cases):
        which = "no scan names a patient"
    return (f"{which}: each such scan is its own group, near-copies may stand in two parts",)
