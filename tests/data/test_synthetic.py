from __future__ import annotations

import csv
import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from PIL import Image

from medcli.data.manifest import read_manifest
from medcli.data.phantoms import CT_SHAPE, CT_SPACING, chest_ct
from medcli.data.splits import split_by_patient
from medcli.data.synthetic import TASKS, write_sample_data
from medcli.imaging.discovery import find_scans
from medcli.records import Case

COMMITTED = Path(__file__).parents[2] / "sample_data"


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sample_data(tmp_path_factory.mktemp("sample")).parent


def files(folder: Path) -> dict[str, Path]:
    return {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def pixels(path: Path) -> np.ndarray:
    if path.suffix == ".dcm":
        return pydicom.dcmread(path).pixel_array
    if path.suffix == ".gz":
        return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    return np.asarray(Image.open(path))


def test_the_committed_folder_is_what_the_generator_writes(sample: Path) -> None:
    written, committed = files(sample), files(COMMITTED)
    assert written.keys() == committed.keys()
    for name, path in written.items():
        if path.suffix in {".csv", ".md"}:
            assert path.read_text() == committed[name].read_text(), name
        else:
            # Encoders differ between library versions, and a rounding may tip over.
            difference = pixels(path).astype(float) - pixels(committed[name])
            assert np.abs(difference).max() <= (8 if path.suffix == ".jpg" else 1), name


def test_the_committed_folder_is_small() -> None:
    assert sum(path.stat().st_size for path in files(COMMITTED).values()) < 5_000_000


def test_a_seed_writes_the_same_bytes_again_and_another_seed_does_not(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("a", "b", "c")]
    for folder, seed, patients in zip(folders, (4, 4, 5), (5, 5, 1), strict=True):
        write_sample_data(folder, seed=seed, patients=patients)
    first, again, other = ({n: digest(p) for n, p in files(f).items()} for f in folders)
    assert first == again
    drawn = [name for name in other.keys() & first.keys() if name.endswith((".dcm", ".jpg"))]
    assert drawn
    assert all(other[name] != first[name] for name in drawn)


def test_a_ct_series_has_geometry_units_and_a_label_that_says_synthetic(sample: Path) -> None:
    slices = [pydicom.dcmread(path) for path in (sample / "ct" / "SYN-0001-1").iterdir()]
    slices.sort(key=lambda file: file.ImagePositionPatient[2])
    assert len(slices) == CT_SHAPE[0]
    steps = np.diff([file.ImagePositionPatient[2] for file in slices])
    np.testing.assert_allclose(steps, CT_SPACING[0], atol=1e-3)
    assert len({file.SeriesInstanceUID for file in slices}) == 1
    assert len({file.SOPInstanceUID for file in slices}) == len(slices)
    for file in slices:
        assert file.SOPInstanceUID.is_valid
        assert file.SOPInstanceUID == file.file_meta.MediaStorageSOPInstanceUID
        assert list(file.ImageOrientationPatient) == [1, 0, 0, 0, 1, 0]
        assert list(file.PixelSpacing) == list(CT_SPACING[1:])
        assert file.PatientID == "SYN-0001"
        assert file.SeriesDescription == "SYNTHETIC"
        assert "SYNTHETIC" in file.ImageComments
    hu = np.stack([pydicom.pixels.apply_rescale(file.pixel_array, file) for file in slices])
    assert hu.min() < -800
    assert 0 < hu.max() < 3071
    assert np.median(hu) == pytest.approx(-850, abs=60)


def test_monochrome1_stores_dense_tissue_dark(sample: Path) -> None:
    films = [pydicom.dcmread(path) for path in (sample / "radiograph").glob("*.dcm")]
    kinds = Counter(film.PhotometricInterpretation for film in films)
    assert min(kinds["MONOCHROME1"], kinds["MONOCHROME2"]) >= 2
    for film in films:
        stored = film.pixel_array
        assert film.BitsStored == 12
        assert stored.max() <= 4095
        air, spine = stored[2, 2], stored[100, 64]
        assert (air > spine) == (film.PhotometricInterpretation == "MONOCHROME1")


def test_pictures_are_16_bit_grey_and_8_bit_colour(sample: Path) -> None:
    png = next((sample / "radiograph").glob("*.png"))
    assert pixels(png).dtype == np.uint16
    assert pixels(png).max() > 40000
    assert all(pixels(path).shape == (128, 128, 3) for path in (sample / "endoscopy").iterdir())
    assert pixels(sample / "query.png").dtype == np.uint8


def test_the_nifti_volume_has_the_geometry_of_its_series(sample: Path) -> None:
    image = sitk.ReadImage(str(sample / "ct" / "SYN-0005-1.nii.gz"))
    assert image.GetSize() == CT_SHAPE[::-1]
    assert image.GetSpacing() == pytest.approx(CT_SPACING[::-1], abs=1e-5)


def test_the_query_is_a_slice_of_an_indexed_series_seen_in_a_lung_window(sample: Path) -> None:
    query = pixels(sample / "query.png").astype(float)
    stored = [pixels(path).astype(float) for path in (sample / "ct" / "SYN-0001-1").iterdir()]
    shown = [np.clip((slice_ - 1024 + 600) / 1500 + 0.5, 0, 1) * 255 for slice_ in stored]
    assert min(np.abs(query - view).max() for view in shown) <= 0.5


def test_the_example_scan_is_of_no_patient_in_the_manifest(sample: Path) -> None:
    scan = pydicom.dcmread(sample / "scan.dcm")
    manifest = read_manifest(sample / "manifest.csv")
    assert scan.PatientID not in {case.patient_id for case in manifest.cases}


@pytest.mark.parametrize("task", TASKS)
def test_each_task_has_patients_for_a_split_and_balanced_classes(sample: Path, task: str) -> None:
    with (sample / f"{task}.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len({row["patient_id"] for row in rows}) == 10
    assert len(rows) > 10
    labels = Counter(row["label"] for row in rows)
    assert len(labels) == 2
    assert max(labels.values()) - min(labels.values()) <= 2
    assert all((sample / row["path"]).exists() for row in rows)
    split = split_by_patient(read_manifest(sample / f"{task}.csv", require_label=True).cases)
    assert split.train
    assert split.val
    assert split.test


def test_one_task_can_be_written_alone(tmp_path: Path) -> None:
    manifest = write_sample_data(tmp_path, patients=4, tasks=("lung",))
    assert {case.columns["task"] for case in read_manifest(manifest).cases} == {"lung"}
    assert not (tmp_path / "ct").exists()


def test_the_diameter_does_not_tell_the_classes_apart() -> None:
    diameters = {
        malignant: [
            chest_ct(np.random.default_rng(i), np.random.default_rng(i), malignant).diameter_mm
            for i in range(30)
        ]
        for malignant in (False, True)
    }
    larger = np.greater.outer(diameters[True], diameters[False]).mean()
    assert 0.4 < larger < 0.7


def test_imaging_finds_every_scan_of_the_folder(sample: Path) -> None:
    listed = read_manifest(sample / "manifest.csv").cases
    found = [case for case in find_scans([str(sample)]) if isinstance(case, Case)]
    examples = {str(sample / name) for name in ("scan.dcm", "query.png")}
    assert sorted((case.kind, case.files) for case in listed) == sorted(
        (case.kind, case.files) for case in found if not examples & set(case.files)
    )
    assert Counter(case.kind for case in listed)["volume"] == 1
