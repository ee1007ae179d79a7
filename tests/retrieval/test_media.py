"""A gallery on a network file system: the type is injected, all else is real."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from medcli.errors import LockedError, StorageError
from medcli.records import GalleryEntry
from medcli.retrieval import media
from medcli.retrieval.checking import check_rows
from medcli.retrieval.forgetting import forget_patient
from medcli.retrieval.gallery import Gallery
from medcli.retrieval.query import Query, Wanted
from medcli.retrieval.schema import keeps_log
from medcli.retrieval.search import search
from medcli.retrieval.upkeep import check_caches, compact

Entry = Callable[..., GalleryEntry]
MOUNTS = """\
22 1 8:1 / / rw - ext4 /dev/sda1 rw
30 22 0:40 / /mnt/with\\040blank rw shared:7 - nfs4 server:/export rw
31 22 0:41 / /mnt/ssh rw - fuse.sshfs user@host:/ rw
32 31 0:42 / /mnt/ssh/inner rw - ext4 /dev/sdb1 rw
33 22 0:43 / /mnt/share rw - autofs map rw
34 33 0:44 / /mnt/share rw - cifs //server/share rw
35 22 8:9 / /mnt/usb rw - fuseblk /dev/sdc1 rw
36 22 0:45 / /mnt/other rw - fuse.mergerfs a:b rw
37 22 0:46 / /mnt/vm rw - 9p host rw
"""


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let every folder lie on a file system of the type given."""

    def lie(name: str) -> None:
        monkeypatch.setattr(media, "file_system", lambda folder: name)
        monkeypatch.setattr("medcli.retrieval.folder.file_system", lambda folder: name)

    return lie


