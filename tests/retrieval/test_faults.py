"""Every write, sync, rename and removal fails once, SQLite's own included; and a full disk."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from medcli.errors import StorageError
from medcli.records import GalleryEntry
from medcli.retrieval.checking import check_rows
from medcli.retrieval.gallery import Gallery
from medcli.retrieval.query import Query
from medcli.retrieval.search import search

Entry = Callable[..., GalleryEntry]
HERE = Path(__file__).parent
ROWS = {"build": 1, "add": 5, "remove": 3, "compact": 4, "forget": 3}

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="LD_PRELOAD is of Linux")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """faults.c, compiled."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler: faults.c cannot be built")
    target = tmp_path_factory.mktemp("faults") / "faults.so"
    command = [compiler, "-shared", "-fPIC", "-o", str(target), str(HERE / "faults.c"), "-ldl"]
    subprocess.run(command, check=True)
    return target


def points(library: Path, operation: str, folder: Path, step: int) -> Iterator[tuple[int, ...]]:
    """Number of the call, whether the disk stays full, exit status, scans afterwards."""
    command = [sys.executable, str(HERE / "fault_points.py"), operation, str(folder), str(step)]
    done = subprocess.run(
        command, env={**os.environ, "LD_PRELOAD": str(library)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    *lines, last = done.stdout.splitlines()
    assert int(last.removeprefix("calls ")) > 20, done.stdout
    for line in lines:
        yield tuple(map(int, line.split()))  # a word in it is an error that was not translated


def check(operation: str, found: list[tuple[int, ...]]) -> None:
    """The old or the new state, whole; whatever was raised has status 7; success is success."""
    assert found[0] == (0, 0, 0, ROWS[operation])
    for nth, _, status, scans in found:
        assert status in (0, 7), nth
        assert scans in (4, ROWS[operation]), nth
        if status == 0:
            assert scans == ROWS[operation], nth
    assert any(status == 7 for _, _, status, _ in found)


@pytest.mark.parametrize("operation", ["add", "compact"])
def test_some_calls_to_the_disk_fail_and_the_old_or_new_state_is_there(
    library: Path, operation: str, tmp_path: Path
) -> None:
    check(operation, list(points(library, operation, tmp_path, 11)))


@pytest.mark.slow
@pytest.mark.parametrize("operation", ROWS)
def test_whichever_call_to_the_disk_fails_the_old_or_new_state_is_there(
    library: Path, operation: str, tmp_path: Path
) -> None:
    check(operation, list(points(library, operation, tmp_path, 1)))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(mounting, capture_output=True).returncode:
        pytest.skip("nobody may mount a small tmpfs here")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_medium_that_is_read_only_answers_and_refuses_to_write(
    small_disk: Path, make_entry: Entry, model_dir: Path
) -> None:
    path = small_disk / "gallery"
    with Gallery.build(path, model_dir=model_dir, fingerprint="f" * 64, dim=8) as gallery:
        gallery.add(make_entry(f"s{i}", seed=i) for i in range(5))
    query = Query.from_embedding("query", make_entry("query", seed=9).embedding)
    with Gallery.open(path) as gallery:
        before = search(gallery, query).hits
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with Gallery.open(path) as gallery:
        assert search(gallery, query).hits == before
    with pytest.raises(StorageError) as caught:
        Gallery.open(path, write=True)
    assert caught.value.exit_status == 7


def test_a_full_disk_keeps_what_was_acknowledged_and_is_status_7(
    small_disk: Path, make_entry: Entry, model_dir: Path
) -> None:
    path = small_disk / "gallery"
    with Gallery.build(path, model_dir=model_dir, fingerprint="f" * 64, dim=8) as gallery:
        gallery.add([make_entry("first")])
    code = """
import os, sys
from pathlib import Path
import numpy as np
sys.path.insert(0, sys.argv[2])
from fault_points import entry
from medcli.errors import MedcliError
from medcli.retrieval.gallery import Gallery

def entries():
    for number in range(2000):
        if number:
            print(number, flush=True)  # all before this one are committed
        yield entry(number)

try:
    with Gallery.open(Path(sys.argv[1]), write=True) as gallery:
        gallery.add(entries(), batch=1)
except MedcliError as error:
    sys.exit(error.exit_status)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(path), str(HERE)], capture_output=True, text=True
    )
    assert done.returncode == 7, done.stderr
    acknowledged = max(map(int, done.stdout.split()))
    assert acknowledged > 10
    with Gallery.open(path) as again:
        assert again.info()["scans"] - 1 >= acknowledged
        assert list(check_rows(again)) == []
