"""What the user names as labelled data → cases to train on."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from pathlib import Path

from medcli.data.findings import finding_names, findings_of, join_findings, names_several
from medcli.data.manifest import SPLIT_NAMES, Line, check_spelling, closest, read_manifest
from medcli.data.medmnist import read_archive
from medcli.data.named import is_named, local_path
from medcli.errors import ManifestError, ScanError, UsageError
from medcli.imaging.discovery import find_scans
from medcli.records import Case, Failure, ScanWarning


@dataclass(frozen=True, slots=True)
class DataSet:
    """Labelled cases to train on or to evaluate with.

    Attributes
    ----------
    cases : each with a label out of `classes`, each `scan_id` once; of a multi-label set
        with a label that names findings out of `classes`, as in ``effusion|edema``, or "none"
    classes : sorted, or in the order that was asked for
    dropped : how many scans were left out, by reason
    source : what was read, in words
    warnings : what was noticed and handled, in plain words
    lines : scan_id → what the lines of a manifest say of the scan; other sources have none
    multi_label : whether a scan may have several findings
    """

    cases: tuple[Case, ...]
    classes: tuple[str, ...]
    dropped: Counter[str] = field(default_factory=Counter)
    source: str = ""
    warnings: tuple[str, ...] = ()
    lines: Mapping[str, tuple[Line, ...]] = field(default_factory=dict, repr=False)
    multi_label: bool = False


@dataclass(frozen=True, slots=True)
class _Part:
    """What one input gave; `lines` of a manifest, one item a case."""

    source: str
    cases: list[Case]
    dropped: Counter[str] = field(default_factory=Counter)
    warnings: tuple[str, ...] = ()
    lines: tuple[tuple[Line, ...], ...] = ()


def load_cases(
    inputs: Sequence[str],
    *,
    task: str | None = None,
    classes: Sequence[str] | None = None,
    known: Sequence[str] | None = None,
    class_names: Sequence[str] | None = None,
    on_note: Callable[[str], None] = lambda note: None,
    multi_label: bool | None = None,
) -> DataSet:
    """Labelled cases of one or several inputs, joined.

    Parameters
    ----------
    inputs : manifests, folders with a `manifest.csv`, class folders (also under train, val
        and test), MedMNIST `.npz`, ``medmnist:name[@size]``, ``hf:owner/name[@config][:split]``
    task : which rows count where a manifest has a column `task` with several; by default
        those of the first one, with a warning
    classes : those to keep, in this order; scans of others are dropped and counted
    known : classes of a trained model. Scans of others are an error, fewer are none
    class_names : names of the digits in an `.npz`
    on_note : told of downloads
    multi_label : whether labels name findings, several to a scan; None: where one of them
        names several, as in ``effusion|edema``

    Raises
    ------
    ScanError : an input is missing, or nothing readable was found
    ManifestError : an unusable manifest; one class only; a label the model does not know
    UsageError : an input without labels; a class in `classes` that no scan has
    """
    parts = [_load(name, class_names, on_note) for name in inputs]
    cases, dropped, lines = _join(parts)
    warnings = [warning for part in parts for warning in part.warnings]
    source = ", ".join(part.source for part in parts)
    cases = _of_task(cases, task, dropped, warnings)
    if not cases:
        raise ManifestError(
            f"no labelled scan in {source}{_because(dropped)}",
            "each scan needs a path and a label",
        )
    if names_several(case.label for case in cases) if multi_label is None else multi_label:
        names = _class_order(_single(cases), source, classes, known)
        check_spelling(source, names)
        named = tuple(_with_findings(case, names) for case in cases)
        return DataSet(named, names, dropped, source, tuple(warnings), lines, multi_label=True)
    check_spelling(source, {str(case.label) for case in cases})
    order = _class_order(cases, source, classes, known)
    kept = [case for case in cases if case.label in order]
    if len(kept) < len(cases):
        dropped["class not in --classes"] += len(cases) - len(kept)
    return DataSet(tuple(kept), order, dropped, source, tuple(warnings), lines)


def load_tasks(
    inputs: Sequence[str],
    tasks: Sequence[str],
    on_note: Callable[[str], None] = lambda note: None,
) -> dict[str, DataSet]:
    """Labelled cases of several tasks, told apart by the column `task` of the manifests.

    What was left out and what was noticed stands with the first task.

    Raises
    ------
    ScanError, UsageError : as for `load_cases`
    ManifestError : a scan names no task, no scan names one of `tasks`, one class only
    """
    parts = [_load(name, None, on_note) for name in inputs]
    cases, dropped, _ = _join(parts)
    source = ", ".join(part.source for part in parts)
    by_task: defaultdict[str, list[Case]] = defaultdict(list)
    for case in cases:
        by_task[case.columns.get("task", "")].append(case)
    if unnamed := len(by_task.pop("", [])):
        raise ManifestError(
            f"{unnamed} of {len(cases)} scans in {source} name no task",
            "add a column 'task', or name each input after its task, as in lung=films.csv",
        )
    for name in tasks:
        if name not in by_task:
            raise ManifestError(
                f"no scan of task {name!r}",
                f"{closest(name, by_task)}tasks found: {_list(by_task)}",
            )
    if others := len(cases) - sum(len(by_task[name]) for name in tasks):
        dropped["other task"] += others
    warnings = tuple(warning for part in parts for warning in part.warnings)
    found = {
        name: DataSet(
            tuple(by_task[name]),
            _class_order(by_task[name], f"task {name!r} of {source}", None, None),
            source=source,
        )
        for name in tasks
    }
    return {**found, tasks[0]: replace(found[tasks[0]], dropped=dropped, warnings=warnings)}


def folder_manifest(folder: str | Path) -> Path | None:
    """The `manifest.csv` of a folder, None where it has none."""
    path = Path(folder) / "manifest.csv"
    return path if path.is_file() else None


def class_folders(root: str | Path) -> list[tuple[str | None, str, Path]]:
    """The class folders under `root` as (split, class, folder), sorted.

    Either ``root/<class>`` or, where all folders are named after splits,
    ``root/<train|val|test>/<class>``.
    """
    folders = _subfolders(Path(root))
    if not _are_splits(folders):
        return [(None, folder.name, folder) for folder in folders]
    return [
        (SPLIT_NAMES[folder.name.lower()], inner.name, inner)
        for folder in folders
        for inner in _subfolders(folder)
    ]


def class_folder_labels(cases: Iterable[Case | Failure], root: str | Path) -> list[Case | Failure]:
    """Cases under `root` with the name of their class folder as label.

    Cases that lie in no class folder keep the label they have. A case whose files lie in the
    folders of several classes has none, and a warning (label_unclear) names them.
    """
    labels = {folder.resolve(): label for _, label, folder in class_folders(root)}
    return [
        case if isinstance(case, Failure) else _with_folder_label(case, labels) for case in cases
    ]


def _with_folder_label(case: Case, labels: Mapping[Path, str]) -> Case:
    """The case with the label of the class folder around its files."""
    folders = sorted({os.path.dirname(file) for file in case.files})
    found = {label for folder in folders if (label := _label_around(folder, labels)) is not None}
    if not found:
        return case
    if len(found) == 1:
        return replace(case, label=found.pop())
    named = ", ".join(repr(label) for label in sorted(found))
    message = f"its files lie in the folders of several classes, {named}: it has no label"
    return replace(
        case, label=None, warnings=(*case.warnings, ScanWarning("label_unclear", message))
    )


def _label_around(folder: str, labels: Mapping[Path, str]) -> str | None:
    """The label of the innermost class folder that `folder` is or lies in."""
    path = Path(folder).resolve()
    return next((labels[up] for up in (path, *path.parents) if up in labels), None)


def _subfolders(folder: Path) -> list[Path]:
    return sorted(
        entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")
    )


def _are_splits(folders: Sequence[Path]) -> bool:
    names = {SPLIT_NAMES.get(folder.name.lower()) for folder in folders}
    return "train" in names and None not in names


def _load(name: str, class_names: Sequence[str] | None, on_note: Callable[[str], None]) -> _Part:
    if is_named(name):
        place, dropped = local_path(name, on_note)
        part = _load(place, class_names, on_note)
        return replace(part, source=f"data set {name}", dropped=part.dropped + dropped)
    path = Path(name)
    if not path.exists():
        raise ScanError("not_found", f"{name} does not exist")
    if path.is_dir():
        manifest = folder_manifest(path)
        return _load_manifest(manifest) if manifest else _load_class_folders(path)
    if path.suffix.lower() == ".csv":
        return _load_manifest(path)
    if path.suffix.lower() == ".npz":
        return _load_archive(path, class_names)
    raise UsageError(
        f"{name} carries no labels",
        "give a manifest, class folders, a MedMNIST .npz, medmnist:NAME or hf:OWNER/NAME",
    )


def _load_manifest(path: Path) -> _Part:
    manifest = read_manifest(path, require_label=True)
    return _Part(
        f"manifest {path}",
        list(manifest.cases),
        manifest.dropped,
        manifest.warnings,
        manifest.lines,
    )


def _load_archive(path: Path, class_names: Sequence[str] | None) -> _Part:
    cases = read_archive(path, class_names)
    if any(case.label is None for case in cases):
        raise ManifestError(f"{path} has pictures without labels", "add the array *_labels")
    return _Part(f"archive {path}", cases)


def _load_class_folders(root: Path) -> _Part:
    folders = class_folders(root)
    dropped: Counter[str] = Counter()
    cases: list[Case] = []
    for split, label, folder in folders:
        for found in find_scans([str(folder)]):
            if isinstance(found, Failure):
                dropped[f"not readable ({found.code})"] += 1
            else:
                scan_id = _portable_id(found, root)
                cases.append(replace(found, label=label, split=split, scan_id=scan_id))
    if cases:
        return _Part(f"class folders of {root}", cases, dropped)
    if any(isinstance(found, Case) for found in find_scans([str(root)])):
        raise ManifestError(
            f"the scans in {root} carry no labels",
            "add a manifest.csv with the columns path and label, or sort them into class folders",
        )
    raise ScanError("no_scans", f"nothing readable found in {root}{_because(dropped)}")


def _portable_id(case: Case, root: Path) -> str:
    """The scan_id; where it is the path, that below `root`, so that the seed alone splits."""
    if case.scan_id != case.path:
        return case.scan_id
    return Path(case.path).relative_to(root).as_posix()


def _because(dropped: Counter[str]) -> str:
    if not dropped:
        return ""
    return " (" + ", ".join(f"{count} {reason}" for reason, count in sorted(dropped.items())) + ")"


def _join(
    parts: Sequence[_Part],
) -> tuple[list[Case], Counter[str], dict[str, tuple[Line, ...]]]:
    """All cases, each scan once; a scan_id that two inputs use is told apart by its source.

    With them what was dropped, and the lines of each scan_id.
    """
    dropped: Counter[str] = sum((part.dropped for part in parts), Counter())
    files_of: dict[str, tuple[tuple[str, ...], str | None]] = {}
    lines_of: dict[str, tuple[Line, ...]] = {}
    cases = []
    for part in parts:
        for case, lines in zip_longest(part.cases, part.lines, fillvalue=()):
            assert isinstance(case, Case)
            here = (tuple(str(Path(name).resolve()) for name in case.files), case.member)
            if files_of.get(case.scan_id) == here:
                dropped["given twice"] += 1
                continue
            if case.scan_id in files_of:
                case = replace(case, scan_id=f"{case.path}#{case.scan_id}")
            files_of[case.scan_id] = here
            lines_of[case.scan_id] = lines
            cases.append(case)
    return cases, dropped, lines_of


def _of_task(
    cases: list[Case], task: str | None, dropped: Counter[str], warnings: list[str]
) -> list[Case]:
    """The cases of one task, where a manifest's column `task` names several."""
    tasks = list(dict.fromkeys(case.columns["task"] for case in cases if "task" in case.columns))
    if len(tasks) < 2:
        return cases
    if task is None:
        task = tasks[0]
        warnings.append(
            f"{len(tasks)} tasks in one manifest: {task!r} is used; --task picks one of "
            + ", ".join(tasks)
        )
    if task not in tasks:
        raise ManifestError(
            f"no scan of task {task!r}", f"{closest(task, tasks)}tasks found: {', '.join(tasks)}"
        )
    kept = [case for case in cases if case.columns.get("task", task) == task]
    dropped["other task"] += len(cases) - len(kept)
    return kept


