"""Public test files, whole and broken: every one ends as ok, skipped or failed with a code."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from medcli.codes import ERRORS, WARNINGS
from medcli.errors import ScanError
from medcli.imaging.discovery import Found, find_scans
from medcli.imaging.reader import read_scan
from medcli.records import Case, Scan

pytestmark = pytest.mark.real


def only_series(folder: Path) -> Scan:
    (case,) = [found for found in find_scans([str(folder)]) if isinstance(found, Case)]
    return read_scan(case)


def outcome(found: Found) -> str:
    """How an input ends, in time and with nothing but listed codes."""
    start = time.monotonic()
    status, code = "ok", ""
    if isinstance(found, Case):
        try:
            scan = read_scan(found)
        except ScanError as error:
            status, code = "failed", error.code
    else:
        status, code = found.status, found.code
    assert time.monotonic() - start < 10
    if status != "ok":
        assert code in ERRORS
        return status
    assert scan.pixels.ndim == 4
    assert np.isfinite(scan.pixels).all()
    assert len(scan.slice_files) == len(scan.pixels)
    assert {warning.code for warning in scan.warnings} <= WARNINGS.keys()
    return status


@pytest.mark.parametrize("corpus", ["dicom", "nifti"])
def test_every_file_of_a_corpus_is_accounted_for(real_data: Path, corpus: str) -> None:
    found = find_scans([str(real_data / corpus)])
    listed = Counter(file for each in found for file in each.files)
    assert set(listed.values()) == {1}
    visible = {str(path) for path in (real_data / corpus).rglob("*") if path.is_file()}
    assert set(listed) == {path for path in visible if "/." not in path}
    outcomes = Counter(outcome(each) for each in found)
    assert outcomes["ok"] >= {"dicom": 145, "nifti": 188}[corpus]


def test_a_ct_series_with_blank_ids_is_read_as_one(real_data: Path) -> None:
    scan = only_series(real_data / "dicom" / "totalsegmentator" / "example_ct_dicom")
    assert scan.pixels.shape == (20, 512, 512, 1)
    assert (scan.modality, scan.unit, scan.patient_id, scan.series_uid) == ("CT", "HU", None, None)
    assert scan.spacing_mm == (2.0, 0.9765625, 0.9765625)
    assert scan.affine is not None
    np.testing.assert_allclose(scan.affine[:3, 3], [-249.51171875, -437.51171875, -804.5])
    assert scan.warnings == ()
    assert scan.pixels.min() >= -1024


def test_a_philips_head_ct_has_the_right_geometry(real_data: Path) -> None:
    scan = only_series(real_data / "dicom" / "ct_series_philips" / "S21570" / "S2010")
    assert scan.pixels.shape == (28, 512, 512, 1)
    assert scan.spacing_mm == (5.0, 0.451171875, 0.451171875)
    assert (scan.modality, scan.unit, scan.window) == ("CT", "HU", (40.0, 80.0))
    assert scan.warnings == ()


def test_slices_agree_with_simpleitk(real_data: Path) -> None:
    """An independent reader: GDCM through SimpleITK, sorted by GDCM."""
    import SimpleITK as sitk

    scan = only_series(real_data / "dicom" / "ct_series_philips" / "S21570" / "S2010")
    image = sitk.ReadImage(list(scan.slice_files))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), scan.pixels[..., 0])
    np.testing.assert_allclose(image.GetSpacing()[::-1], scan.spacing_mm, atol=1e-4)
    assert scan.affine is not None
    np.testing.assert_allclose(image.GetOrigin(), scan.affine[:3, 3], atol=1e-4)
    ordered = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(Path(scan.slice_files[0]).parent))
    assert tuple(ordered) == scan.slice_files
