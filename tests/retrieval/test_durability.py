"""Damage, crashes, full disks, read-only folders and several processes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import faiss
import pytest

from medcli.errors import DamagedError, LockedError, StorageError, UsageError
from medcli.records import GalleryEntry, SearchResult
from medcli.retrieval import cache_files, folder
from medcli.retrieval.cache_files import read_cache
from medcli.retrieval.catalogue import Catalogue
from medcli.retrieval.forgetting import forget_patient
from medcli.retrieval.gallery import Gallery
from medcli.retrieval.query import Query, Wanted
from medcli.retrieval.search import search
from medcli.retrieval.storage import storage_errors, writer_lock

Entry = Callable[..., GalleryEntry]

# Adds scans of two slices, named by their number, one batch a scan; prints what is acknowledged.
WRITER = """
import sys
from pathlib import Path
import faiss
import numpy as np
from medcli.records import Embedding, GalleryEntry
from medcli.retrieval.cache_files import read_cache
from medcli.retrieval.catalogue import Catalogue
from medcli.retrieval.gallery import Gallery

path, prefix, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])

def entry(i):
    vectors = np.eye(8, dtype=np.float32)[[i % 8, (i + 1) % 8, (i + 2) % 8]]
    two = np.arange(2)
    embedding = Embedding(vectors[0], two, vectors[1:], two, ("m", "m"), two)
    name = f"{prefix}{i}"
    files = (f"/{name}/0", f"/{name}/1")
    return GalleryEntry(f"/{name}", name, files, files, embedding, pixel_sha256=name)

def entries():
    for i in range(count):
        if i:
            print(i, flush=True)  # all before this one are committed: batch is 1
        yield entry(i)

with Gallery.open(path, write=True) as gallery:
    gallery.add(entries(), batch=1)
print(count, flush=True)
"""


def writer(path: Path, prefix: str, count: int) -> subprocess.Popen[str]:
    """A process that adds `count` scans."""
    arguments = [sys.executable, "-c", WRITER, str(path), prefix, str(count)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def filled(gallery: Gallery, make_entry: Entry) -> Path:
    """A closed gallery of six scans, two of them with slices."""
    gallery.add(
        make_entry(f"s{i}", seed=i, n_slices=1 + 3 * (i % 3 == 0), patient_id=f"P{i}")
        for i in range(6)
    )
    gallery.close()
    return gallery.path


@pytest.fixture
def ask(make_entry: Entry) -> Callable[..., SearchResult]:
    """The answer of a gallery folder to one fixed query."""

    def answer(path: Path) -> SearchResult:
        with Gallery.open(path) as gallery:
            embedding = make_entry("query", seed=99).embedding
            return search(gallery, Query.from_embedding("query", embedding), Wanted(k=6))

    return answer


def cut(file: Path) -> None:
    """Lose the last third."""
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 2 // 3])


def flip(file: Path) -> None:
    """Turn one bit among FAISS's own bytes."""
    content = bytearray(file.read_bytes())
    content[-20] ^= 1
    file.write_bytes(content)


def garble_header(file: Path) -> None:
    """Overwrite the first line."""
    file.write_bytes(b"\xff" * 8 + file.read_bytes()[8:])


@pytest.mark.parametrize("damage", [cut, flip, garble_header, Path.unlink])
@pytest.mark.parametrize("level", ["scan", "slice"])
def test_a_damaged_cache_is_rebuilt_with_a_note(
    filled: Path, ask: Callable[..., SearchResult], damage: Callable[[Path], None], level: str
) -> None:
    before = ask(filled)
    damage(filled / f"{level}.faiss")
    rebuilt, after = ask(filled), ask(filled)
    assert rebuilt.hits == before.hits == after.hits
    assert [note.code for note in rebuilt.warnings] == ["index_rebuilt"]
    assert after.warnings == ()


