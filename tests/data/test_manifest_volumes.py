"""Manifests that name time points of a volume, or members of an archive."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from medcli.data.manifest import read_manifest
from medcli.errors import ManifestError
from medcli.imaging.reader import read_scan

Write = Callable[..., Path]

TIMES = np.random.default_rng(0).integers(0, 999, (3, 4, 5, 6)).astype(np.int16)


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    image = sitk.JoinSeries([sitk.GetImageFromArray(values) for values in TIMES])
    path = tmp_path / "x.nii.gz"
    sitk.WriteImage(image, str(path))
    return path


def test_each_time_point_of_a_file_is_a_scan_of_its_own(write_csv: Write, volume: Path) -> None:
    path = write_csv("path,label,time_point", "x.nii.gz,rest,0", "x.nii.gz,task,2")
    rest, task = read_manifest(path).cases
    assert [(case.label, case.time_point) for case in (rest, task)] == [("rest", 0), ("task", 2)]
    assert [case.scan_id for case in (rest, task)] == ["x.nii.gz#0", "x.nii.gz#2"]
    for case, point in ((rest, 0), (task, 2)):
        np.testing.assert_array_equal(read_scan(case).pixels[..., 0], TIMES[point])


def test_a_time_point_that_is_no_whole_number_is_refused(write_csv: Write, volume: Path) -> None:
    with pytest.raises(ManifestError, match="line 2"):
        read_manifest(write_csv("path,time_point", "x.nii.gz,-1"))


def test_a_member_of_an_archive_can_stand_in_a_manifest(
    write_csv: Write, volume: Path, tmp_path: Path
) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(volume, "study/x.nii.gz")
    (case,) = read_manifest(write_csv("path,label", "a.zip!/study,x")).cases
    assert case.files == (f"{tmp_path / 'a.zip'}!/study/x.nii.gz",)
    np.testing.assert_array_equal(read_scan(case).pixels[..., 0], TIMES[0])