def _single(cases: Iterable[Case]) -> list[Case]:
    """Each case as often as it has findings, labelled with one of them."""
    found = list(cases)
    finding_names(str(case.label) for case in found)  # raises where two differ in case only
    return [replace(case, label=name) for case in found for name in findings_of(str(case.label))]


def _with_findings(case: Case, names: Sequence[str]) -> Case:
    """The case with those of its findings that are asked for, in their order."""
    held = findings_of(str(case.label))
    return replace(case, label=join_findings(name for name in names if name in held))


def _class_order(
    cases: Iterable[Case],
    source: str,
    classes: Sequence[str] | None,
    known: Sequence[str] | None,
) -> tuple[str, ...]:
    found = Counter(case.label for case in cases if case.label is not None)
    for name in classes or ():
        if name not in found:
            raise UsageError(
                f"no scan of class {name!r}", f"{closest(name, found)}classes found: {_list(found)}"
            )
    if known is not None:
        wanted = set(classes or found)
        for name in sorted(wanted - set(known)):
            raise ManifestError(
                f"label {name!r} ({found[name]} scans) is none of the model's classes",
                f"{closest(name, known)}the model knows {', '.join(known)}; "
                "leave the other scans out of the data",
            )
        return tuple(name for name in known if classes is None or name in classes)
    order = tuple(dict.fromkeys(classes)) if classes else tuple(sorted(found))
    if len(order) < 2:
        raise ManifestError(
            f"one class only in {source}: {_list(order)}", "a classifier needs two or more"
        )
    return order


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
