"""What a gallery promises about its rows, its folder and its privacy."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medcli.errors import (
    DamagedError,
    MismatchError,
    OutputExistsError,
    ScanError,
    StorageError,
    UsageError,
)
from medcli.records import GalleryEntry
from medcli.retrieval.entries import rounded_unit_vectors
from medcli.retrieval.gallery import Gallery
from medcli.retrieval.query import Query, Wanted
from medcli.retrieval.search import search

Entry = Callable[..., GalleryEntry]
PATIENT = "DOE^JANE 19610412"


def ids(gallery: Gallery, *names: str) -> list[int]:
    """Ids of the stored scans of these names."""
    return [scan.id for name in names for scan in gallery.lookup(scan_id=name)]


def test_a_scan_comes_back_as_it_went_in(gallery: Gallery, make_entry: Entry) -> None:
    entry = make_entry("ct", n_slices=3, label="benign", modality="CT", metadata={"kvp": "120"})
    report = gallery.add([entry])
    (stored,) = gallery.lookup(scan_id="ct")
    assert (report.added, report.updated, report.unchanged) == (1, 0, 0)
    assert stored.row == gallery.lookup(id=stored.id)[0].row
    assert (stored.row.label, stored.row.modality, stored.row.n_slices) == ("benign", "CT", 3)
    assert stored.row.metadata == {"kvp": "120"}
    assert stored.slice_numbers.tolist() == [-1, 0, 1, 2]
    np.testing.assert_allclose(stored.vectors[1:], entry.embedding.slice_vectors, atol=1e-3)
    assert gallery.lookup(pixel_sha256="pixels of ct")[0].id == stored.id
    assert gallery.lookup(scan_id="nothing") == ()


def test_thumbnails_are_given_by_slice(gallery: Gallery, make_entry: Entry) -> None:
    gallery.add([make_entry("ct", n_slices=3, thumbnails={0: b"zero", 2: b"two"})])
    assert gallery.thumbnail(1, 2) == b"two"
    assert gallery.thumbnail(1) == b"zero"
    assert gallery.thumbnail(1, 1) is None
    assert gallery.thumbnail(9, 0) is None


def test_the_same_pixels_again_change_nothing(gallery: Gallery, make_entry: Entry) -> None:
    gallery.add([make_entry("a", label="benign", patient_id="P")])
    before = gallery.info()["generation"]
    again = gallery.add([make_entry("a", label="benign", patient_id="P"), make_entry("a")])
    renamed = gallery.add([make_entry("a", scan_id="another name")])
    assert (again.unchanged, renamed.unchanged) == (2, 1)
    assert gallery.info()["generation"] == before


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_gallery_that_another_process_builds_meanwhile_is_kept(
    make_gallery: Callable[..., Gallery], make_entry: Entry, tmp_path: Path, overwrite: bool
) -> None:
    if overwrite:
        make_gallery()
    with pytest.raises(OutputExistsError, match="meanwhile"):  # noqa: SIM117
        with Gallery.build(
            tmp_path / "gallery",
            model_dir=make_gallery("other").model_dir,
            fingerprint="f" * 64,
            dim=8,
            overwrite=overwrite,
        ):
            make_gallery(overwrite=overwrite).add([make_entry("theirs")])
    with Gallery.open(tmp_path / "gallery") as kept:
        assert [scan.row.scan_id for scan in kept.lookup(id=1)] == ["theirs"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gallery", "other"]


@pytest.mark.parametrize("change", [{"pixel_sha256": "new"}, {"label": "malignant"}])
def test_a_changed_scan_takes_a_new_id(
    gallery: Gallery, make_entry: Entry, change: dict[str, str]
) -> None:
    entry = make_entry("a", label="benign")
    gallery.add([entry, make_entry("b", seed=1)])
    report = gallery.add([replace(entry, **change)])
    assert report.updated == 1
    assert ids(gallery, "a", "b") == [3, 2]
    assert gallery.lookup(id=1) == ()
    assert gallery.info()["scans"] == 2


def test_ids_are_never_reused(gallery: Gallery, make_entry: Entry) -> None:
    gallery.add(make_entry(name, seed=i) for i, name in enumerate("abc"))
    assert gallery.remove([3, 99]) == 1
    gallery.add([make_entry("d", seed=4)])
    assert ids(gallery, "a", "b", "d") == [1, 2, 4]


def test_removed_scans_are_no_longer_found(gallery: Gallery, make_entry: Entry) -> None:
    entry = make_entry("ct", n_slices=4)
    gallery.add([entry, make_entry("x", seed=1)])
    gallery.remove([1])
    result = search(gallery, Query.from_embedding("q", entry.embedding), Wanted(k=2))
    assert [hit.id for hit in result.hits] == [2]
    assert gallery.info()["vectors"] == 1


def test_two_scans_of_one_call_cannot_share_a_scan_id(gallery: Gallery, make_entry: Entry) -> None:
    entries = [make_entry("a"), make_entry("a", pixel_sha256="other"), make_entry("b", seed=1)]
    report = gallery.add(entries)
    assert report.added == 2
    assert [failure.code for failure in report.refused] == ["duplicate_scan_id"]


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0, 0.5])
def test_a_vector_that_is_no_unit_vector_is_refused_and_the_others_go_on(
    gallery: Gallery, make_entry: Entry, value: float
) -> None:
    vector = np.zeros(8, np.float32)
    vector[0] = value
    report = gallery.add([make_entry("bad", vector=vector), make_entry("good")])
    assert report.added == 1
    assert [(failure.path, failure.code) for failure in report.refused] == [
        ("/scans/bad", "bad_vector")
    ]


def test_rounding_errors_of_the_length_are_corrected(gallery: Gallery, make_entry: Entry) -> None:
    entry = make_entry("a")
    gallery.add([make_entry("a", vector=entry.embedding.vector * np.float32(1.0005))])
    np.testing.assert_allclose(
        gallery.lookup(id=1)[0].vectors[0], entry.embedding.vector, atol=1e-3
    )


def test_rounding_to_float16_keeps_length_and_direction() -> None:
    vectors = np.random.default_rng(0).standard_normal((200, 192))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rounded = rounded_unit_vectors(vectors.astype(np.float32))
    wide = rounded.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1)
    plain = np.linalg.norm(vectors.astype(np.float16).astype(np.float64), axis=1)
    assert rounded.dtype == np.float16
    assert np.abs(lengths - 1).mean() < np.abs(plain - 1).mean() / 3
    assert (1 - (wide * vectors).sum(axis=1) / lengths).max() < 1e-7


def test_vectors_of_another_length_belong_to_another_model(
    gallery: Gallery, make_entry: Entry
) -> None:
    with pytest.raises(MismatchError, match="16 values, the gallery's 8"):
        gallery.add([make_entry("a", dim=16)])
    assert gallery.info()["scans"] == 0


@pytest.mark.parametrize("name", ["M\ud800ller", "M\udcc3\udca4ller"])
def test_a_name_that_no_file_can_have_is_refused(
    gallery: Gallery, make_entry: Entry, name: str
) -> None:
    """A surrogate that stands for no byte; two that stand for a valid letter."""
    report = gallery.add([make_entry("a", path=f"/scans/{name}"), make_entry("b", seed=1)])
    assert report.added == 1
    assert report.refused[0].code == "bad_name"


def test_names_that_are_no_utf8_come_back_as_they_were(gallery: Gallery, make_entry: Entry) -> None:
    name = os.fsdecode(b"/scans/M\xfcller \xff/caf\xc3\xa9")
    fields = {"scan_id": name, "path": name, "files": (name,), "slice_files": (name,)}
    entry = make_entry("a", **fields, label="M\udcfcller")
    assert gallery.add([entry, make_entry("b", seed=1)]).added == 2
    assert gallery.add([entry]).unchanged == 1
    (stored,) = gallery.lookup(scan_id=name)
    assert (stored.row.path, stored.row.scan_id, stored.row.files) == (name, name, (name,))
    assert stored.row.label == "M\udcfcller"
    found = gallery.catalogue.slice(stored.id, 0)
    assert found is not None
    assert found.file == name
    assert gallery.info()["classes"]["M\udcfcller"] == 1


def test_a_flipped_byte_in_such_a_name_is_noticed(gallery: Gallery, make_entry: Entry) -> None:
    name = os.fsdecode(b"/scans/M\xfcller")
    gallery.add([make_entry("a", path=name)])
    with sqlite3.connect(gallery.catalogue.path) as connection:
        connection.execute("UPDATE scans SET path = ?", (b"/scans/M\xfdller",))
    with pytest.raises(DamagedError):
        list(gallery.catalogue.stored())


def test_every_batch_is_kept_when_a_later_one_fails(gallery: Gallery, make_entry: Entry) -> None:
    def entries():  # type: ignore[no-untyped-def]
        yield from (make_entry(str(i), seed=i) for i in range(5))
        raise RuntimeError("the reader broke")

    with pytest.raises(RuntimeError):
        gallery.add(entries(), batch=2)
    assert gallery.info()["scans"] == 4
    assert gallery.info()["generation"] == 2


def test_info_counts_what_is_stored(gallery: Gallery, make_entry: Entry) -> None:
    gallery.add(
        [
            make_entry("a", n_slices=3, label="x", modality="CT", patient_id="P"),
            make_entry("b", seed=1, label="x", modality="CT", patient_id="P"),
            make_entry("c", seed=2),
        ]
    )
    info = gallery.info()
    counted = {"scans": 3, "slices": 5, "vectors": 6, "classes": {"x": 2}, "unlabelled": 1}
    counted |= {"modalities": {"unknown": 1, "CT": 2}, "patients": 1, "unknown_patients": 1}
    assert {key: info[key] for key in counted} == counted
    assert info["bytes"] > 10_000


def test_reads_inside_a_snapshot_share_it(gallery: Gallery, make_entry: Entry) -> None:
    gallery.add([make_entry("a")])
    with gallery.snapshot() as state:
        assert gallery.info()["generation"] == state.generation
        assert gallery.thumbnail(1) == b"jpeg of a"
        assert [scan.id for scan in gallery.lookup(scan_id="a")] == [1]


def test_info_loads_no_faiss(gallery: Gallery) -> None:
    code = (
        "import sys; from pathlib import Path; from medcli.retrieval.gallery import Gallery\n"
        "with Gallery.open(Path(sys.argv[1])) as gallery: gallery.info()\n"
        "print([name for name in ('faiss', 'torch') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(gallery.path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_the_gallery_holds_its_own_copy_of_the_model(gallery: Gallery, model_dir: Path) -> None:
    assert {f.name: f.read_bytes() for f in gallery.model_dir.iterdir()} == {
        f.name: f.read_bytes() for f in model_dir.iterdir()
    }


def test_another_model_is_refused_with_both_fingerprints(gallery: Gallery) -> None:
    gallery.check_fingerprint("f" * 64)
    with pytest.raises(MismatchError) as caught:
        gallery.check_fingerprint("a" * 64)
    assert "f" * 64 in caught.value.message
    assert "a" * 64 in caught.value.message
    assert "--model" in caught.value.hint


def test_engine_settings_travel_with_the_gallery(make_gallery: Callable[..., Gallery]) -> None:
    path = make_gallery(engine={"provider": "cpu"}).path
    with Gallery.open(path) as gallery:
        assert gallery.engine == {"provider": "cpu"}


def test_a_gallery_can_be_moved(gallery: Gallery, make_entry: Entry, tmp_path: Path) -> None:
    entry = make_entry("a")
    gallery.add([entry])
    gallery.close()
    moved = tmp_path / "else where" / "100% moved?"
    moved.parent.mkdir()
    gallery.path.rename(moved)
    with Gallery.open(moved, write=True) as again:
        again.add([make_entry("b", seed=1)])
        result = search(again, Query.from_embedding("q", entry.embedding), Wanted(k=2))
    assert [hit.id for hit in result.hits] == [1, 2]
    assert result.gallery["path"] == str(moved)
    assert result.warnings == ()


def test_the_patient_is_in_no_file_of_the_gallery(gallery: Gallery, make_entry: Entry) -> None:
    gallery.add([make_entry("a", patient_id=PATIENT), make_entry("b", seed=1, patient_id="P")])
    gallery.remove([2])
    files = [file for file in gallery.path.rglob("*") if file.is_file()]
    assert not [f for f in files if PATIENT.encode() in f.read_bytes()]
    assert gallery.lookup(id=1)[0].row.patient == gallery.patient_hash(PATIENT)


def test_patient_hashes_are_keyed_by_gallery(make_gallery: Callable[..., Gallery]) -> None:
    one, two = make_gallery("one"), make_gallery("two")
    assert one.patient_hash("P") != two.patient_hash("P")
    assert one.patient_hash("P") == one.patient_hash(" P ")
    assert len(one.patient_hash("P") or "") == 16
    assert one.patient_hash(None) is None
    assert one.patient_hash(" ") is None
    key = one.path / "patient.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert key.read_bytes() not in (one.path / "catalogue.sqlite").read_bytes()


def test_a_lost_or_changed_key_is_damage(gallery: Gallery) -> None:
    key = gallery.path / "patient.key"
    key.write_bytes(b"\0" * 32)
    with pytest.raises(DamagedError):
        gallery.patient_hash("P")
    key.unlink()
    with pytest.raises(DamagedError):
        gallery.patient_hash("P")


def test_an_existing_gallery_is_kept_without_overwrite(
    make_gallery: Callable[..., Gallery], make_entry: Entry
) -> None:
    make_gallery().add([make_entry("a")])
    with pytest.raises(OutputExistsError, match="index add"):
        make_gallery()
    new = make_gallery(overwrite=True)
    assert new.info()["scans"] == 0
    assert [item.name for item in new.path.parent.iterdir()] == ["gallery"]


@pytest.mark.parametrize("overwrite", [True, False])
def test_other_files_are_never_overwritten(
    make_gallery: Callable[..., Gallery], tmp_path: Path, overwrite: bool
) -> None:
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "chapter.txt").write_text("work of years")
    with pytest.raises(OutputExistsError, match=r"chapter\.txt"):
        make_gallery("thesis", overwrite=overwrite)
    gallery = make_gallery("mixed")
    (gallery.path / "notes.txt").write_text("mine")
    with pytest.raises(OutputExistsError, match=r"notes\.txt"):
        make_gallery("mixed", overwrite=True)


def test_an_empty_folder_becomes_a_gallery(
    make_gallery: Callable[..., Gallery], tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    assert make_gallery("empty").info()["scans"] == 0


def test_nothing_half_made_stays_when_creation_fails(
    make_gallery: Callable[..., Gallery], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(StorageError, match="No space left"):
        make_gallery("new")
    assert list(tmp_path.iterdir()) == []


def test_a_writer_of_a_replaced_gallery_is_told(
    make_gallery: Callable[..., Gallery], make_entry: Entry
) -> None:
    old = make_gallery()
    make_gallery(overwrite=True)
    with pytest.raises(UsageError, match="replaced"):
        old.add([make_entry("a")])


def test_a_gallery_inside_its_model_is_refused(tmp_path: Path, model_dir: Path) -> None:
    settings = {"fingerprint": "f", "dim": 8}
    with (
        pytest.raises(UsageError, match="inside its model"),
        Gallery.build(model_dir / "g", model_dir=model_dir, **settings),
    ):
        pass
    with (
        pytest.raises(UsageError, match="no model package"),
        Gallery.build(tmp_path / "g", model_dir=tmp_path / "none", **settings),
    ):
        pass


@pytest.mark.parametrize(
    "trouble", [KeyboardInterrupt("stop"), ScanError("truncated", "a.dcm is cut")]
)
def test_the_old_gallery_stays_when_a_build_is_broken_off(
    make_gallery: Callable[..., Gallery],
    make_entry: Entry,
    model_dir: Path,
    trouble: BaseException,
) -> None:
    old = make_gallery()
    old.add([make_entry("a")])
    settings = {"fingerprint": old.fingerprint, "dim": old.dim, "overwrite": True}
    with pytest.raises(BaseException, match=str(trouble)):  # noqa: SIM117, PT012
        with Gallery.build(old.path, model_dir=model_dir, **settings) as new:
            new.add([make_entry("b")])
            raise trouble
    assert [item.name for item in old.path.parent.iterdir()] == ["gallery"]
    with Gallery.open(old.path) as gallery:
        assert gallery.lookup(scan_id="a")


def test_a_missing_gallery_names_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="medcli index build"):
        Gallery.open(tmp_path / "none")
    with pytest.raises(UsageError, match="medcli index build"):
        Gallery.open(tmp_path)


def test_a_gallery_opened_for_reading_cannot_be_written(
    gallery: Gallery, make_entry: Entry
) -> None:
    with Gallery.open(gallery.path) as reader, pytest.raises(ValueError, match="for reading"):
        reader.add([make_entry("a")])


def test_a_newer_format_asks_for_an_upgrade(gallery: Gallery) -> None:
    gallery.close()
    connection = sqlite3.connect(gallery.path / "catalogue.sqlite")
    connection.execute("PRAGMA user_version = 99")
    with pytest.raises(DamagedError, match="format number"):
        Gallery.open(gallery.path)
    connection.execute("UPDATE meta SET value = 99 WHERE key = 'format_version'")
    connection.commit()
    connection.close()
    with pytest.raises(UsageError, match="upgrade medcli"):
        Gallery.open(gallery.path)
