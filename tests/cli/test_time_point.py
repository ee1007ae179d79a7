"""`--time-point`: which volume of a file with several is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """`several.nii` of three volumes of one value each, and `one.nii`."""
    volumes = [np.full((3, 16, 16), value, np.int16) for value in (10, 20, 30)]
    for number, volume in enumerate(volumes):
        volume[0, 0, 0] = number
    (tmp_path / "scans").mkdir()
    images = [sitk.GetImageFromArray(volume) for volume in volumes]
    sitk.WriteImage(sitk.JoinSeries(images), tmp_path / "scans" / "several.nii")
    sitk.WriteImage(images[0], tmp_path / "scans" / "one.nii")
    return tmp_path / "scans"


def test_inspect_shows_the_time_point_asked_for(medcli: Any, folder: Path) -> None:
    result = medcli("inspect", folder, "--time-point", 2, "--json")
    one, several = result.json
    assert result.status == 0
    assert (one["intensity"]["max"], several["intensity"]["max"]) == (10, 30)
    assert "first_time_point" not in [each["code"] for each in several["warnings"]]
    _, first = medcli("inspect", folder, "--json").json
    assert first["intensity"]["max"] == 10
    assert "first_time_point" in [each["code"] for each in first["warnings"]]


def test_a_time_point_that_is_not_there_is_named(medcli: Any, folder: Path) -> None:
    result = medcli("inspect", folder / "several.nii", "--time-point", 3, "--json")
    assert result.status == 3
    assert result.json[0]["error"]["code"] == "not_found"


def test_data_convert_writes_it(medcli: Any, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    several = folder / "several.nii"
    done = medcli("data", "convert", several, "-o", out, "--to", "nifti", "--time-point", 1)
    assert done.status == 0
    assert sitk.GetArrayFromImage(sitk.ReadImage(out / "scan-0001.nii.gz")).max() == 20


@pytest.mark.parametrize(
    "command",
    [("inspect",), ("classify",), ("search",), ("index", "build"), ("index", "add"),
     ("data", "check"), ("data", "convert")],
)  # fmt: skip
def test_every_command_that_reads_scans_has_the_option(medcli: Any, command: Any) -> None:
    assert "--time-point" in medcli(*command, "--help").out
