"""What the reader knows of the process it runs in: whether it may die, and until when.

In a worker a clock runs, and who opens a file or learns how many values it announces asks
for the time that these may take. When the clock runs out the kernel ends the worker, in
the midst of a decoder or not. Outside workers all this does nothing.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterable

from medcli.imaging.decoders import is_isolated

PATIENCE = 8.0
"""Seconds that any file may take."""

BYTES_PER_SECOND = 5e6
"""A slow network folder."""

VALUES_PER_SECOND = 1e6
"""A quarter of what JPEG 2000, the slowest, was measured to reach on one core."""


class NeedsWorkerError(Exception):
    """Met in a process that must live: this is to be read in a worker."""


_deadline: float | None = None  # of the monotonic clock; None outside workers and tasks
_in_worker = False


def enter_worker() -> None:
    """From now on this process is a worker."""
    global _in_worker
    _in_worker = True
    signal.signal(signal.SIGALRM, signal.SIG_DFL)


def leave_to_worker() -> None:
    """Go on in a worker only.

    Raises
    ------
    NeedsWorkerError : this process is none
    """
    if not _in_worker:
        raise NeedsWorkerError


def leave_compressed_to_worker(syntaxes: Iterable[str | None]) -> None:
    """Go on in a worker only, where one of these transfer syntaxes is compressed.

    Raises
    ------
    NeedsWorkerError : this process is none
    """
    if any(syntax and is_isolated(syntax) for syntax in syntaxes):
        leave_to_worker()


def start_clock() -> None:
    """A task begins: it has `PATIENCE` seconds and what it asks for."""
    global _deadline
    _deadline = 0.0
    ask_for_time(0)


def ask_for_time(seconds: float) -> None:
    """Let the current task go on for `seconds` and `PATIENCE` more, from now, at least."""
    global _deadline
    if _deadline is None:
        return
    now = time.monotonic()
    _deadline = max(_deadline, now + PATIENCE + seconds)
    signal.setitimer(signal.ITIMER_REAL, _deadline - now)


def stop_clock() -> None:
    """The task has ended."""
    global _deadline
    _deadline = None
    signal.setitimer(signal.ITIMER_REAL, 0)
