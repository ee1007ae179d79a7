"""How each file of the public volume corpus ends: as the table says, and never worse than ITK.

The table lists every file: ok with its shape (slices, rows, columns, channels), skipped or
failed with a code. What fails is right to fail: three headers whose data file was never there,
a connectivity matrix (CIFTI), and a MINC file made with wrong dimensions.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from medcli.errors import ScanError
from medcli.imaging.discovery import Found, find_scans
from medcli.imaging.reader import read_scan
from medcli.records import Case

pytestmark = pytest.mark.real

TABLE = Path(__file__).with_name("outcomes_nifti.csv")
Row = tuple[str, str, str]  # outcome, code, shape


def outcome(found: Found) -> Row:
    if not isinstance(found, Case):
        return found.status, found.code, ""
    try:
        pixels = read_scan(found).pixels
    except ScanError as error:
        return "failed", error.code, ""
    assert np.isfinite(pixels).all()
    return "ok", "", "x".join(map(str, pixels.shape))


@pytest.fixture(scope="module")
def outcomes(real_data: Path) -> dict[str, Row]:
    """The outcome of every file, by its path under the folder of real data."""
    found = find_scans([str(real_data / "nifti")])
    return {
        Path(file).relative_to(real_data).as_posix(): ended
        for each, ended in ((each, outcome(each)) for each in found)
        for file in each.files
    }


def test_every_volume_file_ends_as_the_table_says(outcomes: dict[str, Row]) -> None:
    with TABLE.open(newline="") as file:
        rows = list(csv.DictReader(file))
    expected = {row["path"]: (row["outcome"], row["code"], row["shape"]) for row in rows}
    assert len(expected) == len(rows) == 244
    assert outcomes == expected


def test_no_volume_that_simpleitk_decodes_is_refused(
    real_data: Path, outcomes: dict[str, Row], capfd: pytest.CaptureFixture[str]
) -> None:
    refused = []
    for name, (ended, _, _) in outcomes.items():
        if ended != "ok":
            try:
                sitk.ReadImage(str(real_data / name))
            except RuntimeError:
                continue
            refused.append(name)
    assert refused == []
