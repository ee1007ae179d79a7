"""Converted data: the same values, labels and geometry, and nothing of a patient."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread

from medcli.data.convert import MANIFEST, Conversion, Target, convert_scans, is_conversion
from medcli.data.gathering import gather_cases
from medcli.data.sample_files import write_radiograph
from medcli.data.sources import load_cases
from medcli.errors import OutputExistsError, ScanError, UsageError
from medcli.imaging.batch import read_all
from medcli.imaging.discovery import CONVERTED
from medcli.imaging.hashing import pixel_sha256
from medcli.records import Case, Failure, Scan


def scans_of(*inputs: Path | str) -> list[Scan]:
    found = [scan for _, scan in read_all(gather_cases([str(each) for each in inputs]))]
    assert all(isinstance(scan, Scan) for scan in found)
    return [scan for scan in found if isinstance(scan, Scan)]


def rows_of(folder: Path, name: str = MANIFEST) -> list[dict[str, str]]:
    with (folder / name).open(newline="") as file:
        return list(csv.DictReader(file))


def convert(*inputs: Path | str, output: Path, to: Target, **options: object) -> Conversion:
    cases = gather_cases([str(each) for each in inputs])
    return convert_scans(cases, output, to, **options)  # type: ignore[arg-type]


def text_of(folder: Path) -> str:
    """Every name and every byte of a folder."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return "\n".join(str(path.relative_to(folder)) for path in files) + "".join(
        path.read_bytes().decode("latin-1") for path in files
    )


def test_series_become_volumes_with_the_same_values_places_and_labels(
    sample_folder: Path, tmp_path: Path
) -> None:
    manifest = sample_folder / "nodule.csv"
    done = convert(manifest, output=tmp_path / "out", to="nifti")
    before = load_cases([str(manifest)]).cases
    after = load_cases([str(tmp_path / "out")]).cases
    assert [case.label for case in after] == [case.label for case in before]
    assert [case.patient_id for case in after] == [case.patient_id for case in before]
    assert {case.columns["modality"] for case in after} == {"CT"}
    for (_, old), (_, new) in zip(read_all(before), read_all(after), strict=True):
        assert isinstance(old, Scan)
        assert isinstance(new, Scan)
        np.testing.assert_array_equal(new.pixels, old.pixels)
        np.testing.assert_allclose(new.affine, old.affine, atol=1e-3)
    assert all(not isinstance(result, Failure) for result in done.results)


def test_a_patient_that_only_tags_name_gets_a_number(sample_folder: Path, tmp_path: Path) -> None:
    secret = tmp_path / "DOE^JANE"
    shutil.copytree(sample_folder / "ct", secret)
    convert(secret, output=tmp_path / "out", to="png")
    rows = rows_of(tmp_path / "out")
    by_scan = {row["scan_id"]: row["patient_id"] for row in rows}
    assert len(by_scan) == 8
    # Two patients have two series each; the NIfTI among them names nobody.
    assert sorted(set(by_scan.values())) == ["", *(f"anon-000{n}" for n in range(1, 6))]
    written = text_of(tmp_path / "out")
    for private in ("DOE^JANE", "SYN-000", "1.2.826", "2.25."):
        assert private not in written


def test_a_patient_that_the_manifest_names_keeps_its_name_for_other_scans_too(
    sample_folder: Path, tmp_path: Path
) -> None:
    patient = scans_of(sample_folder / "scan.dcm")[0].patient_id
    shutil.copy(sample_folder / "query.png", tmp_path / "a.png")
    (tmp_path / "m.csv").write_text(f"path,patient_id\na.png,{patient}\n")
    convert(tmp_path / "m.csv", sample_folder / "scan.dcm", output=tmp_path / "out", to="nifti")
    assert [row["patient_id"] for row in rows_of(tmp_path / "out")] == [patient, patient]


