"""`medcli explain`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from PIL import Image


@pytest.fixture
def scans(sample_folder: Path) -> list[Path]:
    """Stacks that the tiny run knows the kind of."""
    return sorted((sample_folder / "ct").iterdir())[:2]


def test_a_heat_map_as_json_and_picture(
    medcli: Callable[..., Any], tiny_run: Path, scans: list[Path]
) -> None:
    done = medcli("explain", scans[0], "-m", tiny_run, "--json", "-o", "heat.png")
    assert done.status == 0, done.err
    (answer,) = done.json
    assert answer["method"] == "gradcam"
    assert answer["label"] == answer["predicted"]
    if answer["peak"] is not None:
        assert sum(each["share"] for each in answer["slices"]) == pytest.approx(1)
    with Image.open("heat.png") as picture:
        assert picture.width > 400
    again = medcli("explain", scans[0], "-m", tiny_run, "-o", "heat.png")
    assert again.status == 2
    assert "--overwrite" in again.err


def test_the_heat_as_a_volume_has_the_geometry_of_the_scan(
    medcli: Callable[..., Any], tiny_run: Path, scans: list[Path]
) -> None:
    options = ("-m", tiny_run, "--method", "occlusion", "-o", "heat.nii.gz")
    assert medcli("explain", scans[0], *options).status == 0
    shape = medcli("inspect", scans[0], "--json").json[0]["shape"][:3]
    heat = sitk.ReadImage("heat.nii.gz")
    series = sitk.ImageSeriesReader()
    series.SetFileNames(series.GetGDCMSeriesFileNames(str(scans[0])))
    scan = series.Execute()
    assert list(reversed(heat.GetSize())) == shape
    np.testing.assert_allclose(heat.GetOrigin(), scan.GetOrigin(), atol=1e-3)
    np.testing.assert_allclose(heat.GetSpacing(), scan.GetSpacing(), atol=1e-3)
    values = sitk.GetArrayFromImage(heat)
    assert values.min() >= 0
    assert values.max() <= 1 + 1e-6
    assert [each["error"]["code"] for each in medcli("inspect", ".", "--json").json] == ["no_scans"]
    assert medcli("inspect", "heat.nii.gz").status == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--method", "gradcan"), "gradcam"),
        (("--label", "zebra"), "Its classes"),
        (("-o", "heat.bmp"), ".nii.gz"),
    ],
)
def test_options_that_cannot_be_used_say_what_can(
    medcli: Callable[..., Any],
    tiny_run: Path,
    scans: list[Path],
    options: tuple[str, ...],
    said: str,
) -> None:
    done = medcli("explain", scans[0], "-m", tiny_run, *options)
    assert done.status == 2
    assert said in done.err


def test_an_output_takes_one_scan(
    medcli: Callable[..., Any], tiny_run: Path, scans: list[Path]
) -> None:
    done = medcli("explain", *scans, "-m", tiny_run, "-o", "heat.png")
    assert done.status == 2
    assert "one by one" in done.err


def test_names_are_hidden(medcli: Callable[..., Any], tiny_run: Path, scans: list[Path]) -> None:
    done = medcli("explain", scans[0], "-m", tiny_run, "--hide-paths", "-o", "heat.png")
    assert scans[0].name not in done.out + done.err


def test_a_secondary_capture_names_no_path(
    medcli: Callable[..., Any], tiny_run: Path, scans: list[Path]
) -> None:
    pytest.importorskip("highdicom", reason="the extra highdicom is not installed")
    done = medcli("explain", scans[0], "-m", tiny_run, "-o", "heat.dcm")
    assert done.status == 0, done.err
    made = pydicom.dcmread("heat.dcm")
    assert made.SeriesDescription.startswith("medcli gradcam: ")
    assert made.pixel_array.shape[2] == 3
    assert scans[0].name not in str(made)
    source = pydicom.dcmread(next(scans[0].iterdir()), stop_before_pixels=True)
    assert made.StudyInstanceUID == source.StudyInstanceUID


def test_a_picture_has_no_study_for_a_capture(
    medcli: Callable[..., Any], tiny_run: Path, sample_folder: Path
) -> None:
    pytest.importorskip("highdicom", reason="the extra highdicom is not installed")
    query = sample_folder / "query.png"
    done = medcli("explain", query, "-m", tiny_run, "-o", "heat.dcm")
    assert done.status == 2
    assert "no DICOM" in done.err
    assert not Path("heat.dcm").exists()


def test_show_prints_no_picture_into_a_pipe(
    medcli: Callable[..., Any], tiny_run: Path, scans: list[Path]
) -> None:
    done = medcli("explain", scans[0], "-m", tiny_run, "--show")
    assert done.status == 0
    assert "▀" not in done.out
    assert "\x1b" not in done.out
    assert "terminal" in done.err
