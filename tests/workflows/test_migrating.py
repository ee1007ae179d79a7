"""Another model for a gallery: the old or the new state, never a mixture."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medcli.data.gathering import gather_cases
from medcli.errors import LockedError, MismatchError, UsageError
from medcli.inference.predictor import Predictor
from medcli.models.package import ModelPackage
from medcli.records import Embedding, Scan
from medcli.retrieval.gallery import Gallery
from medcli.retrieval.storage import writer_lock
from medcli.workflows.indexing import build_gallery
from medcli.workflows.maintaining import verify_gallery
from medcli.workflows.migrating import migrate_gallery
from medcli.workflows.searching import open_gallery

Make = Callable[..., ModelPackage]


@pytest.fixture
def scans(sample_folder: Path, tmp_path: Path) -> Path:
    """Two series and four pictures."""
    from PIL import Image

    folder = tmp_path / "scans"
    series = sorted(path for path in (sample_folder / "ct").iterdir() if path.is_dir())
    for number, path in enumerate(series[:2]):
        shutil.copytree(path, folder / f"ct{number}")
    for seed in range(4):
        pixels = np.random.default_rng(seed).integers(0, 255, (40, 40), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"p{seed}.png")
    return folder


@pytest.fixture
def archive(make_package: Make, scans: Path, tmp_path: Path) -> Path:
    predictor = Predictor(make_package(tmp_path / "old"))
    build_gallery(tmp_path / "gallery", predictor, gather_cases([str(scans)]))
    return tmp_path / "gallery"


class Turned:
    """A predictor whose vectors are those of `package` with each value moved on by one."""

    def __init__(self, package: ModelPackage, limit: int = 10**6) -> None:
        self._predictor = Predictor(package)
        self.package = package
        self._limit = limit

    def embed(self, scan: Scan) -> Embedding:
        from dataclasses import replace

        self._limit -= 1
        if self._limit < 0:
            raise KeyboardInterrupt
        embedding = self._predictor.embed(scan)
        return replace(
            embedding,
            vector=np.roll(embedding.vector, 1),
            slice_vectors=np.roll(embedding.slice_vectors, 1, axis=-1),
        )


@pytest.fixture
def other(make_package: Make, tmp_path: Path) -> ModelPackage:
    return make_package(tmp_path / "other", seed=5)


def content(path: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in sorted(path.rglob("*"))
        if file.is_file() and not file.name.endswith(("-shm", "-wal", ".lock"))
    }


def rows(path: Path) -> dict[int, Any]:
    with Gallery.open(path) as gallery, gallery.snapshot():
        return {scan.id: scan for scan in gallery.catalogue.stored()}


def test_rows_stay_and_vectors_are_those_of_the_new_model(
    archive: Path, other: ModelPackage
) -> None:
    with Gallery.open(archive, write=True) as gallery:
        gallery.remove([1])
    before = rows(archive)
    told: list[float | None] = []
    report = migrate_gallery(
        archive,
        Turned(other),  # type: ignore[arg-type]
        on_overlap=lambda overlap: told.append(overlap.overlap),
    )
    assert report.switched
    assert (report.embedded, report.failures) == (5, ())
    assert report.fingerprints[1] == other.fingerprint
    assert told == [1.0]  # turned by one, all vectors keep their angles
    after = rows(archive)
    for scan, old in before.items():
        assert after[scan].row == old.row
        wanted = np.roll(old.vectors, 1, axis=-1).astype(float)
        assert np.abs(after[scan].vectors - wanted).max() < 2e-3
    gallery, predictor = open_gallery(archive)
    with gallery:
        assert gallery.fingerprint == predictor.package.fingerprint == other.fingerprint
        assert gallery.thumbnail(2) is not None
    codes = {each.code for each in verify_gallery(archive).problems}
    # the package's own graph does not turn: only what asks the model can see that
    assert codes <= {"engine_changed", "vector_changed"}
    assert sorted(item.name for item in archive.parent.glob(".*")) == []


def test_a_migrated_gallery_verifies_and_grows(
    archive: Path, other: ModelPackage, scans: Path
) -> None:
    assert migrate_gallery(archive, Predictor(other)).switched
    checked = verify_gallery(archive, sample=9)
    assert (checked.problems, checked.recomputed, checked.canaries) == ((), 6, 3)
    with Gallery.open(archive, write=True) as gallery:
        assert gallery.remove([2]) == 1


def test_an_interruption_leaves_the_old_gallery_and_nothing_else(
    archive: Path, other: ModelPackage
) -> None:
    before = content(archive)
    with pytest.raises(KeyboardInterrupt):
        migrate_gallery(archive, Turned(other, limit=4))  # type: ignore[arg-type]
    assert content(archive) == before
    assert list(archive.parent.glob(".*.draft")) == []
    assert migrate_gallery(archive, Predictor(other)).switched


@pytest.mark.parametrize("change", ["gone", "other pixels"])
def test_a_scan_that_fails_keeps_the_old_gallery_unless_pruned(
    archive: Path, other: ModelPackage, scans: Path, change: str
) -> None:
    if change == "gone":
        (scans / "p0.png").unlink()
    else:
        shutil.copy(scans / "p1.png", scans / "p0.png")
    before = content(archive)
    report = migrate_gallery(archive, Predictor(other))
    assert not report.switched
    (failure,) = report.failures
    assert failure.code == {"gone": "not_found", "other pixels": "source_changed"}[change]
    assert content(archive) == before
    pruned = migrate_gallery(archive, Predictor(other), prune=True)
    assert (pruned.switched, pruned.embedded, pruned.left_out) == (True, 5, 1)
    assert len(rows(archive)) == 5


def test_a_dry_run_compares_and_changes_nothing(archive: Path, other: ModelPackage) -> None:
    before = content(archive)
    report = migrate_gallery(archive, Predictor(other), dry_run=True)
    assert not report.switched
    assert report.overlap is not None
    assert (report.overlap.queries, report.overlap.k) == (6, 5)
    assert content(archive) == before


def test_the_overlap_is_what_counting_gives(make_package: Make) -> None:
    from medcli.retrieval.likeness import nearest_rows

    vectors = np.eye(4, dtype=np.float16)[[0, 0, 1, 1]]
    vectors[1, 2] = 0.5
    near = nearest_rows(vectors, np.array([0, 3]), 1)
    assert near.tolist() == [[1], [2]]


def test_the_same_model_and_a_locked_gallery_are_refused(
    archive: Path, other: ModelPackage
) -> None:
    _, own = open_gallery(archive)
    with pytest.raises(UsageError, match="nothing to migrate"):
        migrate_gallery(archive, own)
    with writer_lock(archive / "writer.lock", 0), pytest.raises(LockedError):
        migrate_gallery(archive, Predictor(other), lock_timeout=0.1)


def test_what_is_written_meanwhile_is_refused_and_not_lost(
    archive: Path, other: ModelPackage
) -> None:
    refused = []

    def write(done: int, total: int) -> None:
        if done == 1:
            with Gallery.open(archive, write=True, lock_timeout=0.05) as gallery:
                with pytest.raises(LockedError):
                    gallery.remove([1])
                refused.append(done)

    migrate_gallery(archive, Predictor(other), on_scan=write)
    assert refused == [1]
    assert len(rows(archive)) == 6


def test_a_mismatch_names_both_models_and_the_way_out(archive: Path, other: ModelPackage) -> None:
    with Gallery.open(archive) as gallery, pytest.raises(MismatchError) as caught:
        gallery.check_fingerprint(other.fingerprint)
    assert gallery.fingerprint in caught.value.message
    assert other.fingerprint in caught.value.message
    assert "medcli index migrate MODEL" in caught.value.hint
    assert caught.value.exit_status == 5


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_killed_migration_leaves_the_old_gallery(archive: Path, other: ModelPackage) -> None:
    before = content(archive)
    child = os.fork()
    if child == 0:
        try:
            migrate_gallery(
                archive,
                Turned(other),  # type: ignore[arg-type]
                on_scan=lambda done, total: os.kill(os.getpid(), 9) if done == 4 else None,
            )
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 9
    assert content(archive) == before
    assert len(list(archive.parent.glob(".*.draft"))) == 1
    assert migrate_gallery(archive, Predictor(other)).switched
    assert list(archive.parent.glob(".*.draft")) == []
