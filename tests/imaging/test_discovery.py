"""What is found in files, folders and patterns."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medcli.imaging.discovery import Found, find_scans
from medcli.imaging.formats import OWN_DESCRIPTION
from medcli.imaging.nifti_writer import write_nifti
from medcli.records import Case, Failure, Scan


def cases(found: list[Found]) -> list[Case]:
    return [each for each in found if isinstance(each, Case)]


def failures(found: list[Found]) -> list[tuple[str, str, str]]:
    return [
        (Path(each.path).name, each.status, each.code)
        for each in found
        if isinstance(each, Failure)
    ]


def save_picture(path: Path) -> str:
    Image.fromarray(np.zeros((4, 5), np.uint8)).save(path)
    return str(path)


def test_a_folder_of_files_without_extension_is_one_series(
    tmp_path: Path, write_ct_series: Any, hu_volume: Any
) -> None:
    paths = write_ct_series(tmp_path / "ct", hu_volume(4), SeriesInstanceUID="1.2.3")
    (found,) = find_scans([str(tmp_path)])
    assert isinstance(found, Case)
    assert found.path == str(tmp_path / "ct")
    assert found.files == tuple(paths)
    assert (found.kind, found.scan_id, found.series_uid) == ("dicom", "1.2.3", "1.2.3")


def test_each_named_dicom_file_is_a_scan_of_its_own(
    tmp_path: Path, write_ct_series: Any, hu_volume: Any
) -> None:
    paths = write_ct_series(tmp_path, hu_volume(3))
    found = cases(find_scans(paths))
    assert [case.path for case in found] == paths
    assert len({case.scan_id for case in found}) == 3


def test_two_series_in_one_folder_are_two_scans(
    tmp_path: Path, write_ct_series: Any, hu_volume: Any
) -> None:
    write_ct_series(tmp_path, hu_volume(3), SeriesInstanceUID="1.1")
    second = [
        os.rename(path, f"{path}b") or f"{path}b"
        for path in write_ct_series(tmp_path / "x", hu_volume(2), SeriesInstanceUID="1.2")
    ]
    for path in second:
        os.rename(path, tmp_path / Path(path).name)
    found = cases(find_scans([str(tmp_path)]))
    assert [(case.path, len(case.files), case.scan_id) for case in found] == [
        (str(tmp_path), 3, "1.1"),
        (str(tmp_path), 2, "1.2"),
    ]


def test_orientations_of_one_series_are_parted_but_strays_stay(
    tmp_path: Path, write_ct_series: Any, hu_volume: Any
) -> None:
    common = {"SeriesInstanceUID": "1.1", "FrameOfReferenceUID": "1.5", "StudyInstanceUID": "1.0"}
    sagittal = (0, 1, 0, 0, 0, -1)
    coronal = (1, 0, 0, 0, 0, -1)
    write_ct_series(tmp_path, hu_volume(5), **common)
    for name, orientation, count in (("s", sagittal, 4), ("c", coronal, 1)):
        for path in write_ct_series(
            tmp_path / name, hu_volume(count), orientation=orientation, **common
        ):
            os.rename(path, tmp_path / f"{name}{Path(path).name}")
    found = cases(find_scans([str(tmp_path)]))
    assert sorted(len(case.files) for case in found) == [4, 6]
    assert {case.scan_id for case in found} == {"1.1", "1.1~2"}


def test_radiographs_of_one_series_are_scans_of_their_own(tmp_path: Path, write_dicom: Any) -> None:
    for name in ("pa", "lateral"):
        write_dicom(
            tmp_path / name, np.zeros((4, 4), np.uint16), Modality="DX", SeriesInstanceUID="1.1"
        )
    found = cases(find_scans([str(tmp_path)]))
    assert [Path(case.path).name for case in found] == ["lateral", "pa"]


def test_scans_without_uids_get_an_id_that_survives_a_move(
    tmp_path: Path, write_ct_series: Any, hu_volume: Any
) -> None:
    blank = dict.fromkeys(("SeriesInstanceUID", "StudyInstanceUID"))
    write_ct_series(tmp_path / "a" / "one", hu_volume(3), **blank, FrameOfReferenceUID="1.7")
    (before,) = cases(find_scans([str(tmp_path)]))
    os.rename(tmp_path / "a", tmp_path / "b")
    (after,) = cases(find_scans([str(tmp_path)]))
    assert before.scan_id == after.scan_id
    assert before.series_uid is None
    assert before.path != after.path


def test_without_uids_two_reconstructions_in_one_folder_stay_apart(
    tmp_path: Path, write_ct_series: Any, hu_volume: Any
) -> None:
    blank = dict.fromkeys(("SeriesInstanceUID", "StudyInstanceUID"))
    common = {**blank, "FrameOfReferenceUID": "1.7"}
    write_ct_series(tmp_path, hu_volume(5), SliceThickness="1", **common)
    for path in write_ct_series(tmp_path / "x", hu_volume(3), SliceThickness="5", **common):
        os.rename(path, tmp_path / f"thick{Path(path).name}")
    found = cases(find_scans([str(tmp_path)]))
    assert sorted(len(case.files) for case in found) == [3, 5]
    assert len({case.scan_id for case in found}) == 2


def test_the_same_series_in_two_folders_gets_two_ids(
    tmp_path: Path, write_ct_series: Any, hu_volume: Any
) -> None:
    for name in ("a", "b"):
        write_ct_series(tmp_path / name, hu_volume(2), SeriesInstanceUID="1.1")
    assert [case.scan_id for case in cases(find_scans([str(tmp_path)]))] == ["1.1", "1.1~2"]


@pytest.mark.parametrize("explicit", [True, False])
def test_what_is_no_image_is_failed_if_named_and_skipped_in_a_folder(
    tmp_path: Path, explicit: bool
) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    save_picture(tmp_path / "x.png")
    named = find_scans([str(tmp_path / "notes.txt")], explicit=explicit)
    assert failures(named) == [("notes.txt", "failed" if explicit else "skipped", "not_an_image")]
    walked = find_scans([str(tmp_path)])
    assert failures(walked) == [("notes.txt", "skipped", "not_an_image")]


def test_content_decides_not_the_name(tmp_path: Path, write_dicom: Any) -> None:
    write_dicom(tmp_path / "really.png", np.zeros((4, 4), np.uint16))
    os.rename(save_picture(tmp_path / "x.png"), tmp_path / "y.dcm")
    kinds = {Path(case.path).name: case.kind for case in cases(find_scans([str(tmp_path)]))}
    assert kinds == {"really.png": "dicom", "y.dcm": "picture"}


@pytest.mark.parametrize("content", [b"", bytes(114), bytes(600)])
def test_a_blank_file_is_truncated_where_it_was_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "I10").write_bytes(content)
    assert failures(find_scans([str(tmp_path / "I10")])) == [("I10", "failed", "truncated")]
    assert ("I10", "skipped", "not_an_image") in failures(find_scans([str(tmp_path)]))


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".bmp"])
def test_a_picture_cut_within_its_signature_is_truncated(tmp_path: Path, suffix: str) -> None:
    whole = Path(save_picture(tmp_path / f"whole{suffix}")).read_bytes()
    for count in range(1, 9 if suffix == ".png" else 3):
        (tmp_path / f"{count}{suffix}").write_bytes(whole[:count])
        (found,) = find_scans([str(tmp_path / f"{count}{suffix}")])
        if isinstance(found, Case):  # enough to tell a picture from: the reader names it
            assert count == 8
        else:
            assert (found.status, found.code) == ("failed", "truncated")
    (tmp_path / "letter.png").write_bytes(b"Dear")
    assert failures(find_scans([str(tmp_path / "letter.png")]))[0][2] == "not_an_image"


def test_a_picture_by_name_only_has_failed_even_in_a_folder(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "preamble.dcm").write_bytes(bytes(100))
    (tmp_path / "text.dcm").write_text("no image at all")
    assert failures(find_scans([str(tmp_path)])) == [
        ("empty.png", "failed", "truncated"),
        ("preamble.dcm", "failed", "truncated"),
        ("text.dcm", "failed", "not_an_image"),
    ]


def test_objects_without_pixels_are_skipped_even_if_named(tmp_path: Path, write_dicom: Any) -> None:
    nothing = dict.fromkeys(("PixelData", "Rows", "Columns"))
    path = write_dicom(tmp_path / "sr.dcm", np.zeros((2, 2), np.uint16), Modality="SR", **nothing)
    assert failures(find_scans([path])) == [("sr.dcm", "skipped", "no_pixels")]


def test_a_missing_path_and_a_pattern_without_match_are_named(tmp_path: Path) -> None:
    found = find_scans([str(tmp_path / "nothing.dcm"), str(tmp_path / "*.dcm")])
    assert failures(found) == [
        ("nothing.dcm", "failed", "not_found"),
        ("*.dcm", "failed", "not_found"),
    ]


def test_patterns_are_expanded_in_order_but_existing_names_win(tmp_path: Path) -> None:
    for name in ("b.png", "a.png", "c[1].png"):
        save_picture(tmp_path / name)
    found = cases(find_scans([str(tmp_path / "*.png"), str(tmp_path / "c[1].png")]))
    assert [Path(case.path).name for case in found] == ["a.png", "b.png", "c[1].png", "c[1].png"]
    assert len({case.scan_id for case in found}) == 4


def test_input_order_is_kept(tmp_path: Path) -> None:
    names = [save_picture(tmp_path / f"{name}.png") for name in "zamb"]
    assert [case.path for case in cases(find_scans(names))] == names


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    assert [each.code for each in find_scans([str(tmp_path)]) if isinstance(each, Failure)] == [
        "no_scans"
    ]


def test_hidden_files_and_own_outputs_are_passed_over(tmp_path: Path) -> None:
    save_picture(tmp_path / "seen.png")
    save_picture(tmp_path / ".hidden.png")
    for folder, markers in (
        ("run", ("model.json", "graph.onnx")),
        ("gallery", ("catalogue.sqlite",)),
    ):
        (tmp_path / folder / "thumbnails").mkdir(parents=True)
        save_picture(tmp_path / folder / "thumbnails" / "t.png")
        for marker in markers:
            (tmp_path / folder / marker).touch()
    found = find_scans([str(tmp_path)])
    assert [Path(each.path).name for each in found] == ["seen.png"]


def test_heat_maps_are_scans_only_where_they_are_named(tmp_path: Path, write_dicom: Any) -> None:
    noise = np.random.default_rng(0).random((4, 9, 9, 1)).astype(np.float32)
    scan = Scan(noise, "x", ("x",), ("x",) * 4, "x", "nifti")
    picture = np.zeros((8, 8, 3), np.uint8)
    maker = {"Manufacturer": "medcli", "ManufacturerModelName": "medcli", "Modality": "OT"}
    root = tmp_path / "root"
    for folder in (root / "below", root):
        folder.mkdir(exist_ok=True, parents=True)
        for name in ("heat.nii", "heat.nii.gz"):
            write_nifti(folder / name, scan, OWN_DESCRIPTION)
        write_dicom(folder / "heat.dcm", picture, **maker)
    write_nifti(root / "scan.nii.gz", scan)
    write_dicom(root / "synthetic.dcm", picture, Manufacturer="medcli", Modality="OT")
    archive = shutil.make_archive(str(tmp_path / "all"), "zip", root, ".")
    found = find_scans([str(root), archive])
    assert [Path(each.path).name for each in cases(found)] == ["scan.nii.gz", "synthetic.dcm"] * 2
    for name in ("heat.nii", "heat.nii.gz", "heat.dcm"):
        assert len(cases(find_scans([str(root / name)]))) == 1


def test_links_that_lead_nowhere_pipes_and_devices_are_named_but_never_opened(
    tmp_path: Path,
) -> None:
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    save_picture(deep / "x.png")
    (deep / "up").symlink_to(tmp_path, target_is_directory=True)
    (deep / "circle").symlink_to(deep / "circle")
    (deep / "gone.png").symlink_to(tmp_path / ".git" / "annex" / "gone.png")
    (deep / ".hidden").symlink_to(tmp_path / "gone")
    (deep / "zero.dcm").symlink_to("/dev/zero")
    os.mkfifo(deep / "pipe.dcm")
    start = time.monotonic()
    found = find_scans([str(tmp_path)])
    assert [Path(case.path).name for case in cases(found)] == ["x.png"]
    assert failures(found) == [
        ("circle", "failed", "not_found"),
        ("gone.png", "failed", "not_found"),
        ("pipe.dcm", "skipped", "not_an_image"),
        ("zero.dcm", "skipped", "not_an_image"),
    ]
    (gone,) = (each for each in found if each.path.endswith("gone.png"))
    assert isinstance(gone, Failure)
    assert "git annex get" in gone.message
    named = find_scans([str(deep / name) for name in ("pipe.dcm", "zero.dcm", "circle")])
    assert [(status, code) for _, status, code in failures(named)] == [
        *[("failed", "not_an_image")] * 2,
        ("failed", "not_found"),
    ]
    assert time.monotonic() - start < 2


def test_names_that_are_no_unicode_survive(tmp_path: Path) -> None:
    name = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png")
    Image.fromarray(np.zeros((4, 5), np.uint8)).save(tmp_path / "x.png")
    os.rename(tmp_path / "x.png", name)
    assert [case.path for case in cases(find_scans([str(tmp_path)]))] == [name]


def test_one_damaged_file_does_not_hide_the_series(
    tmp_path: Path, write_ct_series: Any, hu_volume: Any
) -> None:
    paths = write_ct_series(tmp_path, hu_volume(4))
    data = Path(paths[3]).read_bytes()
    Path(paths[3]).write_bytes(data[:400])
    found = find_scans([str(tmp_path)])
    assert [len(case.files) for case in cases(found)] == [3]
    assert failures(found) == [("IM0003", "failed", "truncated")]


def test_every_file_of_a_folder_is_accounted_for(
    tmp_path: Path, write_ct_series: Any, hu_volume: Any
) -> None:
    write_ct_series(tmp_path / "ct", hu_volume(3))
    save_picture(tmp_path / "p.png")
    (tmp_path / "t.txt").write_text("x")
    found = find_scans([str(tmp_path)])
    listed = sorted(file for each in found for file in each.files)
    assert listed == sorted(str(path) for path in tmp_path.rglob("*") if path.is_file())
