"""The program of a worker: `python -m medcli.imaging.isolation.worker`, spoken to by pipes.

It says that it is ready, then answers every `Case` with a `Scan`, or with the code, message and
hint of an error, until nobody asks any more. A case comes with the folder that relative paths
start at, and with the headers that are known of its files.
"""

from __future__ import annotations

import os
import sys

from medcli.errors import ScanError
from medcli.imaging.decoders import keep_out, let_in
from medcli.imaging.header_memory import keep
from medcli.imaging.isolation.inside import enter_worker, start_clock, stop_clock
from medcli.imaging.isolation.wire import WireError, receive, send
from medcli.imaging.reader import read_here
from medcli.records import Case, Scan

MEMORY_LIMIT = 4 * 2**30
"""Bytes of address space of a worker: the budget's values in float64, or copies of fewer."""

READY = "ready"


def main() -> None:
    """Serve on the standard streams, which no decoder can reach."""
    questions = os.fdopen(os.dup(0), "rb", buffering=0)
    answers = os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):  # decoders print into them
        os.dup2(nowhere, stream)
    keep_out("gdcm")  # loading it takes a tenth of a second
    import pydicom  # noqa: F401

    let_in("gdcm")  # where a file needs it
    limit_memory(MEMORY_LIMIT)
    enter_worker()
    try:
        send(answers, READY)
        while True:
            folder, case, headers = receive(questions)
            stand_in(folder)
            keep(headers)
            send(answers, answer(case))
    except (WireError, BrokenPipeError):  # who asked is gone
        os._exit(0)


def limit_memory(limit: int) -> None:
    """Let allocations beyond `limit` bytes of address space fail, on Linux.

    macOS takes the limit and does not keep it.
    """
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a dump would hold patient data
    if sys.platform == "linux":
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        soft = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def stand_in(folder: str) -> None:
    """Read relative paths from `folder`, and nothing from elsewhere where it is gone."""
    try:
        os.chdir(folder)
    except OSError:
        os.chdir("/")


def answer(case: Case) -> Scan | list[str | bool]:
    """The scan, or code, message and hint of an error, and whether memory ran out.

    A decoder may raise what is no `Exception`, such as a panic.
    """
    start_clock()
    try:
        return read_here(case)
    except ScanError as error:
        out_of_memory = isinstance(error.__cause__, MemoryError)
        return [error.code, error.message, error.hint, out_of_memory]
    except BaseException as error:
        what = f"{case.path}: reading broke down ({type(error).__name__})"
        return ["decoder_crashed", what, "", False]
    finally:
        stop_clock()


if __name__ == "__main__":
    main()
