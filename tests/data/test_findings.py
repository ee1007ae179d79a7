"""Labels that name several findings, from manifests and archives to parts and arrays."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medcli.data.check import check_scans
from medcli.data.convert import convert_scans
from medcli.data.findings import finding_names, findings_of, indicator, join_findings
from medcli.data.gathering import gather_cases
from medcli.data.sources import load_cases
from medcli.data.splits import PARTS, split_by_patient, split_table
from medcli.errors import ManifestError, UsageError

LABELS = ["edema|effusion", "effusion", "none", "No Finding", " edema | mass ", "mass|mass"]


@pytest.mark.parametrize(
    ("label", "findings"),
    [
        ("effusion|edema", ("effusion", "edema")),
        (" pleural thickening | mass|", ("pleural thickening", "mass")),
        ("mass|mass", ("mass",)),
        ("none", ()),
        ("No Finding", ()),
    ],
)
def test_a_label_names_its_findings(label: str, findings: tuple[str, ...]) -> None:
    assert findings_of(label) == findings
    assert findings_of(join_findings(findings)) == findings


def test_findings_become_columns() -> None:
    names = finding_names(LABELS)
    assert names == ("edema", "effusion", "mass")
    assert indicator(LABELS, names).tolist() == [
        *([1, 1, 0], [0, 1, 0], [0, 0, 0], [0, 0, 0], [1, 0, 1], [0, 0, 1])
    ]
    with pytest.raises(ManifestError, match="findings differ only in case: 'Mass', 'mass'"):
        finding_names(["Mass|edema", "mass"])


def manifest(folder: Path, labels: Sequence[str], patients: Sequence[str] = ()) -> str:
    """One picture for each label."""
    with (folder / "manifest.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "label", "patient_id"])
        for number, label in enumerate(labels):
            pixels = np.random.default_rng(number).integers(0, 256, (16, 16), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
            writer.writerow([f"{number}.png", label, patients[number] if patients else number])
    return str(folder / "manifest.csv")


def test_a_label_with_several_findings_makes_a_multi_label_set(tmp_path: Path) -> None:
    data = load_cases([manifest(tmp_path, LABELS)])
    assert data.multi_label
    assert data.classes == ("edema", "effusion", "mass")
    assert [case.label for case in data.cases] == [
        *("edema|effusion", "effusion", "none", "none", "edema|mass", "mass")
    ]


def test_classes_keep_some_of_the_findings_and_every_scan(tmp_path: Path) -> None:
    data = load_cases([manifest(tmp_path, LABELS)], classes=["mass", "edema"])
    assert data.classes == ("mass", "edema")
    assert [case.label for case in data.cases] == ["edema", *["none"] * 3, "mass|edema", "mass"]
    with pytest.raises(UsageError, match="no scan of class 'hernia'"):
        load_cases([manifest(tmp_path, LABELS)], classes=["hernia", "mass"])


def test_the_findings_of_a_model_are_known_without_a_separator(tmp_path: Path) -> None:
    path = manifest(tmp_path, ["effusion", "none"])
    data = load_cases([path], known=("edema", "effusion"), multi_label=True)
    assert data.classes == ("edema", "effusion")
    assert [case.label for case in data.cases] == ["effusion", "none"]
    with pytest.raises(ManifestError, match=r"'effusion' .* is none of the model's classes"):
        load_cases([path], known=("edema", "mass"), multi_label=True)


def test_every_part_has_every_finding_and_no_patient_twice(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    names = np.array(["a", "b", "c", "rare"])
    flags = rng.random((150, 4)) < [0.5, 0.3, 0.2, 0.05]
    labels = [join_findings(names[row]) for row in flags]
    patients = [f"p{number // 2}" for number in range(150)]
    split = split_by_patient(load_cases([manifest(tmp_path, labels, patients)]).cases, seed=1)
    held = {part: {case.patient_id for case in getattr(split, part)} for part in PARTS}
    assert not (held["train"] & held["val"] | held["train"] & held["test"])
    assert not held["val"] & held["test"]
    rows = {row.part: row for row in split_table(split)}
    for finding in (*names, "none"):
        counts = {part: rows[part].per_class[finding] for part in PARTS}
        total = sum(counts.values())
        assert total == sum(finding in label.split("|") for label in labels)
        assert all(counts.values()), finding
        assert counts["train"] / total == pytest.approx(0.7, abs=0.2), finding


def test_a_check_counts_each_finding(tmp_path: Path) -> None:
    found = check_scans(gather_cases([manifest(tmp_path, LABELS)]))
    assert found.labels == {"edema": 2, "effusion": 2, "mass": 2, "none": 2}


def test_an_archive_keeps_the_findings(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    labels = [*LABELS, "effusion|edema", "none"]
    cases = gather_cases([manifest(tmp_path / "set", labels)])
    made = convert_scans(cases, tmp_path / "npz", "npz", size=16)
    archive = made.folder / "scans.npz"
    with np.load(archive) as arrays:
        assert arrays["class_names"].tolist() == ["edema", "effusion", "mass"]
        width = {arrays[name].shape[1] for name in arrays if name.endswith("_labels")}
    assert width == {3}
    back = load_cases([str(archive)])
    assert back.multi_label
    expected = sorted(sorted(findings_of(label)) for label in labels)
    assert sorted(sorted(findings_of(str(case.label))) for case in back.cases) == expected
    assert json.dumps(back.classes) == '["edema", "effusion", "mass"]'
