"""Twins, neighbours and what they follow, against plain loops; exports against the truth."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medcli.cli.output import write_csv
from medcli.errors import OutputExistsError
from medcli.records import GalleryEntry
from medcli.retrieval import likeness
from medcli.retrieval.auditing import audit_gallery
from medcli.retrieval.exporting import export_gallery
from medcli.retrieval.gallery import Gallery
from medcli.retrieval.likeness import agreement, near_pairs, neighbours

Entry = Callable[..., GalleryEntry]
Unit = Callable[..., np.ndarray]


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(likeness, "_BLOCK", 7)


def test_pairs_are_those_of_a_loop(unit: Unit) -> None:
    vectors = unit(30, dim=3)
    products = vectors @ vectors.T
    expected = [(i, j) for i in range(30) for j in range(i + 1, 30) if products[i, j] >= 0.9]
    found = list(near_pairs(vectors, 0.9))
    assert [(each.first, each.second) for each in found] == expected
    assert len(expected) > 5
    np.testing.assert_allclose([p.cosine for p in found], [products[pair] for pair in expected])


def test_neighbours_are_of_other_groups(unit: Unit) -> None:
    vectors = unit(30, dim=3)
    groups = [None if i % 7 == 0 else f"P{i % 4}" for i in range(30)]
    products = (vectors @ vectors.T).astype(np.float64)
    found = neighbours(vectors, groups, 4)
    for row in range(30):
        others = [
            i for i in range(30) if i != row and (groups[row] is None or groups[i] != groups[row])
        ]
        assert found[row].tolist() == sorted(others, key=lambda i: -products[row, i])[:4]
    alone = neighbours(vectors[:3], ["P", "P", "Q"], 2)
    assert alone.tolist() == [[2, -1], [2, -1], alone[2].tolist()]


def test_agreement_by_hand() -> None:
    nearest = np.array([[1], [0], [3], [0]])
    found = agreement(["a", "a", "b", "b"], [1, 2, 3, 4], nearest)
    assert found is not None
    assert (found.values, found.rows, found.share) == (2, 4, 0.75)
    assert found.chance == pytest.approx(1 / 3)  # of three others one has the value
    assert found.lift == pytest.approx((0.75 - 1 / 3) / (2 / 3))
    assert agreement(["a", "a", None], [1, 2, 3], nearest[:3]) is None
    gaps = agreement(["a", None, "b", "b"], [1, 2, 3, 4], nearest)
    assert gaps is not None
    assert (gaps.rows, gaps.share) == (3, 0.5)  # row 0 has no neighbour with a value


def test_an_audit_names_twins_conflicts_and_the_scanner(
    gallery: Gallery, make_entry: Entry, unit: Unit
) -> None:
    centres = unit(2, seed=5)
    rng = np.random.default_rng(0)
    for i in range(24):
        vector = centres[i % 2] + rng.normal(scale=0.15, size=8)
        gallery.add(
            [
                make_entry(
                    f"s{i}",
                    vector=(vector / np.linalg.norm(vector)).astype(np.float32),
                    label=("x", "y")[i // 12],
                    patient_id=f"P{i}",
                    metadata={"ManufacturerModelName": ("one", "two")[i % 2]},
                )
            ]
        )
    twin = gallery.lookup(id=1)[0].vectors[0].astype(np.float32)
    twin /= np.linalg.norm(twin)
    gallery.add([make_entry("twin", vector=twin, label="y", patient_id="Q")])
    gallery.add([make_entry("own", vector=twin, label="x", patient_id="P0")])
    found = audit_gallery(gallery, threshold=0.9999)
    assert [(each.ids, each.codes) for each in found.twins] == [
        ((1, 25), ("near_duplicate", "near_label_conflict")),
        ((25, 26), ("near_duplicate", "near_label_conflict")),
    ]  # 1 and 26 are of one patient and label
    assert found.total == {
        "near_duplicate": 2,
        "near_label_conflict": 2,
        "near_copy_in_two_splits": 0,
        "patient_in_two_splits": 0,
    }
    assert found.splits == {}
    assert found.follows["scanner"].share > 0.9
    assert found.warnings == ("scanner",)


def test_an_audit_names_what_leaks_between_splits(gallery: Gallery, make_entry: Entry) -> None:
    def entry(name: str, seed: int, patient: str, split: str | None) -> GalleryEntry:
        metadata = {"split": split} if split else {}
        return make_entry(name, seed=seed, label="x", patient_id=patient, metadata=metadata)

    gallery.add(
        [
            entry("a", 1, "P1", "train"),
            entry("a again", 1, "P1", "test"),  # one patient, the same picture
            entry("b", 2, "P2", "train"),
            entry("b elsewhere", 2, "P3", "val"),  # another patient
            entry("c", 3, "P4", "train"),
            entry("c too", 3, "P4", "train"),
            entry("d", 4, "P5", "test"),
            entry("e", 5, "P5", None),  # of no split
        ]
    )
    found = audit_gallery(gallery, threshold=0.999)
    assert {each.ids: each.codes for each in found.twins} == {
        (1, 2): ("near_copy_in_two_splits",),
        (3, 4): ("near_duplicate", "near_copy_in_two_splits"),
    }
    assert found.total["near_copy_in_two_splits"] == 2
    assert found.total["patient_in_two_splits"] == 1
    assert found.splits == {"test": 2, "train": 4, "val": 1}


def test_an_empty_gallery_can_be_audited_and_exported(gallery: Gallery, tmp_path: Path) -> None:
    assert audit_gallery(gallery).twins == ()
    facts = export_gallery(gallery, tmp_path / "out", write_table=write_csv)
    assert facts["scans"] == 0
    assert np.load(tmp_path / "out" / "vectors.npy").shape == (0, 8)


@pytest.fixture
def three(gallery: Gallery, make_entry: Entry) -> Gallery:
    gallery.add(
        make_entry(f"s{i}", seed=i, n_slices=2 * (i == 1) + 1, label="=x" if i else None)
        for i in range(3)
    )
    gallery.remove([1])
    return gallery


def rows(file: Path) -> Sequence[Mapping[str, Any]]:
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_an_export_holds_every_row_and_vector(three: Gallery, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export_gallery(three, out, write_table=write_csv)
    stored = list(three.catalogue.stored())
    table, slices = rows(out / "scans.csv"), rows(out / "slices.csv")
    assert [row["id"] for row in table] == ["2", "3"]
    assert [row["path"] for row in table] == [scan.row.path for scan in stored]
    assert table[0]["label"] == "'=x"  # no formula for a spreadsheet
    vectors = np.load(out / "vectors.npy", allow_pickle=False)
    assert vectors.dtype == np.float16
    assert vectors.tobytes() == b"".join(s.vectors[s.slice_numbers < 0].tobytes() for s in stored)
    assert [(row["id"], row["slice"]) for row in slices] == [("2", "0"), ("2", "1"), ("2", "2")]
    assert np.load(out / "slice_vectors.npy").tobytes() == stored[0].vectors[1:].tobytes()
    facts = json.loads((out / "export.json").read_text())
    assert (facts["scans"], facts["slice_vectors"], facts["generation"]) == (2, 3, 2)


def test_an_export_replaces_nothing_but_an_export(three: Gallery, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export_gallery(three, out, write_table=write_csv, hide_paths=True)
    assert b"/scans" not in (out / "scans.csv").read_bytes()
    with pytest.raises(OutputExistsError):
        export_gallery(three, out, write_table=write_csv)
    export_gallery(three, out, write_table=write_csv, overwrite=True)
    (out / "thesis.txt").touch()
    with pytest.raises(OutputExistsError):
        export_gallery(three, out, write_table=write_csv, overwrite=True)


def test_parquet_has_the_same_rows(three: Gallery, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    out = tmp_path / "out"
    export_gallery(three, out, write_table=write_csv, kind="parquet")
    table = parquet.read_table(out / "scans.parquet").to_pydict()
    stored = list(three.catalogue.stored())
    assert table["id"] == [2, 3]
    assert table["label"] == ["=x", "=x"]
    np.testing.assert_array_equal(
        np.array(table["vector"], np.float16), [s.vectors[0] for s in stored]
    )
    assert len(parquet.read_table(out / "slices.parquet")) == 3