@pytest.mark.parametrize("level", ["scan", "slice"])
def test_a_cache_of_an_earlier_version_is_read(
    filled: Path, ask: Callable[..., SearchResult], level: str
) -> None:
    before = ask(filled)
    file = filled / f"{level}.faiss"
    content = read_cache(file)
    assert content.ids is not None
    new = faiss.deserialize_index(content.index)
    kind = faiss.ScalarQuantizer.QT_fp16
    mapped = faiss.IndexIDMap(faiss.IndexScalarQuantizer(8, kind, faiss.METRIC_INNER_PRODUCT))
    mapped.add_with_ids(new.reconstruct_n(0, new.ntotal), content.ids)
    payload = faiss.serialize_index(mapped).tobytes()
    made_from = {key: value for key, value in content.made_from.items() if key != "rows"}
    head = json.dumps({**made_from, "bytes": len(payload)}).encode() + b"\n"
    digest = hashlib.sha256(head + payload).hexdigest().encode()
    file.write_bytes(head + digest + b"\n" + payload)
    after = ask(filled)
    assert after.hits == before.hits
    assert after.warnings == ()


def test_a_cache_of_another_generation_or_gallery_is_not_used(
    filled: Path,
    make_gallery: Callable[..., Gallery],
    make_entry: Entry,
    tmp_path: Path,
    ask: Callable[..., SearchResult],
) -> None:
    old = (filled / "scan.faiss").read_bytes()
    with Gallery.open(filled, write=True) as gallery:
        gallery.remove([2])
    expected = ask(filled)
    (filled / "scan.faiss").write_bytes(old)
    assert ask(filled).hits == expected.hits
    other = make_gallery("other")
    other.add([make_entry(f"x{i}", seed=50 + i) for i in range(6)])
    other.close()
    hits = ask(other.path).hits
    (other.path / "scan.faiss").write_bytes(old)  # same generation, count and length
    assert ask(other.path).hits == hits


