from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from medcli.data import manifest as manifest_module
from medcli.data.manifest import read_manifest
from medcli.errors import ManifestError, ScanError
from medcli.records import Case, Failure

Write = Callable[..., Path]


def test_one_row_is_one_scan_with_its_extra_columns(write_csv: Write, tmp_path: Path) -> None:
    path = write_csv("path,label,patient_id,site,note", "a.png,benign,p1,north,")
    (case,) = read_manifest(path).cases
    assert case == Case(
        path=str(tmp_path / "a.png"),
        files=(str(tmp_path / "a.png"),),
        kind="picture",
        scan_id="a.png",
        label="benign",
        patient_id="p1",
        columns={"site": "north"},
    )


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_separators_byte_order_mark_and_header_spelling_do_not_matter(
    write_csv: Write, separator: str
) -> None:
    path = write_csv(
        separator.join([" Path ", "LABEL", "Patient_ID"]),
        separator.join(["a.png", "x", "p"]),
        encoding="utf-8-sig",
    )
    manifest = read_manifest(path, require_label=True)
    assert manifest.columns == ("path", "label", "patient_id")
    assert [(case.label, case.patient_id) for case in manifest.cases] == [("x", "p")]


def test_rows_of_one_scan_id_are_stacked_by_slice_number(write_csv: Write, tmp_path: Path) -> None:
    path = write_csv(
        "path,label,scan_id,slice", "c.png,x,s,10", "a.png,x,s,9.5", "z.png,y,t,0", "b.png,x,s,-1"
    )
    first, second = read_manifest(path).cases
    assert first.files == tuple(str(tmp_path / name) for name in ("b.png", "a.png", "c.png"))
    assert first.scan_id == "s"
    assert first.path == first.files[0]
    assert second.files == (str(tmp_path / "z.png"),)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (("a.png,x,p,s,0", "b.png,x,p,s,"), ["line 3", "slice is missing"]),
        (("a.png,x,p,s,0", "b.png,x,p,s,two"), ["line 3", "'two'"]),
        (("a.png,x,p,s,0", "b.png,x,p,s,nan"), ["line 3", "'nan'"]),
        (("a.png,x,p,s,1", "b.png,x,p,s,1.0"), ["line 3", "taken"]),
        (("a.png,x,p,s,0", "b.png,x,p,s,1", "a.png,x,p,s,2"), ["line 4", "two slices"]),
        (("a.png,x,p,s,0", "b.png,y,p,s,1"), ["lines 2 and 3", "'label'"]),
        (("a.png,x,p,s,0", "b.png,x,q,s,1"), ["lines 2 and 3", "'patient_id'"]),
        (("a.png,x,p,s,0,extra",), ["line 2", "6 fields"]),
    ],
)
def test_an_unusable_scan_is_refused_with_its_line(
    write_csv: Write, rows: tuple[str, ...], words: list[str]
) -> None:
    path = write_csv("path,label,patient_id,scan_id,slice", *rows)
    with pytest.raises(ManifestError) as caught:
        read_manifest(path)
    assert all(word in str(caught.value) for word in words)
    assert caught.value.exit_status == 2


def test_a_conflicting_or_unknown_split_is_refused(write_csv: Write) -> None:
    conflicting = write_csv(
        "path,scan_id,slice,split", "a.png,s,0,train", "b.png,s,1,test", name="a.csv"
    )
    with pytest.raises(ManifestError, match="'split'"):
        read_manifest(conflicting)
    unknown = write_csv("path,split", "a.png,tset", name="b.csv")
    with pytest.raises(ManifestError, match="did you mean 'test'"):
        read_manifest(unknown)


def test_split_names_are_normalised(write_csv: Write) -> None:
    path = write_csv("path,split", "a.png,Training", "b.png,valid", "c.png,TEST", "d.png,")
    assert [case.split for case in read_manifest(path).cases] == ["train", "val", "test", None]


def test_a_missing_column_is_named_with_those_found(write_csv: Write) -> None:
    path = write_csv("path,lable,patient", "a.png,x,p")
    with pytest.raises(ManifestError) as caught:
        read_manifest(path, require_label=True)
    assert "no column 'label'" in caught.value.message
    assert "did you mean 'lable'?" in caught.value.hint
    assert "path, lable, patient" in caught.value.hint


def test_labels_are_needed_only_when_asked_for(write_csv: Write) -> None:
    path = write_csv("path,patient_id", "a.png,p")
    assert read_manifest(path).cases[0].label is None


def test_rows_without_label_or_path_are_dropped_and_counted(write_csv: Write) -> None:
    path = write_csv("path,label", "a.png,x", "b.png,", ",x", "", " , ", "c.png,y")
    labelled = read_manifest(path, require_label=True)
    assert [case.label for case in labelled.cases] == ["x", "y"]
    assert labelled.dropped == {"no label": 1, "no path": 2}
    assert len(read_manifest(path).cases) == 3


