"""Manifests: a CSV file that names scans, their labels and their patients.

Columns ``path,label,patient_id[,scan_id,slice,split,time_point,…]`` and boxes
``x0,y0,x1,y1``; what else there is stays with the case. Rows of one `scan_id`
form one scan in the order of `slice`. `time_point`, from 0, chooses one of a file that
holds several; each is a scan of its own.
"""

from __future__ import annotations

import csv
import difflib
import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medcli.data.medmnist import archive_member
from medcli.errors import ManifestError, ScanError
from medcli.imaging.discovery import find_scans
from medcli.imaging.files import MEMBER
from medcli.imaging.formats import VOLUME_SUFFIXES, has_suffix
from medcli.records import Case, Kind

Line = Mapping[str, str]  # of a manifest, by column

BOX_COLUMNS = ("x0", "y0", "x1", "y1")
_OWN_COLUMNS = frozenset(
    {"path", "label", "patient_id", "scan_id", "slice", "split", "time_point", *BOX_COLUMNS}
    | {"boxes"}  # what the columns of a case call the boxes
)

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a manifest says.

    Attributes
    ----------
    path : the CSV file
    cases : one for each scan, in the order of their first rows
    columns : the header, in lower case
    dropped : how much was left out, by reason
    warnings : what was noticed and handled, in plain words
    lines : of each case, what its lines say, by column; paths as a case has them
    numbers : of each case, the numbers of its lines as an editor counts them
    """

    path: str
    cases: tuple[Case, ...]
    columns: tuple[str, ...]
    dropped: Counter[str] = field(default_factory=Counter)
    warnings: tuple[str, ...] = ()
    lines: tuple[tuple[Line, ...], ...] = field(default=(), repr=False)
    numbers: tuple[tuple[int, ...], ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class _Row:
    """A line of the file; `number` counts as an editor does, the header being line 1."""

    number: int
    values: dict[str, str]

    def get(self, column: str) -> str:
        return self.values.get(column, "").strip()


def read_manifest(
    path: str | Path,
    *,
    require_label: bool = False,
    labelled_boxes: bool = False,
    any_boxes: bool = False,
) -> Manifest:
    """Read a manifest; a file it names that is missing or damaged fails when it is read.

    Parameters
    ----------
    path : CSV, UTF-8 with or without a byte-order mark, separated by comma, semicolon or
        tab. Relative paths inside start at its folder
    require_label : scans without a label are dropped and counted instead of kept
    labelled_boxes : labels are those of boxes: a scan may have several, and has none itself
    any_boxes : boxes that are no four numbers are kept, as texts, for a check to name

    Raises
    ------
    ScanError : the file is missing or cannot be opened
    ManifestError : a column is missing; a row's slice, split or box is unusable; rows of
        one scan contradict each other; labels differ only in case or surrounding space
    """
    path = Path(path)
    columns, rows = _read_rows(path)
    _require_columns(path, columns, ("path", "label") if require_label else ("path",))
    check_spelling(str(path), (row.values.get("label", "") for row in rows))
    dropped: Counter[str] = Counter()
    warnings: list[str] = _lost_corners(path, columns)
    cases: list[Case] = []
    lines: list[tuple[Line, ...]] = []
    numbers: list[tuple[int, ...]] = []
    for scan_rows in _rows_by_scan(rows, dropped):
        label = None if labelled_boxes else _only_value(path, scan_rows, "label")
        if require_label and label is None:
            dropped["no label"] += 1
            continue
        cases.append(_case(path, scan_rows, label, warnings, any_boxes))
        numbers.append(tuple(row.number for row in scan_rows))
        lines.append(
            tuple({**row.values, "path": str(path.parent / row.get("path"))} for row in scan_rows)
        )
    return Manifest(
        str(path), tuple(cases), columns, dropped, tuple(warnings), tuple(lines), tuple(numbers)
    )


def closest(name: str, names: Iterable[str]) -> str:
    """``did you mean 'label'? `` where one of `names` is close to `name`, else nothing."""
    folded = {candidate.casefold(): candidate for candidate in names}
    matches = difflib.get_close_matches(name.casefold(), folded, n=1)
    return f"did you mean {folded[matches[0]]!r}? " if matches else ""


def _read_rows(path: Path) -> tuple[tuple[str, ...], list[_Row]]:
    """The header in lower case and the rows under it, blank lines left out."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = file.readline()
            delimiter = max(",;\t", key=header.count)
            columns = tuple(
                name.strip().lower() for name in next(csv.reader([header], delimiter=delimiter), [])
            )
            reader = csv.reader(file, delimiter=delimiter)
            # The header was read apart, hence + 1.
            numbered = [(reader.line_num + 1, fields) for fields in reader if any(fields)]
    except FileNotFoundError as error:
        raise ScanError("not_found", f"{path} does not exist") from error
    except OSError as error:
        raise ScanError("not_found", f"{path} cannot be opened: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path} is not UTF-8 text", "save it as CSV UTF-8") from error
    except csv.Error as error:
        raise ManifestError(f"{path} is not a CSV file: {error}") from error
    _check_header(path, columns)
    return columns, [_row(path, number, columns, fields) for number, fields in numbered]


