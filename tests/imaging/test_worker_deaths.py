"""Workers that abort, hang, eat memory or panic: each death costs one scan, and is named."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from medcli.errors import ScanError, StorageError
from medcli.imaging.batch import AHEAD, read_all
from medcli.imaging.isolation import pool
from medcli.imaging.isolation.pool import Pool, Worker
from medcli.imaging.isolation.together import Batch
from medcli.records import Case, Failure, Scan

BAD_READER = '''
"""A worker that does what the name of the file says."""
import ctypes
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from medcli.errors import ScanError
from medcli.imaging.isolation import inside, worker
from medcli.records import Scan

inside.PATIENCE = 0.5
worker.MEMORY_LIMIT = 2**30
memory = []


class PanicException(BaseException):
    pass


def work(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def read(case):
    if case.path == "abort":
        os.abort()
    if case.path == "segfault":
        ctypes.string_at(0)
    if case.path == "hang":
        ctypes.CDLL(None).sleep(60)
    if case.path == "spin":
        signal.setitimer(signal.ITIMER_REAL, 0)  # on a starved machine it may be first
        work(60)
    if case.path == "starved":
        time.sleep(3 * inside.PATIENCE)
    if case.path == "hungry":
        try:
            bytearray(2**33)
        except MemoryError as error:
            raise ScanError("too_large", "hungry") from error
    if case.path == "killed":
        os.kill(os.getpid(), 9)
    if case.path == "panic":
        raise PanicException
    if case.path == "spoilt" and memory:
        os.abort()
    if case.path == "loud":
        os.write(1, b"Doe^Jane")
        print("Doe^Jane", file=sys.stderr, flush=True)
    if case.path == "patient":
        inside.ask_for_time(5)
        work(1)
    if case.path == "endless":
        inside.ask_for_time(60)
        time.sleep(60)
    memory.append(case.path)
    return Scan(np.full((1, 2, 2, 1), os.getpid()), case.path, (), (), case.path, "test")


worker.read_here = read
worker.main()
'''


@pytest.fixture(scope="module")
def bad_reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    """A pool whose workers misbehave on demand."""
    folder = tmp_path_factory.mktemp("programs")
    (folder / "bad_reader.py").write_text(BAD_READER)
    workers = Pool()
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.setattr(pool, "_PROGRAM", "bad_reader")
        patch.setattr(pool, "_shared", workers)
        yield workers
    workers.close()


def case_of(name: str) -> Case:
    return Case(path=name, files=(name,), kind="volume", scan_id=name)


def code_of(workers: Pool, name: str) -> str:
    with pytest.raises(ScanError) as caught:
        workers.read(case_of(name), Batch())
    assert "Doe" not in str(caught.value)
    return caught.value.code


def process_of(workers: Pool, name: str = "fine") -> int:
    return int(workers.read(case_of(name), Batch()).pixels.flat[0])


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("abort", "decoder_crashed"),
        ("segfault", "decoder_crashed"),
        ("panic", "decoder_crashed"),
        ("hang", "timeout"),
        ("spin", "timeout"),
        ("hungry", "too_large"),
        ("killed", "too_large"),
    ],
)
def test_every_way_to_break_down_has_its_code_and_costs_one_scan(
    bad_reader: Pool, name: str, code: str
) -> None:
    first = process_of(bad_reader)
    assert code_of(bad_reader, name) == code
    survived = name == "panic"
    assert (process_of(bad_reader) == first) == survived


def test_a_death_is_not_blamed_on_a_scan_that_a_new_worker_reads(bad_reader: Pool) -> None:
    first = process_of(bad_reader)
    assert process_of(bad_reader, "spoilt") != first


def test_what_a_decoder_prints_goes_nowhere(bad_reader: Pool, capfd: Any) -> None:
    process_of(bad_reader, "loud")
    process_of(bad_reader)
    assert capfd.readouterr() == ("", "")


def test_who_asks_for_time_gets_it(bad_reader: Pool) -> None:
    process_of(bad_reader, "patient")


def test_a_scan_that_waits_for_a_busy_machine_is_read(bad_reader: Pool) -> None:
    process_of(bad_reader, "starved")


@pytest.mark.parametrize(("name", "said"), [("hang", "less busy"), ("spin", "export it again")])
def test_a_timeout_says_whether_the_file_or_the_machine_is_slow(
    bad_reader: Pool, name: str, said: str
) -> None:
    with pytest.raises(ScanError, match=said):
        bad_reader.read(case_of(name), Batch())


def test_a_batch_accounts_for_every_scan_in_order(bad_reader: Pool) -> None:
    names = ["fine", "abort", "hungry", "segfault", "fine", "panic"] * 2
    asked: list[Case | Failure] = [case_of(name) for name in names]
    asked.insert(4, Failure("lost", "not_found", "lost"))
    answers = list(read_all(asked))
    assert [case for case, _ in answers] == asked
    for case, answer in answers:
        assert isinstance(answer, Scan) == (case.path == "fine")
        assert answer.path == case.path


def test_who_stops_early_waits_for_nobody(bad_reader: Pool) -> None:
    reading = read_all([case_of("fine"), *map(case_of, ["patient"] * 20)])
    next(reading)
    start = time.monotonic()
    reading.close()  # type: ignore[attr-defined]
    assert time.monotonic() - start < 0.9


@pytest.mark.parametrize("count", [1, 20])
def test_an_interrupt_ends_what_is_being_read(bad_reader: Pool, count: int) -> None:
    process_of(bad_reader)
    me = threading.get_ident()
    threading.Timer(0.5, lambda: signal.pthread_kill(me, signal.SIGINT)).start()
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        list(read_all([case_of("fine")] * AHEAD + [case_of("endless")] * count))
    assert time.monotonic() - start < 20  # not the minute that it would take


def test_a_worker_that_cannot_start_is_no_fault_of_the_scan(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pool, "_PROGRAM", "no_such_module_anywhere")
    with pytest.raises(StorageError, match="cannot start"):
        Worker().ask(case_of("fine"))


def test_nothing_of_a_worker_is_left_when_its_pool_is_closed(bad_reader: Pool) -> None:
    process = process_of(bad_reader)
    bad_reader.close()
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def test_a_worker_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    program = (
        "import os, signal\n"
        "from medcli.imaging.isolation.pool import Worker\n"
        "print(Worker()._process.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL
    process = int(done.stdout)
    for _ in range(100):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text():
                time.sleep(0.05)
                continue
        return
    pytest.fail("the worker lives on")