def test_a_slice_without_a_label_stays_in_its_labelled_stack(write_csv: Write) -> None:
    path = write_csv("path,label,scan_id,slice", "a.png,x,s,0", "b.png,,s,1")
    (case,) = read_manifest(path, require_label=True).cases
    assert (case.label, len(case.files)) == ("x", 2)


def test_a_blank_patient_is_unknown(write_csv: Write) -> None:
    path = write_csv("path,label,patient_id", "a.png,x, ")
    assert read_manifest(path).cases[0].patient_id is None


@pytest.mark.parametrize("other", ["Benign", "benign ", " benign"])
def test_labels_that_differ_only_in_case_or_space_are_refused(write_csv: Write, other: str) -> None:
    path = write_csv("path,label", "a.png,benign", f"b.png,{other}")
    with pytest.raises(ManifestError) as caught:
        read_manifest(path)
    assert repr(other) in caught.value.message


def test_several_boxes_of_one_picture_are_one_case(write_csv: Write) -> None:
    path = write_csv(
        "path,label,x0,y0,x1,y1", "a.png,polyp,1,2,3,4", "b.png,polyp,,,,", "a.png,polyp,5,6,7,8.5"
    )
    first, second = read_manifest(path).cases
    assert json.loads(first.columns["boxes"]) == [[1, 2, 3, 4, 0], [5, 6, 7, 8.5, 0]]
    assert "boxes" not in second.columns


def test_a_box_in_a_stack_names_the_position_of_its_slice(write_csv: Write) -> None:
    path = write_csv("path,scan_id,slice,x0,y0,x1,y1", "b.png,s,7,1,2,3,4", "a.png,s,3,,,,")
    (case,) = read_manifest(path).cases
    assert json.loads(case.columns["boxes"]) == [[1, 2, 3, 4, 1]]


def test_a_box_that_is_no_number_is_refused(write_csv: Write) -> None:
    path = write_csv("path,x0,y0,x1,y1", "a.png,1,2,3,")
    with pytest.raises(ManifestError, match="line 2"):
        read_manifest(path)


def test_a_missing_scan_is_left_to_the_reader(write_csv: Write) -> None:
    path = write_csv("path", "gone.dcm", "gone_folder", "gone.nii.gz")
    assert [case.kind for case in read_manifest(path).cases] == ["dicom", "picture", "volume"]


def test_a_series_folder_is_what_imaging_finds_in_it(
    write_csv: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "series"
    folder.mkdir()
    path = write_csv("path,label", "series,x")

    def find(inputs: list[str]) -> list[Case | Failure]:
        assert inputs == [str(folder)]
        return [
            Case(str(folder), ("scout",), "dicom", "1", series_uid="1.2"),
            Failure("readme", "not_an_image", "text", "skipped"),
            Case(str(folder), ("a", "b"), "dicom", "2", series_uid="1.3"),
        ]

    monkeypatch.setattr(manifest_module, "find_scans", find)
    manifest = read_manifest(path)
    (case,) = manifest.cases
    assert (case.files, case.series_uid, case.kind) == (("a", "b"), "1.3", "dicom")
    assert (case.path, case.scan_id, case.label) == (str(folder), "series", "x")
    assert "2 scans" in manifest.warnings[0]


def test_absolute_paths_stay_as_they_are(write_csv: Write, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere" / "a.png"
    path = write_csv("path", str(elsewhere), name="inner/manifest.csv")
    assert read_manifest(path).cases[0].path == str(elsewhere)


def test_a_missing_manifest_is_a_missing_input(tmp_path: Path) -> None:
    with pytest.raises(ScanError) as caught:
        read_manifest(tmp_path / "none.csv")
    assert (caught.value.exit_status, caught.value.code) == (3, "not_found")


def test_what_is_no_utf8_table_is_refused(write_csv: Write) -> None:
    with pytest.raises(ManifestError, match="UTF-8"):
        read_manifest(write_csv("path,label", "ü.png,x", encoding="latin-1"))
    with pytest.raises(ManifestError, match="several columns named 'label'"):
        read_manifest(write_csv("path,label,Label", "a.png,x,y"))
    with pytest.raises(ManifestError, match="columns found: none"):
        read_manifest(write_csv(""))


@pytest.mark.real
def test_the_nodule_manifest_holds_670_scans_of_376_patients(real_data: Path) -> None:
    manifest = read_manifest(real_data / "nodule_slices" / "manifest.csv", require_label=True)
    assert len(manifest.cases) == 670
    assert len({case.patient_id for case in manifest.cases}) == 376
    assert sum(len(case.files) for case in manifest.cases) == 3808


@pytest.mark.real
def test_polyp_frames_with_several_boxes_are_one_case_each(real_data: Path) -> None:
    cases = read_manifest(real_data / "gi_polyp_boxes" / "manifest.csv").cases
    assert len(cases) == 747
    assert sum(len(json.loads(case.columns["boxes"])) for case in cases) == 795
