"""One task or several: which cases belong to each, and how they are split by patient."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from medcli.config import TrainConfig
from medcli.data.findings import findings_of, names_several
from medcli.data.presets import resolve_task
from medcli.data.sources import DataSet, load_cases, load_tasks
from medcli.data.splits import PARTS, Split, SplitRow, split_by_patient, split_table
from medcli.errors import UsageError
from medcli.models.package import patient_of_task
from medcli.records import Case, Task
from medcli.training.gather import ReadScan


@dataclass(frozen=True, slots=True)
class TaskCases:
    """The tasks to train, in the order of their columns, and the labelled cases of all.

    Attributes
    ----------
    data : of several tasks each case has its task in the column `task`, and its `scan_id`
        begins with it
    notes : what was decided without being told
    apart : equal patient numbers of two tasks are two people: each task has inputs of its own
    """

    tasks: tuple[Task, ...]
    data: DataSet
    notes: tuple[str, ...]
    apart: bool = False


def gather_tasks(
    inputs: Sequence[str],
    task: str | None = None,
    classes: Sequence[str] | None = None,
    positive: str | None = None,
    *,
    on_note: Callable[[str], None] = lambda note: None,
) -> TaskCases:
    """Labelled cases of the tasks that the user asks for.

    Parameters
    ----------
    inputs : as for `load_cases`, each may be named after its task: ``lung=films.csv``
    task : a task, or several separated by commas, which the column `task` of the inputs names
    classes : those to keep, of a single task
    positive : the positive class; of several tasks one for each, separated by commas
    on_note : told of downloads

    Raises
    ------
    UsageError : some inputs are named after a task and others are not, or options that
        do not go together
    ManifestError, ScanError : as for `load_cases`
    """
    names = list(dict.fromkeys(each.strip() for each in (task or "").split(",") if each.strip()))
    named = inputs_by_task(inputs, names)
    if len(named or names) < 2:
        for name, own in named.items():
            names, inputs = [name], own
        return _one_task(inputs, names[0] if names else None, classes, positive, on_note)
    if classes:
        raise UsageError(
            "--classes is for one task", "Leave the other scans out of the data, or name one task"
        )
    if named:
        sets = {
            n: load_cases(own, task=n, on_note=on_note, multi_label=False)
            for n, own in named.items()
        }
    else:
        sets = load_tasks(inputs, names, on_note)
    _refuse_findings(sets)
    apart = len({tuple(sorted(own)) for own in named.values()}) > 1
    return _joined(sets, positive, apart)


def inputs_by_task(inputs: Sequence[str], names: Sequence[str] = ()) -> dict[str, tuple[str, ...]]:
    """The inputs of each task, where they are named after it; empty where none is.

    Raises
    ------
    UsageError : some are named and others are not; one of `names` has no input
    """
    found: defaultdict[str, list[str]] = defaultdict(list)
    plain = []
    for each in inputs:
        name, sign, path = each.partition("=")
        if sign and name and os.sep not in name and not Path(each).exists():
            found[name].append(path)
        else:
            plain.append(each)
    if found and plain:
        raise UsageError(
            f"{plain[0]} is not named after a task, other inputs are",
            f"Give all of them as NAME=DATA, as in {next(iter(found))}=…",
        )
    for name in names:
        if found and name not in found:
            raise UsageError(f"no input for the task {name!r}", f"Give it as {name}=DATA")
    return {name: tuple(own) for name, own in found.items() if not names or name in names}


def _one_task(
    inputs: Sequence[str],
    name: str | None,
    classes: Sequence[str] | None,
    positive: str | None,
    on_note: Callable[[str], None],
) -> TaskCases:
    data = load_cases(inputs, task=name, classes=classes, on_note=on_note)
    task, notes = resolve_task(name, data.classes, positive, multi_label=data.multi_label)
    return TaskCases((task,), data, tuple(notes))


def _refuse_findings(sets: Mapping[str, DataSet]) -> None:
    """Findings, of which a scan has several, are a model of their own."""
    for name, own in sets.items():
        if names_several(own.classes):
            raise UsageError(
                f"a label of task {name!r} names several findings",
                f"train it by itself, with --task {name}",
            )


def _joined(sets: dict[str, DataSet], positive: str | None, apart: bool) -> TaskCases:
    """The cases of all tasks, each told which is its own."""
    asked = [each.strip() for each in (positive or "").split(",") if each.strip()]
    unknown = [each for each in asked if not any(each in own.classes for own in sets.values())]
    if unknown:
        raise UsageError(f"--positive {unknown[0]!r} is a class of none of the tasks")
    tasks, notes, cases = [], [], []
    for name, own in sets.items():
        chosen = next((each for each in asked if each in own.classes), None)
        task, told = resolve_task(name, own.classes, chosen)
        tasks.append(task)
        notes += [f"{name}: {note}" for note in told]
        for case in own.cases:
            columns = {**case.columns, "task": name}
            cases.append(replace(case, scan_id=f"{name}:{case.scan_id}", columns=columns))
    dropped: Counter[str] = sum((own.dropped for own in sets.values()), Counter())
    warnings = tuple(f"{name}: {text}" for name, own in sets.items() for text in own.warnings)
    sources = ", ".join(dict.fromkeys(own.source for own in sets.values()))
    data = DataSet(tuple(cases), (), dropped, sources, warnings)
    return TaskCases(tuple(tasks), data, tuple(notes), apart)


def cases_of(cases: Sequence[Case], task: Task, tasks: Sequence[Task]) -> list[Case]:
    """The cases of one of the `tasks`."""
    return [case for case in cases if len(tasks) == 1 or case.columns["task"] == task.name]


def labels_of(cases: Iterable[Case], task: Task) -> set[str]:
    """The classes or findings that the cases of a task have."""
    labels = [str(case.label) for case in cases]
    if not task.multi_label:
        return set(labels)
    return {name for label in labels for name in findings_of(label)}


def told_apart(read: Iterable[ReadScan]) -> list[ReadScan]:
    """The scans, their patients named after the task as well: equal numbers are two people."""
    return [
        replace(item, case=replace(item.case, patient_id=_named_after_task(item.case)))
        for item in read
    ]


def _named_after_task(case: Case) -> str | None:
    return case.patient_id and patient_of_task(case.columns["task"], case.patient_id)


def split_tasks(
    cases: Sequence[Case],
    tasks: Sequence[Task],
    seed: int,
    *,
    links: Iterable[tuple[int, int]] = (),
    allow_overlap: bool = False,
    split: Callable[..., Split] = split_by_patient,
) -> Split:
    """`split_by_patient`, the classes of each task spread alike over its parts.

    Tasks that share a patient or a picture are split together, so that nobody stands in two
    parts, be it of two tasks; others each by themselves, so that a split that one of them
    brings holds for it alone.

    Parameters
    ----------
    links, allow_overlap : as for `split_by_patient`
    split : what splits one bundle, with the arguments of `split_by_patient`
    """
    together = tuple(links)
    bundles = [list(range(len(cases)))] if len(tasks) == 1 else _sharing_patients(cases, together)
    defaults = TrainConfig()
    settings = {
        "val_fraction": defaults.val_fraction,
        "test_fraction": defaults.test_fraction,
        "seed": seed,
        "allow_overlap": allow_overlap,
    }
    splits = [
        _split_bundle(
            [cases[place] for place in bundle],
            several=len(tasks) > 1,
            split=partial(split, links=_within(bundle, together), **settings),
        )
        for bundle in bundles
    ]
    train, val, test = (
        tuple(case for own in splits for case in getattr(own, part)) for part in PARTS
    )
    return Split(train, val, test, tuple(text for own in splits for text in own.warnings))


def _within(bundle: Sequence[int], links: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The links of a bundle's cases, as positions in the bundle."""
    place_of = {place: own for own, place in enumerate(bundle)}
    return [(place_of[a], place_of[b]) for a, b in links if a in place_of]


