"""Checking, repairing, compacting; the formats of a catalogue; paths from a root."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from medcli.errors import DamagedError, LockedError, MedcliError
from medcli.records import GalleryEntry, Source
from medcli.retrieval.checking import (
    check_rows,
    compare_canaries,
    keep_canaries,
    stored_canaries,
)
from medcli.retrieval.folder import sweep_drafts
from medcli.retrieval.gallery import Gallery
from medcli.retrieval.query import Query
from medcli.retrieval.search import search
from medcli.retrieval.selecting import select
from medcli.retrieval.sources import rewrite, stored_sources, touch, with_content
from medcli.retrieval.storage import held_folder
from medcli.retrieval.upkeep import (
    check_caches,
    compact,
    damaged_scan,
    forget_source,
    recount,
    restore,
    restore_slices,
)

Entry = Callable[..., GalleryEntry]


def source(name: str) -> Source:
    return Source("dicom", ((10, 1),), f"content of {name}")


@pytest.fixture
def filled(gallery: Gallery, make_entry: Entry) -> Gallery:
    """Six scans of six patients, those of even number with three slices."""
    gallery.add(
        make_entry(
            f"s{i}",
            seed=i,
            n_slices=3 if i % 2 else 1,
            label=("benign", "malignant")[i % 2],
            patient_id=f"P{i}",
            source=source(f"s{i}"),
        )
        for i in range(6)
    )
    return gallery


def change(gallery: Gallery, statement: str) -> None:
    """Change the catalogue behind its back."""
    connection = sqlite3.connect(gallery.catalogue.path)
    connection.execute(statement)
    connection.commit()
    connection.close()


def codes(gallery: Gallery) -> list[tuple[str, int | None]]:
    return [(each.code, each.scan) for each in (*check_rows(gallery), *check_caches(gallery))]


# Checks


def test_a_sound_gallery_has_no_problem(filled: Gallery) -> None:
    assert codes(filled) == []


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("UPDATE scans SET label = 'malignant' WHERE id = 3", ("row_damaged", 3)),
        ("UPDATE scans SET label = x'00ff' WHERE id = 3", ("row_damaged", 3)),
        ("UPDATE vectors SET vector = zeroblob(16) WHERE scan = 2", ("row_damaged", 2)),
        ("UPDATE vectors SET view = 'other' WHERE scan = 2", ("row_damaged", 2)),
        ("UPDATE slices SET thumbnail = x'00' WHERE scan = 4 AND slice = 0", ("slice_damaged", 4)),
        ("UPDATE slices SET file = 'other' WHERE scan = 4 AND slice = 1", ("slice_damaged", 4)),
        ("DELETE FROM slices WHERE scan = 4 AND slice = 2", ("slice_damaged", 4)),
        ("UPDATE sources SET sha256 = 'other' WHERE scan = 5", ("source_damaged", 5)),
        ("UPDATE sources SET recipe = NULL WHERE scan = 5", ("source_damaged", 5)),
    ],
)
def test_every_change_of_a_row_is_named_with_its_scan(
    filled: Gallery, statement: str, expected: tuple[str, int]
) -> None:
    change(filled, statement)
    assert codes(filled) == [expected]


def test_settings_and_counters_are_guarded(filled: Gallery) -> None:
    change(filled, "UPDATE meta SET value = value + 1 WHERE key = 'generation'")
    assert {code for code, _ in codes(filled)} == {"catalogue_damaged"}
    with pytest.raises(DamagedError, match="settings do not match"):
        Gallery.open(filled.path)


def test_a_row_that_vanished_is_missed(filled: Gallery) -> None:
    change(filled, "DELETE FROM vectors WHERE scan = 6")
    change(filled, "DELETE FROM scans WHERE id = 6")
    assert ("counters_wrong", None) in codes(filled)
    recount(filled)
    assert codes(filled) == [("catalogue_damaged", None)]  # its slices have no scan


def test_lookup_tables_that_miss_a_row_are_named(filled: Gallery) -> None:
    connection = sqlite3.connect(filled.catalogue.path)
    connection.execute("PRAGMA writable_schema = ON")
    connection.execute(
        "UPDATE sqlite_master SET sql = "
        "'CREATE INDEX scans_by_patient ON scans (patient) WHERE patient IS NULL' "
        "WHERE name = 'scans_by_patient'"
    )
    connection.commit()
    connection.close()
    with Gallery.open(filled.path) as again:
        assert {code for code, _ in codes(again)} == {"catalogue_damaged"}


@pytest.mark.parametrize("name", ["scan.faiss", "labels.numbers"])
def test_a_damaged_cache_is_named_and_an_absent_one_is_no_problem(
    filled: Gallery, name: str
) -> None:
    file = filled.path / name
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    assert codes(filled) == [("index_damaged", None)]
    file.unlink()
    assert codes(filled) == []
    filled.rebuild()
    assert file.exists()
    assert codes(filled) == []


def test_writes_that_are_lost_are_known_by_the_cache(filled: Gallery, make_entry: Entry) -> None:
    filled.close()
    old = filled.catalogue.path.read_bytes()
    with Gallery.open(filled.path, write=True) as again:
        again.add([make_entry("late", seed=30)])
    filled.catalogue.path.write_bytes(old)
    with Gallery.open(filled.path) as again:
        assert codes(again) == [("generation_lost", None)] * 3  # scans, slices, labels


def test_canaries_tell_another_engine(filled: Gallery, unit: Callable[..., object]) -> None:
    vectors = {"grey": unit(1)[0], "ct": unit(1, 1)[0]}  # type: ignore[index]
    keep_canaries(filled, vectors)
    stored = stored_canaries(filled)
    assert list(compare_canaries(stored, vectors)) == []
    (problem,) = compare_canaries(stored, {**vectors, "ct": -vectors["ct"]})
    assert problem.code == "engine_changed"
    assert "cosine -1.0000" in problem.message
    change(filled, "UPDATE canaries SET vector = zeroblob(32) WHERE name = 'ct'")
    with pytest.raises(DamagedError, match="ct does not match"):
        stored_canaries(filled)


# Repairs


def entry_of(make_entry: Entry, i: int, **fields: object) -> GalleryEntry:
    """What reading scan s`i` of `filled` again gives; its label is known to the gallery only."""
    return make_entry(
        f"s{i}",
        **{
            "seed": i,
            "n_slices": 3 if i % 2 else 1,
            "patient_id": f"P{i}",
            "source": source(f"s{i}"),
            **fields,
        },
    )


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE scans SET label = 'benign' WHERE id = 2",
        "UPDATE scans SET label = 'mali\\x01gnant', modality = 'XX' WHERE id = 2",
        "UPDATE scans SET patient = NULL WHERE id = 2",
        "UPDATE scans SET checksum = x'00' WHERE id = 2",
        "UPDATE vectors SET vector = zeroblob(16) WHERE scan = 2",
        "DELETE FROM vectors WHERE scan = 2 AND slice = 1",
    ],
)
def test_a_damaged_row_is_restored_from_its_source_and_its_checksum(
    filled: Gallery, make_entry: Entry, statement: str
) -> None:
    (before,) = filled.lookup(id=2)
    change(filled, statement)
    assert codes(filled)[0] == ("row_damaged", 2)
    damaged = damaged_scan(filled, 2)
    assert damaged is not None
    assert restore(filled, damaged, entry_of(make_entry, 1))
    (after,) = filled.lookup(id=2)
    assert after.row == before.row
    assert after.vectors.tobytes() == before.vectors.tobytes()
    recount(filled)
    filled.rebuild()
    assert codes(filled) == []


def test_what_cannot_be_proven_stays_as_it_is(filled: Gallery, make_entry: Entry) -> None:
    change(filled, "UPDATE scans SET label = 'else' WHERE label = 'malignant'")  # all of them
    damaged = damaged_scan(filled, 2)
    assert damaged is not None
    assert not restore(filled, damaged, entry_of(make_entry, 1))
    assert ("row_damaged", 2) in codes(filled)
    other = entry_of(make_entry, 1, pixel_sha256="other pixels")
    change(filled, "UPDATE scans SET label = 'malignant' WHERE id = 4")
    assert not restore(filled, damaged, other)


def test_slices_are_made_anew(filled: Gallery, make_entry: Entry) -> None:
    change(filled, "UPDATE slices SET thumbnail = x'00' WHERE scan = 4 AND slice = 0")
    change(filled, "DELETE FROM slices WHERE scan = 4 AND slice = 2")
    restore_slices(filled, 4, entry_of(make_entry, 3))
    assert filled.thumbnail(4, 0) == b"jpeg of s3"
    filled.rebuild()
    assert codes(filled) == []


def test_a_damaged_source_is_dropped_to_be_noted_anew(filled: Gallery) -> None:
    change(filled, "UPDATE sources SET sha256 = 'other' WHERE scan = 5")
    assert damaged_scan(filled, 5) is None
    forget_source(filled, 5)
    assert codes(filled) == []
    (known,) = stored_sources(filled.catalogue, [5])
    assert known.source is None


# Formats


def to_format_1(gallery: Gallery) -> None:
    """Turn a gallery of format 2 without a root into what format 1 was."""
    gallery.close()
    for statement in (
        "DROP TABLE sources",
        "DROP TABLE canaries",
        "DELETE FROM meta WHERE key IN ('checksum', 'root')",
        "UPDATE meta SET value = 1 WHERE key = 'format_version'",
        "PRAGMA user_version = 1",
    ):
        change(gallery, statement)


def test_a_gallery_of_format_1_answers_and_the_first_write_upgrades_it(
    filled: Gallery, make_entry: Entry
) -> None:
    to_format_1(filled)
    with Gallery.open(filled.path) as old:
        assert codes(old) == []
        assert [each.source for each in stored_sources(old.catalogue)] == [None] * 6
        assert stored_canaries(old) == {}
        query = Query.from_embedding("q", make_entry("q", seed=99).embedding)
        before = search(old, query)
        with Gallery.open(filled.path, write=True) as writer:
            writer.add([make_entry("new", seed=20, source=source("new"))])
        assert len(list(stored_sources(old.catalogue))) == 7  # the reader follows
    with Gallery.open(filled.path, write=True) as new:
        assert codes(new) == []
        assert new.lookup(id=7)[0].row.scan_id == "new"
        assert with_content(new.catalogue, "content of new")[0].id == 7
        new.remove([7])
        assert search(new, query).hits == before.hits
        with new.writing():
            touch(new.catalogue, 1, source("s0"))
        assert codes(new) == []


# Paths


def test_paths_are_stored_from_the_root_and_follow_it(
    make_gallery: Callable[..., Gallery], make_entry: Entry
) -> None:
    gallery = make_gallery(root="/scans")
    inside = make_entry("in", scan_id="/scans/in", n_slices=2)
    outside = make_entry("out", path="/elsewhere/out", files=("/elsewhere/out",), seed=1)
    beside = make_entry("beside", path="/scans2/b", files=("/scans2/b",), seed=2)
    gallery.add([inside, outside, beside])
    assert gallery.add([inside]).unchanged == 1
    assert b"/scans/in" not in gallery.catalogue.path.read_bytes()
    assert [s.row.path for i in (1, 2, 3) for s in gallery.lookup(id=i)] == [
        "/scans/in",
        "/elsewhere/out",
        "/scans2/b",
    ]
    with gallery.writing():
        gallery.catalogue.set_meta("root", "/mnt/moved")
    (moved,) = gallery.lookup(scan_id="/mnt/moved/in")
    assert (moved.id, moved.row.files) == (1, ("/mnt/moved/in",))
    hit = search(gallery, Query.from_embedding("q", inside.embedding)).hits[0]
    assert (hit.path, hit.file) == ("/mnt/moved/in", "/mnt/moved/in/0.dcm")
    assert codes(gallery) == []


def test_a_scan_moves_under_its_id(filled: Gallery) -> None:
    (old,) = stored_sources(filled.catalogue, [2])
    row = replace(old.row, path="/new/s1", files=("/new/s1",), label="benign")
    generation = filled.info()["generation"]
    with filled.writing():
        rewrite(filled.catalogue, 2, row, source("s1"), {0: "/new/s1/0.dcm"})
    assert filled.info()["generation"] == generation + 1
    (stored,) = filled.lookup(id=2)
    assert (stored.row.path, stored.row.label) == ("/new/s1", "benign")
    filled.rebuild()
    assert codes(filled) == []


def test_noting_a_time_of_change_changes_no_generation(filled: Gallery) -> None:
    generation = filled.info()["generation"]
    with filled.writing():
        touch(filled.catalogue, 2, replace(source("s1"), stats=((10, 2),)))
    assert filled.info()["generation"] == generation
    assert next(stored_sources(filled.catalogue, [2])).source.stats == ((10, 2),)  # type: ignore[union-attr]


def test_scans_are_chosen_by_id_path_file_and_folder(filled: Gallery) -> None:
    assert select(filled, ["3", "/scans/s0"]) == ([1, 3], [])
    assert select(filled, ["/scans"]) == ([1, 2, 3, 4, 5, 6], [])
    assert select(filled, ["99", "/scan", "s5"]) == ([6], ["99", "/scan"])


# Compaction


def test_compaction_gives_space_back_and_keeps_every_row(
    gallery: Gallery, make_entry: Entry
) -> None:
    gallery.add(make_entry(f"s{i}", seed=i, thumbnails={0: bytes(4000)}) for i in range(100))
    gallery.remove(range(1, 91))
    kept = [scan.row for scan in gallery.catalogue.stored()]
    done = compact(gallery)
    assert done.after < done.before / 2
    assert [scan.row for scan in gallery.catalogue.stored()] == kept
    gallery.add([make_entry("next", seed=200)])
    assert gallery.lookup(scan_id="next")[0].id == 101  # ids are never reused
    assert codes(gallery) == []


def test_a_reader_goes_on_during_a_compaction_which_tells_that_it_is_there(
    filled: Gallery, monkeypatch: pytest.MonkeyPatch, make_entry: Entry
) -> None:
    filled.catalogue.connection.execute("PRAGMA busy_timeout = 50")
    with Gallery.open(filled.path) as reader, reader.snapshot() as state:
        filled.add([make_entry("late", seed=40)])
        with pytest.raises(LockedError, match="reader"):
            compact(filled)
        assert len(list(reader.catalogue.stored())) == state.scans == 6
    compact(filled)
    assert codes(filled) == []


def test_drafts_of_killed_builds_go_and_those_in_work_stay(filled: Gallery, tmp_path: Path) -> None:
    dead, alive, foreign = (tmp_path / f".{digit * 16}.draft" for digit in "0ab")
    for folder in (dead, alive, foreign):
        folder.mkdir()
        (folder / "patient.key").touch()
    (foreign / "thesis.txt").touch()
    with held_folder(alive) as held:
        assert held
        assert sweep_drafts(filled.path) == 1
    assert [folder.exists() for folder in (dead, alive, foreign)] == [False, True, True]
    assert compact(filled).drafts == 1
    assert foreign.exists()


def test_a_build_in_work_is_not_swept_by_another(
    make_gallery: Callable[..., Gallery], model_dir: Path, tmp_path: Path
) -> None:
    with Gallery.build(tmp_path / "slow", model_dir=model_dir, fingerprint="f", dim=8) as slow:
        make_gallery("quick")
        assert slow.path.exists()
    with Gallery.open(tmp_path / "slow") as done:
        assert done.info()["scans"] == 0


def test_a_damaged_gallery_is_not_compacted_away(filled: Gallery) -> None:
    change(filled, "UPDATE scans SET label = 'other' WHERE id = 3")
    with pytest.raises(MedcliError, match="scan 3"):
        compact(filled)
    assert filled.info()["scans"] == 6
