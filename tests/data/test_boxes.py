"""Manifests with boxes: what is read, and what is refused with its line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medcli.data.boxes import check_within, load_boxes
from medcli.errors import ManifestError, ScanError, UsageError
from medcli.imaging.png_writer import write_png
from medcli.imaging.reader import read_scan

HEADER = "path,label,patient_id,x0,y0,x1,y1\n"


def write(folder: Path, lines: str, header: str = HEADER) -> str:
    for name in ("a.png", "b.png"):
        write_png(folder / name, np.full((20, 30), 90, np.uint8))
    path = folder / "boxes.csv"
    path.write_text(header + lines)
    return str(path)


def test_boxes_of_one_picture_are_one_case_and_may_differ_in_label(tmp_path: Path) -> None:
    lines = "a.png,polyp,1,0,0,5,5\na.png,ulcer,1,6,6,30,20\nb.png,,2,,,,\n"
    data = load_boxes([write(tmp_path, lines)])
    assert data.classes == ("polyp", "ulcer")
    first, second = data.boxes
    assert [box.label for box in first] == ["polyp", "ulcer"]
    assert first[1].corners == (6, 6, 30, 20)
    assert first[1].line.endswith("boxes.csv, line 3")
    assert second == ()
    check_within(first, read_scan(data.cases[0]))


def test_a_box_without_a_label_is_a_lesion(tmp_path: Path) -> None:
    data = load_boxes([write(tmp_path, "a.png,0,0,5,5\n", "path,x0,y0,x1,y1\n")])
    assert data.classes == ("lesion",)


@pytest.mark.parametrize(
    ("corners", "what"),
    [
        ("9,0,5,5", "inverted"),
        ("5,0,5,5", "empty"),
        ("-1,0,5,5", "outside"),
        ("nan,0,5,5", "a box of"),
    ],
)
def test_an_unusable_box_is_refused_with_its_line(tmp_path: Path, corners: str, what: str) -> None:
    lines = f"b.png,polyp,1,0,0,5,5\na.png,polyp,1,{corners}\n"
    with pytest.raises(ManifestError, match=rf"boxes.csv, line 3: .*{what}"):
        load_boxes([write(tmp_path, lines)])


def test_a_box_that_leaves_its_picture_is_refused(tmp_path: Path) -> None:
    data = load_boxes([write(tmp_path, "a.png,polyp,1,0,0,31,5\n")])
    with pytest.raises(ManifestError, match=r"line 2: .* leaves its picture of 30 x 20"):
        check_within(data.boxes[0], read_scan(data.cases[0]))


def test_a_box_in_a_slice_that_is_not_there_is_refused(tmp_path: Path) -> None:
    header = "path,slice,x0,y0,x1,y1\n"
    data = load_boxes([write(tmp_path, "a.png,4,0,0,5,5\n", header)])
    with pytest.raises(ManifestError, match="slice 4 of a scan of 1"):
        check_within(data.boxes[0], read_scan(data.cases[0]))


def test_data_without_boxes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no column 'x0'"):
        load_boxes([write(tmp_path, "a.png,polyp\n", "path,label\n")])
    with pytest.raises(ManifestError, match="no line has a box"):
        load_boxes([write(tmp_path, "a.png,polyp,1,,,,\n")])
    with pytest.raises(ManifestError, match="does not know"):
        load_boxes([write(tmp_path, "a.png,ulcer,1,0,0,5,5\n")], known=("polyp",))
    with pytest.raises(UsageError, match="no manifest"):
        load_boxes([str(tmp_path / "a.png")])
    with pytest.raises(ScanError):
        load_boxes([str(tmp_path / "absent.csv")])
