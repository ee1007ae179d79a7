"""How each file of the public DICOM corpus ends, and that its values are those of others.

The table lists every file, read as a scan of its own; `make_outcomes.py` writes it anew.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import medcli
from medcli.imaging.reader import read_scan

pytestmark = pytest.mark.real

HERE = Path(__file__).parent

# Where one of the others reads something else, the second one agrees with medcli.
PYDICOM_IS_WRONG = {"OBXXXX1A_expb.dcm"}  # leaves the palette of a big-endian file unswapped
# Single bits in RLE, and frames that are deflated one by one: neither of them decodes these.
MEDCLI_ALONE = {
    "liver_rle.dcm",
    "liver_nonbyte_aligned_rle.dcm",
    "liver_deflate.dcm",
    "liver_nonbyte_aligned_deflate.dcm",
}
SIMPLEITK_IS_WRONG = {
    "mlut_18.dcm",  # does not apply the modality lookup table
    "SC_rgb_rle_16bit.dcm",  # mixes up the bytes of run-length coded colour
    "SC_rgb_rle_16bit_2frame.dcm",
    "SC_rgb_rle_32bit.dcm",
    "SC_rgb_rle_32bit_2frame.dcm",
    "rtdose_expb.dcm",  # leaves 32-bit big-endian values unswapped
}


def rows(lines: list[str]) -> dict[str, dict[str, str]]:
    return {row["path"]: row for row in csv.DictReader(lines)}


@pytest.fixture(scope="module")
def table() -> dict[str, dict[str, str]]:
    return rows((HERE / "outcomes_dicom.csv").read_text(encoding="utf-8").splitlines())


def run(script: str, *arguments: str) -> str:
    """The output of a script beside this file, with the medcli under test."""
    command = [sys.executable, str(HERE / script), *arguments]
    environment = os.environ | {"PYTHONPATH": str(Path(medcli.__file__).parents[1])}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=300, check=True
    )
    return done.stdout


@pytest.fixture(scope="module")
def compared(real_data: Path) -> list[dict[str, str]]:
    """A line for each file with pixel data, from a process of its own: GDCM may end it."""
    lines = run("compare_dicom.py", str(real_data)).splitlines()
    return [json.loads(line) for line in lines]


def test_every_dicom_file_ends_as_the_table_says(
    real_data: Path, table: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    run("make_outcomes.py", str(real_data), str(tmp_path / "table.csv"))
    ended = rows((tmp_path / "table.csv").read_text(encoding="utf-8").splitlines())
    assert len(table) == 327
    assert ended == table


def test_only_images_fail_and_what_is_no_image_is_skipped(table: dict[str, dict[str, str]]) -> None:
    """Reports, plans, structure sets, waveforms, palettes and directories are not corrupt."""
    skipped = {path.rsplit("/", 1)[1] for path, row in table.items() if row["outcome"] == "skipped"}
    assert skipped >= {
        "test-SR.dcm",
        "reportsi.dcm",
        "rtplan.dcm",
        "rtstruct.dcm",
        "waveform_ecg.dcm",
        "hotiron.dcm",
        "DICOMDIR",
    }
    assert {row["code"] for row in table.values() if row["outcome"] == "skipped"} == {"no_pixels"}


def test_no_file_that_pydicom_or_simpleitk_decodes_is_refused(
    compared: list[dict[str, str]],
) -> None:
    decoded = [row for row in compared if {row["pydicom"], row["simpleitk"]} != {"fails"}]
    assert len(decoded) >= 228
    assert [row for row in decoded if row["medcli"] != "ok"] == []


def test_values_are_those_of_pydicom_and_simpleitk(compared: list[dict[str, str]]) -> None:
    """And of at least one of them in every file that either decodes."""
    wrong: dict[str, set[str]] = {"pydicom": set(), "simpleitk": set()}
    for row in compared:
        if row["medcli"] != "ok":
            continue
        answers = {other: row[other] for other in wrong}
        if Path(row["path"]).name in MEDCLI_ALONE:
            continue
        assert any(answer.startswith("same") for answer in answers.values()), row
        for other, answer in answers.items():
            if not answer.startswith(("same", "fails")):
                wrong[other].add(Path(row["path"]).name)
    assert wrong == {"pydicom": PYDICOM_IS_WRONG, "simpleitk": SIMPLEITK_IS_WRONG}


@pytest.mark.parametrize("name", sorted(MEDCLI_ALONE))
def test_what_medcli_alone_decodes_is_what_the_plain_file_holds(
    real_data: Path, file_case: Any, name: str
) -> None:
    folder = real_data / "dicom" / "pydicom_data"
    plain = "liver_nonbyte_aligned.dcm" if "nonbyte" in name else "liver.dcm"
    packed, whole = (read_scan(file_case(folder / each, "dicom")) for each in (name, plain))
    np.testing.assert_array_equal(packed.pixels, whole.pixels)
