"""A data set → a manifest with the part, or the fold, of every scan."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medcli.data.manifest import BOX_COLUMNS, Line
from medcli.data.sources import DataSet
from medcli.data.splits import SplitRow, assign_by_patient, part_table
from medcli.data.survey import survey
from medcli.errors import UsageError
from medcli.files import check_file, write_file
from medcli.imaging.files import MEMBER
from medcli.records import Case, Failure

SLACK = 2.0
"""Pairs that are nearly near-copies are kept together too, so that a training that sees the
scans at another size does not refuse what is written here."""
_FIRST_COLUMNS = ("path", "label", "patient_id", "scan_id", "slice")


@dataclass(frozen=True, slots=True)
class Resplit:
    """What was written.

    Attributes
    ----------
    column : "split" or "fold"
    rows : patients, scans and scans of each class by part
    copies : how many scans are copies of another one and share its part
    dropped : what was left out, by reason
    warnings : what was noticed, in plain words
    """

    path: Path
    column: str
    rows: tuple[SplitRow, ...]
    copies: int
    dropped: Mapping[str, int]
    warnings: tuple[str, ...]


def resplit(
    data: DataSet,
    output: Path,
    *,
    val: float = 0.15,
    test: float = 0.15,
    folds: int | None = None,
    seed: int = 0,
    overwrite: bool = False,
    on_scan: Callable[[int, int], None] = lambda done, total: None,
    on_failure: Callable[[Failure], None] = lambda failure: None,
) -> Resplit:
    """Split by patient, classes alike, copies of a picture together, and write a manifest.

    A split that the data come with is replaced. Lines of a manifest keep their columns;
    other sources get one line a file. Paths below the folder of `output` are relative.

    Parameters
    ----------
    data : as from `medcli.data.sources.load_cases`
    val, test : share of the scans; 0 makes no such part
    folds : so many folds, counted from 0, instead of parts

    Raises
    ------
    UsageError : shares that leave nothing to train on
    ManifestError : a class has fewer patients than there are parts
    ScanError : more than 5 % of the scans cannot be read
    OutputExistsError, StorageError : `output` cannot be written
    """
    check_file(output, overwrite=overwrite)
    column, fractions = _wanted(val, test, folds)
    seen = survey(data.cases, on_scan=on_scan, on_failure=on_failure)
    copies = seen.copies(SLACK)
    parts = assign_by_patient(seen.cases, fractions, seed=seed, links=copies.links)
    lines = [
        {**line, column: part}
        for case, part in zip(seen.cases, parts, strict=True)
        for line in data.lines.get(case.scan_id) or _lines(case)
    ]
    write_file(output, _as_csv(lines, column, output.resolve().parent))
    by_part: dict[str, list[Case]] = {part: [] for part, share in fractions.items() if share}
    for case, part in zip(seen.cases, parts, strict=True):
        by_part[part].append(case)
    unread = Counter(f"not readable ({failure.code})" for failure in seen.failures)
    return Resplit(
        path=output,
        column=column,
        rows=tuple(part_table(by_part)),
        copies=len({place for group in copies.groups for place in group}),
        dropped=dict(data.dropped + unread),
        warnings=tuple(_warnings(data, seen.cases)),
    )


def _wanted(val: float, test: float, folds: int | None) -> tuple[str, dict[str, float]]:
    """The column and the share of each part."""
    if folds is not None:
        return "fold", {str(fold): 1 / folds for fold in range(folds)}
    if val < 0 or test < 0 or val + test >= 1:
        raise UsageError(
            f"--val {val:g} and --test {test:g} leave nothing to train on",
            "Give shares that sum up to less than 1, as in --val 0.15 --test 0.15",
        )
    return "split", {"train": 1 - val - test, "val": val, "test": test}


def _lines(case: Case) -> Iterator[Line]:
    """Lines for a scan that no manifest describes: one a file, those of a stack numbered."""
    known = {
        "label": case.label or "",
        "patient_id": "",
        **{name: value for name, value in case.columns.items() if name not in BOX_COLUMNS},
    }
    if case.time_point is not None:
        known["time_point"] = str(case.time_point)
    if case.member is not None or len(case.files) == 1:
        yield {"path": case.path, **known}
        return
    for number, file in enumerate(case.files):
        yield {"path": file, **known, "scan_id": case.scan_id, "slice": str(number)}


def _as_csv(lines: Sequence[Line], column: str, folder: Path) -> bytes:
    """UTF-8; `column` last, columns that no line fills left out."""
    filled = {name for line in lines for name, value in line.items() if name and value}
    names = dict.fromkeys([*_FIRST_COLUMNS, *(name for line in lines for name in line)])
    columns = [name for name in names if name in filled and name not in ("split", "fold")]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, [*columns, column], restval="", extrasaction="ignore")
    writer.writeheader()
    writer.writerows({**line, "path": _place(line["path"], folder)} for line in lines)
    return text.getvalue().encode("utf-8")


def _place(path: str, folder: Path) -> str:
    """A path relative to `folder` where it lies below, else absolute."""
    file, member, inner = path.partition(MEMBER)
    whole = Path(file).absolute()
    inside = whole.is_relative_to(folder)
    return f"{whole.relative_to(folder) if inside else whole}{member}{inner}"


def _warnings(data: DataSet, cases: Sequence[Case]) -> Iterator[str]:
    yield from data.warnings
    if given := sum(case.split is not None for case in cases):
        yield f"the split that {given:,} scans came with is replaced"
    unknown = sum(case.patient_id is None for case in cases)
    if unknown:
        which = "no scan names" if unknown == len(cases) else f"{unknown:,} scans do not name"
        yield f"{which} a patient: each such scan counts as a patient of its own"
