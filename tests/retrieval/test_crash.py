"""Kills, damages and company: a part of benchmarks/crash.py; and faults of the system."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from medcli.errors import StorageError
from medcli.records import GalleryEntry
from medcli.retrieval.checking import check_rows
from medcli.retrieval.forgetting import forget_patient
from medcli.retrieval.gallery import Gallery
from medcli.retrieval.upkeep import check_caches, compact

Entry = Callable[..., GalleryEntry]
CRASH = Path(__file__).parents[2] / "benchmarks" / "crash.py"

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


def crash(*arguments: str) -> str:
    """What the benchmark prints; it ends with 1 if anything is wrong."""
    done = subprocess.run(
        [sys.executable, str(CRASH), *arguments], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_part_of_the_kills_damages_and_company_goes_well() -> None:
    told = crash(*("--kills", "20", "--damages", "60", "--writers", "3", "--additions", "10"))
    assert "wrong answers or crashes: 0" in told
    assert "rows=54, expected=54" in told
    kills = [line.split() for line in told.splitlines() if line.startswith(("build", "add"))]
    assert [row[1] for row in kills] == ["4", "4"]


@pytest.mark.slow
def test_eight_writers_and_more_kills_and_damages() -> None:
    told = crash("--kills", "60", "--damages", "200", "--additions", "20")
    assert "rows=184, expected=184" in told


# Faults of the system: the nth write, fsync or rename fails


class Faults:
    """Counts calls that reach the disk from Python, and lets the `nth` fail."""

    def __init__(self) -> None:
        self.count = 0
        self.nth = 0

    def strike(self) -> None:
        self.count += 1
        if self.count == self.nth:
            raise OSError(28, "No space left on device")


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Faults:
    """Wraps every fsync, rename, replace, copy and write that Python does for a gallery."""
    from medcli import files
    from medcli.retrieval import cache_files, folder

    struck = Faults()

    def failing(call: Callable[..., object]) -> Callable[..., object]:
        def wrapper(*arguments: object, **options: object) -> object:
            struck.strike()
            return call(*arguments, **options)

        return wrapper

    monkeypatch.setattr(files.os, "fsync", failing(os.fsync))
    monkeypatch.setattr(Path, "rename", failing(Path.rename))
    monkeypatch.setattr(Path, "replace", failing(Path.replace))
    monkeypatch.setattr(files, "exchange", failing(files.exchange))
    monkeypatch.setattr(folder.shutil, "copyfile", failing(shutil.copyfile))
    monkeypatch.setattr(cache_files, "replace_file", failing(files.replace_file))
    return struck


@contextmanager
def unless_full() -> Iterator[None]:
    caught = []
    try:
        yield
    except StorageError as error:
        caught.append(error)
    assert all(error.exit_status == 7 and "No space" in str(error) for error in caught)


@pytest.mark.parametrize("operation", ["build", "add", "remove", "compact", "forget"])
def test_whatever_fails_the_old_or_the_new_state_is_there(
    operation: str,
    make_gallery: Callable[..., Gallery],
    make_entry: Entry,
    model_dir: Path,
    faults: Faults,
    tmp_path: Path,
) -> None:
    template = make_gallery("template")
    template.add(make_entry(f"s{i}", seed=i, n_slices=2, patient_id=f"P{i}") for i in range(4))
    template.close()

    def work(path: Path) -> None:
        if operation == "build":
            settings = {"fingerprint": template.fingerprint, "dim": 8, "overwrite": True}
            with Gallery.build(path, model_dir=model_dir, **settings) as new:  # type: ignore[arg-type]
                new.add([make_entry("new", seed=9)])
            return
        with Gallery.open(path, write=True) as gallery:
            if operation == "add":
                gallery.add([make_entry("added", seed=9)])
            elif operation == "remove":
                gallery.remove([1])
            elif operation == "compact":
                compact(gallery)
            else:
                forget_patient(gallery, "P1")

    states = set()
    nth, total = 0, 1
    while nth <= total:
        path = tmp_path / f"g{nth}"
        shutil.copytree(template.path, path)
        faults.count, faults.nth = 0, nth
        with unless_full():
            work(path)
        total = faults.count if nth == 0 else total
        faults.nth = 0
        with Gallery.open(path, write=True) as again:
            states.add(again.info()["scans"])
            assert [*check_rows(again), *check_caches(again)] == []
            compact(again)
        assert not list(path.glob("*.tmp"))
        nth += 1
    assert total >= 2
    assert states <= {4, {"build": 1, "add": 5, "remove": 3, "compact": 4, "forget": 3}[operation]}
    assert not list(tmp_path.glob(".*.draft"))


@pytest.mark.skipif(sys.platform == "win32", reason="no RLIMIT_FSIZE")
@pytest.mark.parametrize("operation", ["index compact", "index remove 1"])
def test_a_full_disk_is_status_7_and_the_gallery_stays(
    operation: str, make_gallery: Callable[..., Gallery], make_entry: Entry
) -> None:
    gallery = make_gallery()
    pictures = {0: os.urandom(40_000)}
    gallery.add(make_entry(f"s{i}", seed=i, thumbnails=pictures) for i in range(8))
    gallery.close()
    words = [*operation.split(), "-g", str(gallery.path)]
    code = (
        "import resource, signal, sys; from medcli.cli.app import run\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        f"sys.exit(run({words!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 7, done.stderr
    assert done.stderr.startswith("error: ")
    with Gallery.open(gallery.path) as again:
        assert again.info()["scans"] == 8
        assert list(check_rows(again)) == []
