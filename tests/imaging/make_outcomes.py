"""Write the table of how each file of the public DICOM corpus ends.

Run: python tests/imaging/make_outcomes.py DATA [TABLE]

Every file is read alone, as if in a folder of its own. Read the difference before you
commit the table: each line is a promise.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from medcli.errors import ScanError
from medcli.imaging.discovery import find_scans
from medcli.imaging.reader import read_scan
from medcli.records import Case

TABLE = Path(__file__).with_name("outcomes_dicom.csv")
COLUMNS = ("path", "outcome", "code", "shape", "unit")


def outcome(path: Path) -> tuple[str, str, str, str]:
    """Outcome, code, shape (slices, rows, columns, channels) and unit of one file."""
    with TemporaryDirectory() as folder:
        Path(folder, path.name).symlink_to(path)
        found = next(each for each in find_scans([folder]) if each.files)
        if not isinstance(found, Case):
            return found.status, found.code, "", ""
        try:
            scan = read_scan(found)
        except ScanError as error:
            return "failed", error.code, "", ""
    return "ok", "", "x".join(map(str, scan.pixels.shape)), scan.unit


def outcomes(data: Path) -> list[tuple[str, ...]]:
    """A row for every file below DATA/dicom."""
    files = sorted(path for path in (data / "dicom").rglob("*") if path.is_file())
    return [(path.relative_to(data).as_posix(), *outcome(path)) for path in files]


def main() -> None:
    rows = outcomes(Path(sys.argv[1]).resolve())
    table = Path(sys.argv[2]) if len(sys.argv) > 2 else TABLE
    with table.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])


if __name__ == "__main__":
    main()