def test_columns_and_splits_of_the_manifest_are_kept(sample_folder: Path, tmp_path: Path) -> None:
    shutil.copy(sample_folder / "query.png", tmp_path / "a.png")
    (tmp_path / "m.csv").write_text("path,label,split,site\na.png,x,val,Bonn\n")
    convert(tmp_path / "m.csv", output=tmp_path / "out", to="png")
    (row,) = rows_of(tmp_path / "out")
    assert (row["label"], row["split"], row["site"], row["patient_id"]) == ("x", "val", "Bonn", "")


def test_pngs_of_sixteen_bits_give_the_values_back(sample_folder: Path, tmp_path: Path) -> None:
    series = sample_folder / "ct" / "SYN-0001-1"
    convert(series, output=tmp_path / "out", to="png", bits=16)
    rows = rows_of(tmp_path / "out")
    (scan,) = scans_of(series)
    assert [int(row["slice"]) for row in rows] == list(range(len(scan.pixels)))
    assert float(rows[0]["spacing_z"]) == pytest.approx(scan.spacing_mm[0])
    for row, image in zip(rows, scan.pixels, strict=True):
        with Image.open(tmp_path / "out" / row["path"]) as png:
            values = np.asarray(png) * float(row["slope"]) + float(row["intercept"])
        np.testing.assert_array_equal(values, image[..., 0])
    (again,) = scans_of(tmp_path / "out" / MANIFEST)
    assert again.pixels.shape == scan.pixels.shape