@pytest.mark.parametrize(
    ("folder", "medium"),
    [
        ("/home/x", "local"),
        ("/mnt/with blank/archive", "network"),
        ("/mnt/with blanks", "local"),
        ("/mnt/ssh", "without locks"),
        ("/mnt/ssh/inner/a", "local"),
        ("/mnt/share/a", "network"),
        ("/mnt/usb", "local"),
        ("/mnt/other", "network"),
        ("/mnt/vm/a", "network"),
    ],
)
def test_the_mounts_say_what_a_folder_lies_on(
    folder: str, medium: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mountinfo").write_text(MOUNTS)
    monkeypatch.setattr(media, "_MOUNTS", tmp_path / "mountinfo")
    assert media.medium(Path(folder)) == medium
    monkeypatch.setattr(media, "_MOUNTS", tmp_path / "none")
    assert media.medium(Path(folder)) == "local"


@pytest.mark.parametrize("name", ["nfs", "nfs4", "cifs", "9p", "fuse.unknown"])
def test_a_network_gets_a_rollback_journal_and_all_commands_work(
    on: Callable[[str], None],
    make_gallery: Callable[..., Gallery],
    make_entry: Entry,
    name: str,
) -> None:
    on(name)
    gallery = make_gallery()
    gallery.add(make_entry(f"s{i}", seed=i, n_slices=2, patient_id=f"P{i}") for i in range(5))
    gallery.remove([2])
    compact(gallery)
    assert forget_patient(gallery, "P3").found_after == 0
    embedding = make_entry("query", seed=9).embedding
    result = search(gallery, Query.from_embedding("query", embedding), Wanted(5))
    assert [note.code for note in result.warnings] == ["fewer_hits"]
    assert sorted(hit.id for hit in result.hits) == [1, 3, 5]
    assert [*check_rows(gallery), *check_caches(gallery)] == []
    assert not keeps_log(gallery.path / "catalogue.sqlite")
    assert not list(gallery.path.glob("catalogue.sqlite-*"))


def test_a_gallery_changes_its_journal_with_its_place(
    on: Callable[[str], None], gallery: Gallery, make_entry: Entry
) -> None:
    file = gallery.path / "catalogue.sqlite"
    gallery.add([make_entry("local")])
    gallery.close()
    assert keeps_log(file)
    on("nfs4")
    with Gallery.open(gallery.path) as reader:  # only read: as it is
        assert reader.info()["scans"] == 1
    assert keeps_log(file)
    with Gallery.open(gallery.path, write=True) as writer:
        writer.add([make_entry("remote", seed=1)])
    assert not keeps_log(file)
    on("ext4")
    with Gallery.open(gallery.path, write=True) as writer:
        writer.add([make_entry("local again", seed=2)])
    assert keeps_log(file)
    with Gallery.open(gallery.path) as reader:
        assert reader.info()["scans"] == 3


def test_a_log_that_came_over_is_taken_in_by_a_writer_and_refused_to_a_reader(
    on: Callable[[str], None], gallery: Gallery, make_entry: Entry, tmp_path: Path
) -> None:
    gallery.add([make_entry("a")])
    copy = tmp_path / "copy"
    shutil.copytree(gallery.path, copy)  # the writer is still open: its rows are in the log
    (copy / "catalogue.sqlite-shm").unlink()
    on("nfs4")
    with pytest.raises(StorageError, match="unfinished write-ahead log"):
        Gallery.open(copy)
    with Gallery.open(copy, write=True) as writer:
        assert writer.info()["scans"] == 1
    with Gallery.open(copy) as reader:
        assert reader.info()["scans"] == 1
    assert not list(copy.glob("catalogue.sqlite-*"))


def test_a_reader_keeps_one_state_and_a_writer_waits_for_it(
    on: Callable[[str], None],
    make_gallery: Callable[..., Gallery],
    make_entry: Entry,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    on("nfs4")
    monkeypatch.setattr("medcli.retrieval.schema._BUSY_SECONDS", 0.05)
    gallery = make_gallery()
    gallery.add([make_entry("a")])
    with Gallery.open(gallery.path) as reader, reader.snapshot() as state:
        assert len(list(reader.catalogue.stored())) == state.scans == 1
        with pytest.raises(LockedError):
            gallery.add([make_entry("b", seed=1)])
        assert len(list(reader.catalogue.stored())) == 1
    gallery.add([make_entry("b", seed=1)])
    assert gallery.info()["scans"] == 2


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_a_writer_killed_over_a_network_loses_nothing_acknowledged(
    on: Callable[[str], None], make_gallery: Callable[..., Gallery]
) -> None:
    from tests.retrieval.test_durability import WRITER

    on("nfs4")
    gallery = make_gallery()
    code = "import medcli.retrieval.media as m; m.file_system = lambda folder: 'nfs4'\n" + WRITER
    arguments = [sys.executable, "-c", code, str(gallery.path), "s", "500"]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for _ in range(7):
        process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    acknowledged = max(map(int, process.stdout.read().split()), default=7)
    process.wait()
    process.stdout.close()
    with Gallery.open(gallery.path, write=True, lock_timeout=1) as again:
        scans = again.info()["scans"]
        assert acknowledged <= scans <= acknowledged + 1
        assert list(check_rows(again)) == []


@pytest.mark.parametrize("name", ["fuse.sshfs", "fuse.rclone", "davfs"])
def test_where_no_lock_holds_a_gallery_is_read_and_not_written(
    on: Callable[[str], None], gallery: Gallery, make_entry: Entry, model_dir: Path, name: str
) -> None:
    gallery.add([make_entry("a")])
    gallery.close()
    on(name)
    with Gallery.open(gallery.path) as reader:
        assert reader.info()["scans"] == 1
    with pytest.raises(StorageError, match=f"lies on {name}") as caught:
        Gallery.open(gallery.path, write=True)
    assert caught.value.exit_status == 7
    other = gallery.path.with_name("other")
    with (
        pytest.raises(StorageError, match="not written"),
        Gallery.build(other, model_dir=model_dir, fingerprint="f" * 64, dim=8),
    ):
        pass
    assert not other.exists()


def test_a_waiting_journal_in_a_read_only_folder_is_never_ignored(
    on: Callable[[str], None],
    make_gallery: Callable[..., Gallery],
    make_entry: Entry,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    on("nfs4")
    gallery = make_gallery()
    gallery.add([make_entry("a")])
    copy = tmp_path / "copy"
    with gallery.writing():
        gallery.catalogue.connection.execute("PRAGMA cache_size = 1")  # pages go out at once
        gallery.catalogue.connection.execute("PRAGMA cache_spill = 1")
        gallery.catalogue.delete(1)
        for number in range(300):
            gallery.catalogue.set_meta(f"filler {number}", "x" * 3000)
        shutil.copytree(gallery.path, copy)
    assert (copy / "catalogue.sqlite-journal").stat().st_size
    from medcli.retrieval import folder

    access = os.access
    monkeypatch.setattr(folder.os, "access", lambda p, mode: not mode & os.W_OK and access(p, mode))
    with pytest.raises(StorageError):
        Gallery.open(copy)
    monkeypatch.setattr(folder.os, "access", access)
    with Gallery.open(copy) as reader:
        assert reader.info()["scans"] == 1