def _check_header(path: Path, columns: tuple[str, ...]) -> None:
    repeated = sorted(name for name, count in Counter(columns).items() if name and count > 1)
    if repeated:
        raise ManifestError(f"{path} has several columns named {repeated[0]!r}", "keep one of them")


def _row(path: Path, number: int, columns: tuple[str, ...], fields: Sequence[str]) -> _Row:
    if len(fields) > len(columns):
        raise ManifestError(
            f"{path}, line {number}: {len(fields)} fields under {len(columns)} columns",
            "put a value that holds the separator in quotes",
        )
    return _Row(number, dict(zip(columns, fields, strict=False)))


def _require_columns(path: Path, columns: tuple[str, ...], needed: Iterable[str]) -> None:
    for name in needed:
        if name not in columns:
            found = ", ".join(column for column in columns if column) or "none"
            raise ManifestError(
                f"{path} has no column {name!r}", f"{closest(name, columns)}columns found: {found}"
            )


def check_spelling(source: str, labels: Iterable[str]) -> None:
    """Refuse labels that are one class to a reader and two to a program.

    Raises
    ------
    ManifestError : labels differ only in case or surrounding space
    """
    spellings: defaultdict[str, set[str]] = defaultdict(set)
    for label in labels:
        if label.strip():
            spellings[label.strip().casefold()].add(label)
    for variants in spellings.values():
        if len(variants) > 1:
            raise ManifestError(
                f"{source}: labels differ only in case or surrounding space: "
                + ", ".join(repr(variant) for variant in sorted(variants)),
                "write each class in one way",
            )


def _rows_by_scan(rows: Iterable[_Row], dropped: Counter[str]) -> list[list[_Row]]:
    """Rows with one `scan_id` together; without one, rows with one `path` and time point."""
    scans: defaultdict[tuple[str, ...], list[_Row]] = defaultdict(list)
    for row in rows:
        if not row.get("path"):
            dropped["no path"] += 1
        elif scan_id := row.get("scan_id"):
            scans["scan_id", scan_id].append(row)
        else:
            scans["path", row.get("path"), row.get("time_point")].append(row)
    return list(scans.values())


def _case(
    path: Path, rows: list[_Row], label: str | None, warnings: list[str], any_boxes: bool
) -> Case:
    names = _files_in_order(path, rows)
    paths = [str(path.parent / name) for name in names]
    first = rows[0]
    is_stack = len(paths) > 1
    time_point = _time_point(path, rows)
    point = "" if time_point is None else f"#{time_point}"
    found = _look_at(paths[0], is_stack, warnings)
    columns = {
        name: value.strip()
        for name, value in first.values.items()
        if name and name not in _OWN_COLUMNS and value.strip()
    }
    if boxes := _boxes(path, rows, names, any_boxes):
        columns["boxes"] = json.dumps(boxes)
    return Case(
        path=paths[0],
        files=found.files if found and not is_stack else tuple(paths),
        kind=found.kind if found else _kind_by_name(paths[0]),
        member=found.member if found else None,
        scan_id=first.get("scan_id") or f"{Path(names[0]).as_posix()}{point}",
        label=label,
        patient_id=_only_value(path, rows, "patient_id"),
        split=_split(path, rows),
        columns=columns,
        series_uid=found.series_uid if found and not is_stack else None,
        time_point=time_point,
        warnings=found.warnings if found and not is_stack else (),
    )


def _time_point(path: Path, rows: list[_Row]) -> int | None:
    value = _only_value(path, rows, "time_point")
    if value is not None and not value.isdecimal():
        raise ManifestError(
            f"{path}, line {rows[0].number}: time_point {value!r} is no whole number",
            "time points of a file count from 0",
        )
    return None if value is None else int(value)


