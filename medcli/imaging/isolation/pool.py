"""Workers and who looks after them: a worker's death costs one scan, never the batch.

A worker is a process of its own with a limit of memory and a clock (`inside`), spoken to
by pipes (`wire`). It serves one scan at a time, and goes on to the next; one that died is
replaced when the next scan comes. Each scan ends as a `Scan` or with a code: what the
worker answered, or what the way it died tells.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import subprocess
import sys
import threading
from typing import Any, BinaryIO, cast

from medcli.errors import ScanError, StorageError
from medcli.imaging.header_memory import kept_headers
from medcli.imaging.isolation.inside import OUT_OF_TIME, WAITED
from medcli.imaging.isolation.together import Batch
from medcli.imaging.isolation.wire import WireError, receive, send
from medcli.records import Case, Scan

_PROGRAM = "medcli.imaging.isolation.worker"
_LAST_BREATH = 1.0  # seconds between a worker's last word and its end
_PIPE_BYTES = 2**20  # a slice at a time instead of 64 KiB; what Linux allows to all
_SETTINGS = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1",
    "MALLOC_ARENA_MAX": "2",  # each reserves 64 MiB of the limit
    # Keep the pages of one slice for the next: fetching them anew took a third of the time.
    "MALLOC_TRIM_THRESHOLD_": str(2**26),
    "MALLOC_MMAP_THRESHOLD_": str(2**25),
}


def _here() -> str:
    """The folder that relative paths start at; empty where it is gone."""
    try:
        return os.getcwd()
    except OSError:
        return ""


class WorkerDiedError(Exception):
    """A worker ended while it was asked; `status` is its exit status, negative: the signal."""

    def __init__(self, status: int) -> None:
        super().__init__(f"ended with {status}")
        self.status = status


class Worker:
    """A process that reads scans, one at a time; it is asked at once and answers when it is up.

    Raises
    ------
    StorageError : no process can be started
    """

    def __init__(self) -> None:
        self.served = 0
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", _PROGRAM],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # decoders quote the file
                env=_environment(),
                start_new_session=True,  # an interrupt of the terminal is for its parent
            )
        except OSError as error:
            raise _not_started() from error
        self._questions = cast(BinaryIO, self._process.stdin)
        self._answers = cast(BinaryIO, self._process.stdout)
        _widen(self._answers)
        self._is_up = False

    def ask(self, case: Case) -> Any:
        """What the worker answers: a `Scan`, or code, message and hint of an error.

        Raises
        ------
        WorkerDiedError : it died of it
        StorageError : it never came up
        """
        try:
            if not self._is_up:
                receive(self._answers)  # "ready"
                self._is_up = True
            self.served += 1
            send(self._questions, (_here(), case, kept_headers(case.files)))
            return receive(self._answers)
        except (WireError, OSError) as error:
            status = self.bury()
            raise WorkerDiedError(status) if self._is_up else _not_started() from error
        except BaseException:  # an interrupt: what it would answer belongs to nobody
            self.kill()
            self.bury()
            raise

    def kill(self) -> None:
        """End the process at once; who waits for its answer buries it."""
        self._process.kill()

    def bury(self) -> int:
        """Let go of a process that has ended, or does now; its exit status."""
        try:
            status = self._process.wait(_LAST_BREATH)
        except subprocess.TimeoutExpired:
            self.kill()
            status = self._process.wait()
        for pipe in (self._questions, self._answers):
            with contextlib.suppress(OSError):  # what was not said need not be
                pipe.close()
        return status


class Pool:
    """Workers that wait for the next scan; as many are started as are asked at once."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self._lock = threading.Lock()
        self._idle: list[Worker] = []

    def read(self, case: Case, batch: Batch) -> Scan:
        """Read one scan in a worker.

        A death is blamed on the scan only where it was the worker's first, since earlier
        ones may have filled or spoilt its memory.

        Raises
        ------
        ScanError : what the worker answered; timeout, decoder_crashed or too_large where
            it died
        """
        while True:
            worker = self._take()
            proven = worker.served > 0
            try:
                with batch.using(worker):
                    answer = worker.ask(case)
            except WorkerDiedError as death:
                late = death.status in (OUT_OF_TIME, WAITED)
                again = proven and not batch.cancelled and not late
                if again:
                    continue
                raise _cause(case.path, death.status) from death
            if isinstance(answer, Scan):
                self._put(worker)
                return answer
            code, message, hint, out_of_memory = answer
            if not out_of_memory:
                self._put(worker)
            else:
                worker.kill()
                worker.bury()
                if proven:
                    continue
            raise ScanError(code, message, hint)

    def start(self, count: int) -> None:
        """Let `count` workers wait at least; they come up while the caller goes on.

        Raises
        ------
        StorageError : no process can be started
        """
        with self._lock:
            while len(self._idle) < count:
                self._idle.append(Worker())

    def close(self) -> None:
        """End the workers that wait."""
        with self._lock:
            idle, self._idle = self._idle, []
        if self.process == os.getpid():  # after a fork they are the parent's
            for worker in idle:
                worker.kill()
                worker.bury()

    def _take(self) -> Worker:
        """The worker that waited least, else a new one."""
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return Worker()

    def _put(self, worker: Worker) -> None:
        with self._lock:
            self._idle.append(worker)


def read_in_worker(case: Case, batch: Batch) -> Scan:
    """Read one scan in a worker of this process, which stays for the next one.

    Raises
    ------
    ScanError : as `Pool.read`
    StorageError : no process can be started
    """
    return _shared_pool().read(case, batch)


def start_workers(count: int) -> None:
    """Let so many workers of this process come up, to be there when they are asked.

    Raises
    ------
    StorageError : no process can be started
    """
    _shared_pool().start(count)


def close_workers() -> None:
    """End the workers that wait; a program does so when it exits anyhow."""
    _shared_pool().close()


_shared: Pool | None = None
_sharing = threading.Lock()


def _shared_pool() -> Pool:
    """The pool of this process; a forked child has one of its own."""
    global _shared
    with _sharing:
        if _shared is None or _shared.process != os.getpid():
            _shared = Pool()
            atexit.register(_shared.close)
        return _shared


def _environment() -> dict[str, str]:
    """The environment of a worker: the modules of this process, few threads."""
    modules = os.pathsep.join(os.path.abspath(folder) for folder in sys.path)
    return {**os.environ, **_SETTINGS, "PYTHONPATH": modules}


def _widen(pipe: BinaryIO) -> None:
    """Let a pipe hold a whole slice, where the system can."""
    if sys.platform == "linux":
        import fcntl

        with contextlib.suppress(OSError):  # all pipes of a user together have a limit
            fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


def _cause(path: str, status: int) -> ScanError:
    """The error that a worker's death stands for."""
    if status == OUT_OF_TIME:
        return ScanError("timeout", f"{path}: reading took too long", "Convert or export it again")
    if status == WAITED:
        message = f"{path}: waited too long for the disk, the network or the processor"
        hint = "Check where the file lies, or try again while the machine is less busy"
        return ScanError("timeout", message, hint)
    if status == -signal.SIGKILL:
        message = f"{path}: the system has too little memory to read it"
        return ScanError("too_large", message, "Close other programs, or split the scan")
    return ScanError("decoder_crashed", f"{path}: the decoder broke down", "Export it again")


def _not_started() -> StorageError:
    return StorageError(
        "cannot start a process to read scans in",
        f"Run {sys.executable} -m {_PROGRAM} to see why; the system may lack memory or processes",
    )