def test_a_cache_that_cannot_be_saved_is_noted(
    filled: Path, ask: Callable[..., SearchResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    before = ask(filled)
    (filled / "scan.faiss").unlink()
    monkeypatch.setattr(cache_files, "replace_file", full)
    result = ask(filled)
    assert result.hits == before.hits
    assert [note.code for note in result.warnings] == ["index_rebuilt", "index_not_saved"]
    assert not list(filled.glob("*.tmp"))


@pytest.mark.parametrize("caches", [True, False])
def test_a_read_only_folder_answers_and_stays_as_it_is(
    filled: Path, ask: Callable[..., SearchResult], monkeypatch: pytest.MonkeyPatch, caches: bool
) -> None:
    before = ask(filled)
    if not caches:
        (filled / "scan.faiss").unlink()
    content = {file.name: file.stat().st_mtime_ns for file in filled.iterdir()}
    access = os.access
    monkeypatch.setattr(  # root may write everywhere; this stands for a read-only medium
        folder.os, "access", lambda p, mode: not mode & os.W_OK and access(p, mode)
    )
    result = ask(filled)
    assert result.hits == before.hits
    assert [note.code for note in result.warnings] == ([] if caches else ["index_rebuilt"])
    assert {file.name: file.stat().st_mtime_ns for file in filled.iterdir()} == content
    with pytest.raises(StorageError):
        Gallery.open(filled, write=True)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_write_permission_answers(
    filled: Path, ask: Callable[..., SearchResult]
) -> None:
    before = ask(filled)
    filled.chmod(0o555)
    try:
        assert ask(filled).hits == before.hits
    finally:
        filled.chmod(0o755)


def test_a_flipped_bit_of_a_row_is_an_error_and_no_answer(
    filled: Path, ask: Callable[..., SearchResult]
) -> None:
    connection = sqlite3.connect(filled / "catalogue.sqlite")
    connection.execute("UPDATE scans SET label = 'other' WHERE id = 3")
    connection.commit()
    connection.close()
    with pytest.raises(DamagedError, match="scan 3 does not match its checksum"):
        ask(filled)


def test_a_damaged_lookup_table_never_lets_the_own_patient_through(
    filled: Path, make_entry: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Catalogue, "find", lambda *_: [])
    with Gallery.open(filled) as gallery:
        embedding = make_entry("query", seed=99).embedding
        by_patient = Query.from_embedding("q", embedding, patient=gallery.patient_hash("P1"))
        by_pixels = Query.from_embedding("q", embedding, pixel_sha256="pixels of s2")
        for query in (by_patient, by_pixels):
            with pytest.raises(DamagedError, match="lookup tables"):
                search(gallery, query, Wanted(k=6))


def test_a_waiting_log_in_a_read_only_folder_is_never_ignored(
    gallery: Gallery, make_entry: Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery.add([make_entry("a")])
    copy = tmp_path / "copy"
    shutil.copytree(gallery.path, copy)  # the writer is still open: its rows are in the log
    access = os.access
    monkeypatch.setattr(folder.os, "access", lambda p, mode: not mode & os.W_OK and access(p, mode))
    with Gallery.open(copy) as reader:
        assert reader.info()["scans"] == 1


@pytest.mark.parametrize("size", [0, 50, 5000])
def test_a_truncated_catalogue_is_damage(
    filled: Path, ask: Callable[..., SearchResult], size: int
) -> None:
    os.truncate(filled / "catalogue.sqlite", size)
    with pytest.raises(DamagedError):
        ask(filled)


def test_a_lost_catalogue_is_damage(filled: Path, ask: Callable[..., SearchResult]) -> None:
    (filled / "catalogue.sqlite").unlink()
    with pytest.raises(DamagedError):
        ask(filled)


def test_random_damage_gives_the_same_answer_or_an_error(
    filled: Path, ask: Callable[..., SearchResult], tmp_path: Path
) -> None:
    before = ask(filled).hits
    chance = random.Random(0)
    for trial in range(60):
        copy = tmp_path / f"copy{trial}"
        shutil.copytree(filled, copy)
        file = copy / chance.choice(["catalogue.sqlite", "scan.faiss", "slice.faiss"])
        content = bytearray(file.read_bytes())
        start = chance.randrange(len(content))
        length = chance.choice([1, 16, 512])
        content[start : start + length] = chance.randbytes(len(content[start : start + length]))
        file.write_bytes(content)
        with contextlib.suppress(DamagedError, UsageError):  # the latter: the format's number
            assert ask(copy).hits == before
        shutil.rmtree(copy)


@pytest.mark.parametrize("seconds", [0.0, 0.02, 0.1])
def test_a_killed_writer_loses_nothing_acknowledged(gallery: Gallery, seconds: float) -> None:
    process = writer(gallery.path, "s", 500)
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    acknowledged = max([1, *map(int, process.stdout.read().split())])
    process.wait()
    process.stdout.close()
    with Gallery.open(gallery.path, write=True, lock_timeout=1) as again:
        scans = again.info()["scans"]
        assert acknowledged <= scans <= acknowledged + 1
        assert all(again.lookup(scan_id=f"s{i}") for i in range(scans))
        assert again.remove([1]) == 1  # the dead process holds no lock


def test_concurrent_writers_all_land(gallery: Gallery) -> None:
    processes = [writer(gallery.path, prefix, 40) for prefix in "ab"]
    for process in processes:
        process.communicate(timeout=60)
        assert process.returncode == 0
    info = gallery.info()
    assert (info["scans"], info["vectors"], info["generation"]) == (80, 240, 80)


def read_elsewhere(folder: Path) -> None:
    """Open and close the gallery in another process, which may find itself alone."""
    read = "from pathlib import Path; from medcli.retrieval.gallery import Gallery\n"
    read += f"with Gallery.open(Path({str(folder)!r})) as gallery: gallery.info()"
    subprocess.run([sys.executable, "-c", read], check=True)


def test_a_reader_that_leaves_never_takes_the_log_from_under_a_writer(
    gallery: Gallery, make_entry: Entry
) -> None:
    gallery.add([make_entry("a", patient_id="P")])
    with Gallery.open(gallery.path, write=True), Gallery.open(gallery.path):
        pass  # opened and closed beside `gallery`, as a search within `update` would
    log = gallery.path / "catalogue.sqlite-wal"
    read_elsewhere(gallery.path)
    assert log.exists()
    gallery.add([make_entry("b", seed=1)])
    assert forget_patient(gallery, "P").found_after == 0  # it reads the files beside SQLite
    read_elsewhere(gallery.path)
    assert log.exists()
    gallery.add([make_entry("c", seed=2)])
    with Gallery.open(gallery.path) as reader:
        assert reader.info()["scans"] == 2


def test_a_reader_sees_one_generation_while_another_writes(
    gallery: Gallery, make_entry: Entry
) -> None:
    gallery.add([make_entry("a")])
    with Gallery.open(gallery.path) as reader, reader.snapshot() as before:
        gallery.add([make_entry("b", seed=1)])
        assert len(list(reader.catalogue.stored())) == before.scans == 1
        index, _ = reader.caches.index("scan", before)
        assert len(index) == 1
    with Gallery.open(gallery.path) as reader, reader.snapshot() as after:
        index, notes = reader.caches.index("scan", after)
        assert (len(index), notes) == (2, ())  # the older reader did not replace the newer file


def test_a_held_lock_ends_in_an_error_after_its_timeout(filled: Path, make_entry: Entry) -> None:
    with (
        Gallery.open(filled, write=True, lock_timeout=0.1) as gallery,
        writer_lock(filled / "writer.lock", 0),
        pytest.raises(LockedError, match="another process"),
    ):
        gallery.add([make_entry("a")])


@pytest.mark.skipif(sys.platform == "win32", reason="no RLIMIT_FSIZE")
def test_a_full_disk_is_reported_and_what_was_acknowledged_stays(filled: Path) -> None:
    code = (
        "import resource, sys; size = int(sys.argv.pop(4))\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))\n"
    )
    size = (filled / "catalogue.sqlite").stat().st_size  # the log may grow to this
    arguments = [sys.executable, "-c", code + WRITER, str(filled), "n", "2000", str(size)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    acknowledged = [int(line) for line in done.stdout.split()]
    assert "StorageError" in done.stderr
    with Gallery.open(filled) as gallery, gallery.snapshot() as state:
        names = {scan.row.scan_id for scan in gallery.catalogue.stored()}
        assert len(names) == state.scans
    assert names >= {f"s{i}" for i in range(6)} | {f"n{i}" for i in range(max(acknowledged))}


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (sqlite3.SQLITE_BUSY, LockedError),
        (sqlite3.SQLITE_FULL, StorageError),
        (sqlite3.SQLITE_IOERR | 3 << 8, StorageError),
        (sqlite3.SQLITE_READONLY, StorageError),
        (sqlite3.SQLITE_CORRUPT, DamagedError),
        (sqlite3.SQLITE_NOTADB, DamagedError),
    ],
)
def test_result_codes_of_sqlite_become_errors_of_the_tree(code: int, kind: type) -> None:
    error = sqlite3.OperationalError("trouble")
    error.sqlite_errorcode = code
    with pytest.raises(kind), storage_errors(Path("catalogue.sqlite")):
        raise error


@pytest.mark.parametrize("order", ["faiss, SimpleITK", "SimpleITK, faiss"])
def test_caches_are_written_and_read_whichever_swig_library_came_first(
    filled: Path, order: str
) -> None:
    (filled / "scan.faiss").unlink()
    code = f"""
import {order}
from pathlib import Path
from medcli.retrieval.gallery import Gallery
with Gallery.open(Path({str(filled)!r}), write=True) as gallery:
    print(gallery.refresh())
with Gallery.open(Path({str(filled)!r})) as gallery, gallery.snapshot() as state:
    index, notes = gallery.caches.index("scan", state)
    print(len(index), notes)
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "()\n6 ()\n", done.stderr