def _look_at(path: str, is_stack: bool, warnings: list[str]) -> Case | None:
    """What imaging finds in a file or folder, None where it is missing or no scan.

    A row is one scan: of a folder with several series the one with the most files counts.
    """
    if (member := archive_member(path)) is not None:
        return member
    if not Path(path).exists() and MEMBER not in path:
        return None
    found = [case for case in find_scans([path]) if isinstance(case, Case)]
    if len(found) > 1 and not is_stack:
        warnings.append(
            f"{path} holds {len(found)} scans where the manifest has one row: "
            "the one with the most files is used"
        )
    return max(found, key=lambda case: len(case.files), default=None)


def _kind_by_name(path: str) -> Kind:
    """The reader that shall say what is wrong with a file that cannot be looked at."""
    if has_suffix(path, VOLUME_SUFFIXES):
        return "volume"
    return "dicom" if has_suffix(path, (".dcm", ".dicom")) else "picture"


def _files_in_order(path: Path, rows: list[_Row]) -> list[str]:
    """The files of one scan, each once, by ascending `slice`."""
    slices: dict[str, float] = {}
    if len({row.get("path") for row in rows}) == 1:
        return [rows[0].get("path")]
    for row in rows:
        name, position = row.get("path"), _slice(path, row)
        if slices.get(name, position) != position:
            raise ManifestError(
                f"{path}, line {row.number}: {name} stands at two slices of one scan",
                "give each file of a scan one slice",
            )
        if name not in slices and position in slices.values():
            raise ManifestError(
                f"{path}, line {row.number}: slice {row.get('slice')} "
                f"of scan {row.get('scan_id')!r} is taken by another file",
                "number the slices of a scan without repeats",
            )
        slices[name] = position
    return sorted(slices, key=slices.__getitem__)


def _slice(path: Path, row: _Row) -> float:
    text = row.get("slice")
    try:
        position = float(text)
    except ValueError:
        position = math.nan
    if not math.isfinite(position):
        what = f"slice {text!r} is no number" if text else "slice is missing"
        raise ManifestError(
            f"{path}, line {row.number}: {what}, and scan {row.get('scan_id')!r} has several files",
            "the column 'slice' puts the files of one scan_id in order",
        )
    return position


def _only_value(path: Path, rows: list[_Row], column: str) -> str | None:
    """The value that all rows of a scan agree on, blanks aside; None where all are blank."""
    values = {value: row.number for row in reversed(rows) if (value := row.get(column))}
    if len(values) > 1:
        lines = " and ".join(str(number) for number in sorted(values.values())[:2])
        raise ManifestError(
            f"{path}, lines {lines}: one scan with {len(values)} values of {column!r}",
            "rows of one scan must agree; give different scans a different scan_id",
        )
    return next(iter(values), None)


def _split(path: Path, rows: list[_Row]) -> str | None:
    value = _only_value(path, rows, "split")
    if value is None:
        return None
    if value.lower() not in SPLIT_NAMES:
        raise ManifestError(
            f"{path}, line {rows[0].number}: unknown split {value!r}",
            f"{closest(value, SPLIT_NAMES)}a split is train, val or test",
        )
    return SPLIT_NAMES[value.lower()]


def no_box(line: str, corners: Sequence[float | str]) -> ManifestError:
    """The error of corners that are no numbers."""
    return ManifestError(
        f"{line}: a box of {', '.join(map(repr, corners))}",
        "x0, y0, x1 and y1 are numbers, or all blank",
    )


def _lost_corners(path: Path, columns: Sequence[str]) -> list[str]:
    """What to say where some columns of the boxes are there and others are not."""
    missing = [name for name in BOX_COLUMNS if name not in columns]
    if len(missing) in (0, len(BOX_COLUMNS)):
        return []
    return [f"{path} has boxes, and no column {missing[0]!r}"]


def _boxes(
    path: Path, rows: list[_Row], files: list[str], any_boxes: bool
) -> list[list[float | str]]:
    """The boxes of a scan as ``[x0, y0, x1, y1, slice]``, in pixels, x1 and y1 exclusive.

    `slice` is the position of the row's file in the stack; in a file that is a stack
    itself it is what the row says, or 0.
    """
    boxes: list[list[float | str]] = []
    for row in rows:
        corners = [row.get(column) for column in BOX_COLUMNS]
        if not any(corners):
            continue
        position = files.index(row.get("path")) if len(files) > 1 else row.get("slice") or 0
        try:
            boxes.append([float(value) for value in (*corners, position)])
        except ValueError as error:
            if not any_boxes:
                raise no_box(f"{path}, line {row.number}", corners) from error
            boxes.append([*corners, position])
    return boxes