def test_boxes_follow_their_slice(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(2):
        Image.fromarray(rng.integers(0, 255, (9, 9), np.uint8)).save(tmp_path / f"{number}.png")
    (tmp_path / "m.csv").write_text(
        "path,scan_id,slice,x0,y0,x1,y1\n0.png,s,0,,,,\n1.png,s,1,1,2,3,4\n1.png,s,1,5,6,7,8\n"
    )
    convert(tmp_path / "m.csv", output=tmp_path / "png", to="png")
    told = [(row["slice"], row["x0"], row["y1"]) for row in rows_of(tmp_path / "png")]
    assert told == [("0", "", ""), ("1", "1", "4"), ("1", "5", "8")]
    convert(tmp_path / "m.csv", output=tmp_path / "nii", to="nifti")
    for folder in ("png", "nii"):
        (case,) = load_boxes(tmp_path / folder / MANIFEST)
        assert case.columns["boxes"] == "[[1.0, 2.0, 3.0, 4.0, 1.0], [5.0, 6.0, 7.0, 8.0, 1.0]]"


def load_boxes(manifest: Path) -> list[Case]:
    return [case for case in gather_cases([str(manifest)]) if isinstance(case, Case)]


# One archive


@pytest.fixture
def pictures(tmp_path: Path) -> Callable[..., Path]:
    """A manifest of `count` pictures, every other one of class b, a patient each."""

    def write(count: int = 12, columns: str = "path,label,patient_id") -> Path:
        rng = np.random.default_rng(0)
        rows = []
        for number in range(count):
            pixels = rng.integers(0, 255, (20, 10), np.uint8)
            Image.fromarray(pixels).save(tmp_path / f"{number}.png")
            values = {
                "path": f"{number}.png",
                "label": "ab"[number % 2],
                "patient_id": f"P{number}",
            }
            rows.append(",".join(values[name] for name in columns.split(",")))
        (tmp_path / "m.csv").write_text("\n".join([columns, *rows]) + "\n")
        return tmp_path / "m.csv"

    return write


def test_an_archive_is_laid_out_as_medmnist_and_reads_back(
    tmp_path: Path, pictures: Callable[..., Path]
) -> None:
    done = convert(pictures(), output=tmp_path / "out", to="npz", size=16)
    with np.load(tmp_path / "out" / "scans.npz") as archive:
        counts = {part: len(archive[f"{part}_images"]) for part in ("train", "val", "test")}
        assert archive["train_images"].shape[1:] == (16, 16)
        assert archive["train_images"].dtype == np.uint8
        assert archive["train_labels"].shape == (counts["train"], 1)
        # Twice as high as wide: black on both sides, the picture in the middle.
        assert (archive["train_images"][:, :, :4] == 0).all()
        assert archive["train_images"][:, :, 4:12].any()
    assert sum(counts.values()) == 12
    assert min(counts.values()) >= 2
    assert any("split by patient" in note for note in done.notes)
    data = load_cases([str(tmp_path / "out" / "scans.npz")])
    assert data.classes == ("a", "b")
    labels = {row["member"]: row["label"] for row in rows_of(tmp_path / "out", "members.csv")}
    assert {str(case.member): case.label for case in data.cases} == labels


def test_a_split_that_is_given_is_kept(tmp_path: Path, pictures: Callable[..., Path]) -> None:
    manifest = pictures(4)
    lines = manifest.read_text().splitlines()
    parts = ["split", "train", "val", "test", "test"]
    manifest.write_text("\n".join(f"{line},{p}" for line, p in zip(lines, parts, strict=True)))
    convert(manifest, output=tmp_path / "out", to="npz", size=8)
    with np.load(tmp_path / "out" / "scans.npz") as archive:
        assert [len(archive[f"{part}_images"]) for part in ("train", "val", "test")] == [1, 1, 2]


def test_too_few_patients_to_split_go_into_the_training_part(
    tmp_path: Path, pictures: Callable[..., Path]
) -> None:
    done = convert(pictures(2), output=tmp_path / "out", to="npz", size=8)
    with np.load(tmp_path / "out" / "scans.npz") as archive:
        assert len(archive["train_images"]) == 2
        assert "test_images" not in archive
    assert "training part" in done.notes[0]


def test_stacks_become_cubes_and_a_single_slice_is_one_too(
    sample_folder: Path, tmp_path: Path
) -> None:
    inputs = (sample_folder / "ct" / "SYN-0001-1", sample_folder / "query.png")
    convert(*inputs, output=tmp_path / "out", to="npz", size=12)
    stack, single = scans_of(tmp_path / "out" / "scans.npz")
    assert stack.pixels.shape == single.pixels.shape == (12, 12, 12, 1)
    assert (single.pixels == single.pixels[:1]).all()
    assert not (stack.pixels == stack.pixels[:1]).all()


def test_grey_among_colour_becomes_colour(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(rng.integers(0, 255, (8, 8), np.uint8)).save(tmp_path / "b.png")
    convert(tmp_path / "a.png", tmp_path / "b.png", output=tmp_path / "out", to="npz", size=8)
    with np.load(tmp_path / "out" / "scans.npz") as archive:
        images = archive["train_images"]
    assert images.shape == (2, 8, 8, 3)
    with Image.open(tmp_path / "a.png") as image:
        np.testing.assert_array_equal(images[0], np.asarray(image))
    assert (images[1, ..., 0] == images[1, ..., 2]).all()


def test_labels_for_some_pictures_only_are_refused(
    tmp_path: Path, pictures: Callable[..., Path]
) -> None:
    manifest = pictures(4)
    manifest.write_text(manifest.read_text().replace("3.png,b", "3.png,"))
    with pytest.raises(UsageError, match="1 of 4 scans have no label"):
        convert(manifest, output=tmp_path / "out", to="npz")
    assert not (tmp_path / "out").exists()


# What goes wrong


def test_one_bad_scan_does_not_stop_the_others(sample_folder: Path, tmp_path: Path) -> None:
    failures: list[Failure] = []
    done = convert(
        "gone.dcm",
        sample_folder / "query.png",
        output=tmp_path / "out",
        to="png",
        on_failure=failures.append,
    )
    assert [isinstance(result, Failure) for result in done.results] == [True, False]
    assert [failure.code for failure in failures] == ["not_found"]
    assert len(rows_of(tmp_path / "out")) == 1


def test_nothing_readable_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(ScanError, match=r"gone\.dcm"):
        convert("gone.dcm", output=tmp_path / "out", to="nifti")
    assert list(tmp_path.iterdir()) == []


def test_only_what_a_conversion_wrote_is_replaced(sample_folder: Path, tmp_path: Path) -> None:
    query, out = sample_folder / "query.png", tmp_path / "out"
    convert(query, output=out, to="png")
    with pytest.raises(OutputExistsError, match="exists"):
        convert(query, output=out, to="nifti")
    convert(query, output=out, to="nifti", overwrite=True)
    assert not (out / "scan-0001.png").exists()
    (out / "mine.txt").write_text("work of years")
    assert not is_conversion(out)
    with pytest.raises(OutputExistsError, match="did not write"):
        convert(query, output=out, to="png", overwrite=True)
    assert (out / "mine.txt").read_text() == "work of years"


@pytest.mark.real
@pytest.mark.parametrize(
    "name", ["dicom/ct_series_philips/S21570/S2010", "nifti/totalsegmentator/example_ct_sm.nii.gz"]
)
def test_a_real_volume_comes_back_from_nifti(real_data: Path, tmp_path: Path, name: str) -> None:
    convert(real_data / name, output=tmp_path / "out", to="nifti")
    before, after = scans_of_volumes(real_data / name), scans_of_volumes(tmp_path / "out")
    assert [pixel_sha256(scan) for scan in after] == [pixel_sha256(scan) for scan in before]
    np.testing.assert_allclose(after[0].affine, before[0].affine, atol=1e-3)


def scans_of_volumes(path: Path) -> list[Scan]:
    """The scans below a path, whatever else lies there."""
    found = [scan for _, scan in read_all(gather_cases([str(path)]))]
    return [scan for scan in found if isinstance(scan, Scan)]


@pytest.mark.parametrize("to", ["nifti", "png", "npz"])
def test_converted_scans_are_found_where_their_folder_is_named_and_not_above_it(
    sample_folder: Path, tmp_path: Path, to: Target
) -> None:
    shutil.copytree(sample_folder / "ct", tmp_path / "data")
    before = gather_cases([str(tmp_path / "data")])
    out = tmp_path / "data" / "deep" / "converted"
    out.parent.mkdir()
    convert(tmp_path / "data", output=out, to=to)
    assert gather_cases([str(tmp_path / "data")]) == before
    if to != "npz":  # which is no folder of scans
        named = {each.files[0] for each in gather_cases([str(out)]) if isinstance(each, Case)}
        assert named == {str(out / row["path"]) for row in rows_of(out)}


@pytest.mark.parametrize("listing", ["as written", "[", "null"])
def test_a_scan_that_was_put_beside_converted_ones_is_found(
    sample_folder: Path, tmp_path: Path, listing: str
) -> None:
    out = tmp_path / "converted"
    convert(sample_folder / "query.png", output=out, to="png")
    shutil.copy(sample_folder / "query.png", out / "mine.png")
    if listing != "as written":
        (out / CONVERTED).write_text(listing)
    found = {Path(each.path).name for each in gather_cases([str(tmp_path)])}
    alone = {"mine.png"}
    assert found == (alone if listing == "as written" else {*alone, "scan-0001.png", MANIFEST})


@pytest.mark.parametrize("to", ["nifti", "png"])
def test_monochrome1_is_written_inverted_as_it_is_read(tmp_path: Path, to: Target) -> None:
    dark = tmp_path / "dark.dcm"
    bright = np.arange(0, 4096, 64, dtype=np.uint16).reshape(8, 8)
    write_radiograph(dark, bright, "MONOCHROME1", ("SYN-0001", "x"))
    stored = dcmread(dark).pixel_array
    convert(dark, output=tmp_path / "out", to=to, bits=16)
    (scan,) = scans_of(tmp_path / "out" / MANIFEST)
    np.testing.assert_array_equal(scan.pixels[0, ..., 0], 4095 - stored)