def _split_bundle(
    cases: Sequence[Case], *, several: bool, split: Callable[[Sequence[Case]], Split]
) -> Split:
    """Split one task, or several that share patients.

    One of several is split as if it were alone: its parts are those of a run of its own.
    """
    names = dict.fromkeys(case.columns["task"] for case in cases) if several else {}
    if not several:
        shown = list(cases)
    elif len(names) == 1:
        shown = [_without_task(case) for case in cases]
    else:
        shown = [replace(c, label=f"{c.columns['task']}/{c.label}") for c in cases]
    found = split(shown)
    own = {(s.scan_id, s.path): case for s, case in zip(shown, cases, strict=True)}
    train, val, test = (
        tuple(own[case.scan_id, case.path] for case in getattr(found, part)) for part in PARTS
    )
    told = f"{', '.join(names)}: " if several else ""
    return Split(train, val, test, tuple(f"{told}{text}" for text in found.warnings))


def own_patient(case: Case, tasks: Sequence[Task]) -> tuple[str | None, str]:
    """The patient under the name that the case's own data give, and the task."""
    if len(tasks) == 1:
        return case.patient_id, tasks[0].name
    return _without_task(case).patient_id, case.columns["task"]


def _without_task(case: Case) -> Case:
    """The case as it stands in its own data: scan and patient not named after the task."""
    start = f"{case.columns['task']}:"
    patient = case.patient_id and case.patient_id.removeprefix(start)
    return replace(case, scan_id=case.scan_id.removeprefix(start), patient_id=patient)


def _sharing_patients(cases: Sequence[Case], links: Iterable[tuple[int, int]]) -> list[list[int]]:
    """The places of the cases of tasks that share a patient or a picture, through others too."""
    bundle_of = {case.columns["task"]: case.columns["task"] for case in cases}

    def unite(one: str, other: str) -> None:
        old, new = bundle_of[one], bundle_of[other]
        bundle_of.update({name: new for name, of in bundle_of.items() if of == old})

    first_with: dict[str, str] = {}  # patient → a task
    for case in cases:
        if case.patient_id is not None:
            unite(
                case.columns["task"], first_with.setdefault(case.patient_id, case.columns["task"])
            )
    for one, other in links:
        unite(cases[one].columns["task"], cases[other].columns["task"])
    bundles: defaultdict[str, list[int]] = defaultdict(list)
    for place, case in enumerate(cases):
        bundles[bundle_of[case.columns["task"]]].append(place)
    return list(bundles.values())


def split_rows(split: Split, tasks: Sequence[Task]) -> list[SplitRow]:
    """What `split_table` says of the scans of each task."""
    if len(tasks) == 1:
        return split_table(split)
    rows = []
    for task in tasks:
        train, val, test = (tuple(cases_of(getattr(split, p), task, tasks)) for p in PARTS)
        rows += [replace(row, task=task.name) for row in split_table(Split(train, val, test))]
    return rows
