"""A gallery follows its files, and is checked and put right against them."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from medcli.data.gathering import gather_cases
from medcli.errors import MismatchError, UsageError
from medcli.inference.predictor import Predictor
from medcli.models.package import ModelPackage
from medcli.records import Embedding, Scan
from medcli.retrieval.auditing import audit_gallery
from medcli.retrieval.gallery import Gallery
from medcli.retrieval.sources import stored_sources
from medcli.workflows.indexing import build_gallery
from medcli.workflows.maintaining import repair_gallery, verify_gallery
from medcli.workflows.searching import open_gallery
from medcli.workflows.updating import UpdateReport, move_root, update_gallery

Make = Callable[..., ModelPackage]
OLD = 1_700_000_000


@pytest.fixture
def predictor(make_package: Make, tmp_path: Path) -> Predictor:
    return Predictor(make_package(tmp_path / "run"))


@pytest.fixture
def scans(sample_folder: Path, tmp_path: Path) -> Path:
    """Two series and three pictures, long unchanged."""
    folder = tmp_path / "scans"
    series = sorted(path for path in (sample_folder / "ct").iterdir() if path.is_dir())
    for number, path in enumerate(series[:2]):
        shutil.copytree(path, folder / f"ct{number}")
    write_pictures(folder, 3)
    for file in folder.rglob("*.*"):
        os.utime(file, (OLD, OLD))
    return folder


def write_pictures(folder: Path, count: int, start: int = 0) -> None:
    import numpy as np
    from PIL import Image

    for number in range(start, start + count):
        pixels = np.random.default_rng(number).integers(0, 255, (40, 40), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"p{number}.png")


@pytest.fixture
def archive(predictor: Predictor, scans: Path, tmp_path: Path) -> Path:
    build_gallery(tmp_path / "gallery", predictor, gather_cases([str(scans)]))
    return tmp_path / "gallery"


class Counted:
    """A predictor that counts what it embeds, and may break off."""

    def __init__(self, predictor: Predictor, limit: int = 10**6) -> None:
        self._predictor = predictor
        self.package = predictor.package
        self.count = 0
        self._limit = limit

    def embed_all(self, scans: Iterable[Scan]) -> Iterator[Embedding]:
        for scan in scans:
            if self.count >= self._limit:
                raise KeyboardInterrupt
            self.count += 1
            yield self._predictor.embed(scan)


def update(archive: Path, *inputs: Path, prune: bool = False) -> tuple[UpdateReport, int]:
    """Update, and how many scans were embedded."""
    gallery, predictor = open_gallery(archive, write=True)
    counted = Counted(predictor)
    names = [str(each) for each in inputs]
    cases = gather_cases(names) if inputs else None
    with gallery:
        report = update_gallery(gallery, counted, cases, inputs=names, prune=prune)  # type: ignore[arg-type]
    return report, counted.count


def paths(archive: Path) -> dict[int, str]:
    with Gallery.open(archive) as gallery, gallery.snapshot():
        return {s.id: Path(s.row.path).name for s in stored_sources(gallery.catalogue)}


def test_nothing_changed_is_nothing_read(
    archive: Path, scans: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medcli.workflows import sources

    def never(*_: object) -> str:
        raise AssertionError("a file was read")

    monkeypatch.setattr(sources, "file_sha256", never)
    monkeypatch.setattr(sources, "files_sha256", never)
    report, embedded = update(archive)
    assert (report.unchanged, report.updated, embedded) == (5, 0, 0)
    again, embedded = update(archive, scans)
    assert (again.unchanged, again.added, embedded) == (5, 0, 0)


def test_a_new_time_of_change_is_settled_by_the_content(archive: Path, scans: Path) -> None:
    for file in scans.rglob("*.*"):
        os.utime(file, (OLD + 9, OLD + 9))
    report, embedded = update(archive)
    assert (report.unchanged, embedded) == (5, 0)
    with Gallery.open(archive) as gallery, gallery.snapshot() as state:
        assert state.generation == 1  # no answer has changed
        times = {s.source.stats[0][1] for s in stored_sources(gallery.catalogue) if s.source}
    assert times == {(OLD + 9) * 10**9}


def test_only_what_changed_is_embedded_anew_even_of_one_size_and_time(
    archive: Path, scans: Path, tmp_path: Path
) -> None:
    write_pictures(tmp_path, 1, start=77)
    (scans / "p1.png").write_bytes((tmp_path / "p77.png").read_bytes())
    report, embedded = update(archive)
    assert (report.updated, report.unchanged, embedded) == (1, 4, 1)
    names = paths(archive)
    assert sorted(names.values()) == ["ct0", "ct1", "p0.png", "p1.png", "p2.png"]
    assert verify_gallery(archive, sample=9).problems == ()


def test_a_header_that_changed_is_no_new_embedding(archive: Path, scans: Path) -> None:
    import pydicom

    for file in sorted((scans / "ct0").iterdir()):
        dataset = pydicom.dcmread(file)
        dataset.Manufacturer = "Another maker"
        dataset.save_as(file)
    report, embedded = update(archive)
    assert (report.unchanged, report.updated, embedded) == (5, 0, 0)
    with Gallery.open(archive) as gallery:
        rows = [gallery.lookup(id=each)[0].row for each in paths(archive)]
    assert [row.metadata.get("Manufacturer") for row in rows].count("Another maker") == 1
    assert update(archive)[0].unchanged == 5


def test_moved_files_are_known_by_their_content_and_new_ones_added(
    archive: Path, scans: Path
) -> None:
    before = {name: scan for scan, name in paths(archive).items()}
    (scans / "new").mkdir()
    (scans / "ct0").rename(scans / "new" / "moved")
    (scans / "p0.png").rename(scans / "new" / "renamed.png")
    first = sorted((scans / "ct1").iterdir())[0]
    (scans / "ct1").rename(scans / "ct9")
    (scans / "ct9" / first.name).rename(scans / "ct9" / "zzz.dcm")
    write_pictures(scans, 1, start=9)
    report, embedded = update(archive, scans)
    assert (report.moved, report.added, report.unchanged, embedded) == (3, 1, 2, 1)
    assert report.missing == ()
    after = {name: scan for scan, name in paths(archive).items()}
    assert after["moved"] == before["ct0"]
    assert after["renamed.png"] == before["p0.png"]
    assert after["ct9"] == before["ct1"]
    checked = verify_gallery(archive, sample=9)
    assert (checked.problems, checked.recomputed) == ((), 6)


def test_a_copy_is_no_move(archive: Path, scans: Path) -> None:
    shutil.copy(scans / "p0.png", scans / "copy.png")
    report, _ = update(archive, scans)
    assert (report.moved, report.added, report.unchanged) == (0, 1, 5)


def test_missing_files_are_named_and_kept_until_pruned(archive: Path, scans: Path) -> None:
    (scans / "p0.png").unlink()
    report, _ = update(archive)
    assert [Path(each.row.path).name for each in report.missing] == ["p0.png"]
    assert len(paths(archive)) == 5
    assert update(archive, prune=True)[0].pruned == 1
    assert "p0.png" not in paths(archive).values()


def test_a_disk_that_is_not_there_is_no_reason_to_prune(archive: Path, scans: Path) -> None:
    moved = scans.rename(scans.with_name("elsewhere"))
    with pytest.raises(UsageError, match="all 5 scans are gone; nothing was removed"):
        update(archive, prune=True)
    gallery, _ = open_gallery(archive, write=True)
    with gallery:
        with pytest.raises(UsageError, match="holds none"):
            move_root(gallery, str(archive))
        move_root(gallery, str(moved))
    report, embedded = update(archive, prune=True)
    assert (report.unchanged, report.pruned, embedded) == (5, 0, 0)


def test_a_file_that_broke_fails_and_its_row_stays(archive: Path, scans: Path) -> None:
    (scans / "p1.png").write_bytes((scans / "p1.png").read_bytes()[:300])
    report, _ = update(archive)
    assert [failure.code for failure in report.failures] == ["truncated"]
    assert report.unchanged == 4
    assert len(paths(archive)) == 5


@pytest.mark.parametrize("named", [True, False])
def test_a_series_that_lost_a_slice_is_one_scan_that_changed(
    archive: Path, scans: Path, named: bool
) -> None:
    before = paths(archive)
    slices = sorted((scans / "ct0").iterdir())
    slices[-1].unlink()
    inputs = [scans] if named else []
    report, embedded = update(archive, *inputs)
    assert embedded == 1
    assert (report.updated, report.added, report.unchanged) == (1, 0, len(before) - 1)
    assert report.failures == report.missing == ()
    assert set(paths(archive).values()) == set(before.values())
    assert update(archive, *inputs)[0].unchanged == len(before)


def test_a_series_that_has_grown_is_one_scan_that_changed(archive: Path, scans: Path) -> None:
    before = paths(archive)
    folder = scans / "ct0"
    slices = sorted(folder.iterdir())
    kept = slices[-1].read_bytes()
    slices[-1].unlink()
    update(archive, scans)
    slices[-1].write_bytes(kept)
    report, embedded = update(archive, scans)
    assert embedded == 1
    assert (report.updated, report.added, report.unchanged) == (1, 0, len(before) - 1)
    with Gallery.open(archive) as gallery, gallery.snapshot():
        stored = list(stored_sources(gallery.catalogue))
    assert [len(s.row.files) for s in stored if s.row.path == str(folder)] == [len(slices)]


def test_an_interrupted_update_redoes_no_committed_batch(
    archive: Path, scans: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medcli.workflows import updating

    monkeypatch.setattr(updating, "BATCH", 2)
    write_pictures(scans, 6, start=20)
    gallery, predictor = open_gallery(archive, write=True)
    counted = Counted(predictor, limit=5)
    cases = gather_cases([str(scans)])
    with gallery, pytest.raises(KeyboardInterrupt):
        update_gallery(gallery, counted, cases, inputs=[str(scans)])  # type: ignore[arg-type]
    report, embedded = update(archive, scans)
    assert embedded == 2  # four of six were committed
    assert report.added == 2
    assert len(paths(archive)) == 11


def test_labels_of_a_manifest_are_followed_without_reading_pixels(
    archive: Path, scans: Path
) -> None:
    manifest = scans / "manifest.csv"
    manifest.write_text("path,label,split\np0.png,benign,train\np1.png,malignant,test\n")
    report, embedded = update(archive, manifest)
    assert embedded == 0
    assert len(paths(archive)) == 5
    with Gallery.open(archive) as gallery:
        assert gallery.info()["classes"] == {"benign": 1, "malignant": 1}
        assert audit_gallery(gallery).splits == {"test": 1, "train": 1}
    assert report.failures == ()
    manifest.unlink()
    assert update(archive, scans)[0].unchanged == 5
    with Gallery.open(archive) as gallery:  # what is not said any more is no change
        assert audit_gallery(gallery).splits == {"test": 1, "train": 1}


# Checked and put right against the files


def change(archive: Path, statement: str) -> None:
    connection = sqlite3.connect(archive / "catalogue.sqlite")
    connection.execute(statement)
    connection.commit()
    connection.close()


def test_damaged_rows_are_put_right_from_their_files(archive: Path, scans: Path) -> None:
    change(archive, "UPDATE scans SET pixel_sha256 = 'x', n_slices = 3 WHERE id = 1")
    change(archive, "UPDATE vectors SET vector = zeroblob(128) WHERE scan = 3")
    change(archive, "UPDATE slices SET thumbnail = x'00' WHERE scan = 5 AND slice = 1")
    change(archive, "UPDATE sources SET recipe = '{}' WHERE scan = 4")
    found = verify_gallery(archive)
    assert {each.code for each in found.problems} == {
        "row_damaged",
        "slice_damaged",
        "source_damaged",
    }
    done = repair_gallery(archive)
    assert done.checked.problems == ()
    assert len(done.repaired) == 4
    update(archive)
    assert verify_gallery(archive, sample=9).recomputed == 5


def test_a_row_whose_file_is_gone_is_named_and_kept(archive: Path, scans: Path) -> None:
    change(archive, "UPDATE vectors SET vector = zeroblob(128) WHERE scan = 3")
    shutil.rmtree(scans)
    done = repair_gallery(archive)
    assert [(each.code, each.scan) for each in done.checked.problems] == [("row_damaged", 3)]
    assert done.checked.rows == 5


def test_a_vector_that_is_not_that_of_its_file_is_found(archive: Path, scans: Path) -> None:
    """A lie with a right checksum: two scans have exchanged their vectors."""
    from medcli.retrieval.rows import row_checksum

    connection = sqlite3.connect(archive / "catalogue.sqlite")
    swap = (1, 2)
    connection.execute(
        "UPDATE vectors SET scan = CASE scan WHEN 1 THEN 2 ELSE 1 END WHERE scan IN (1, 2)"
    )
    from medcli.retrieval.rows import FIELDS

    for scan in swap:
        columns = connection.execute(f"SELECT {FIELDS} FROM scans WHERE id = ?", (scan,)).fetchone()
        vectors = connection.execute(
            "SELECT slice, view, vector FROM vectors WHERE scan = ? ORDER BY id", (scan,)
        ).fetchall()
        connection.execute(
            "UPDATE scans SET checksum = ? WHERE id = ?", (row_checksum(columns, vectors), scan)
        )
    connection.commit()
    connection.close()
    found = verify_gallery(archive, sample=5)
    assert {(each.code, each.scan) for each in found.problems} == {
        ("vector_changed", 1),
        ("vector_changed", 2),
    }


def test_the_copy_of_the_model_comes_back_from_its_run(
    archive: Path, predictor: Predictor, make_package: Make, tmp_path: Path
) -> None:
    (archive / "model" / "graph.onnx").write_bytes(b"damage")
    assert [each.code for each in verify_gallery(archive).problems] == ["model_damaged"]
    assert [each.code for each in repair_gallery(archive).checked.problems] == ["model_damaged"]
    other = make_package(tmp_path / "other", seed=9)
    with pytest.raises(MismatchError, match=other.fingerprint):
        repair_gallery(archive, model=other.path)
    done = repair_gallery(archive, model=predictor.package.path)
    assert done.repaired == ("the copy of the model",)
    assert done.checked.problems == ()
    assert sorted(item.name for item in archive.glob(".*")) == []
