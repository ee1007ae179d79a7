"""What the reader knows of the process it runs in: whether it may die, and until when.

In a worker a clock runs, and who opens a file or learns how many values it announces asks
for the time that these may take. The clock counts the worker's own processor time, so that
a busy machine costs no scan; a second one, of the wall, ends a worker that only waits. When
a clock runs out the kernel ends the worker, in the midst of a decoder or not. Outside
workers all this does nothing.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterable

from medcli.imaging.decoders import is_isolated

PATIENCE = 8.0
"""Seconds of processor time that any file may take."""

WAITING = 8
"""By how much more time may pass on the wall: while others work, or a disk does not answer."""

BYTES_PER_SECOND = 5e6
"""A slow network folder."""

VALUES_PER_SECOND = 1e6
"""A quarter of what JPEG 2000, the slowest, was measured to reach on one core."""

OUT_OF_TIME, WAITED = -signal.SIGPROF, -signal.SIGALRM
"""Exit statuses of a worker that a clock has ended: its own, and that of the wall."""


class NeedsWorkerError(Exception):
    """Met in a process that must live: this is to be read in a worker."""


_CLOCKS = (
    (signal.ITIMER_PROF, time.process_time, 1),
    (signal.ITIMER_REAL, time.monotonic, WAITING),
)
_deadlines: list[float] | None = None  # of each clock; None outside workers and tasks
_in_worker = False


def enter_worker() -> None:
    """From now on this process is a worker."""
    global _in_worker
    _in_worker = True
    for status in (OUT_OF_TIME, WAITED):
        signal.signal(-status, signal.SIG_DFL)


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
    global _deadlines
    _deadlines = [0.0] * len(_CLOCKS)
    ask_for_time(0)


def ask_for_time(seconds: float) -> None:
    """Let the current task go on for `seconds` and `PATIENCE` more, from now, at least.

    On the wall `WAITING` times as long.
    """
    if _deadlines is None:
        return
    for number, (timer, clock, factor) in enumerate(_CLOCKS):
        now = clock()
        _deadlines[number] = max(_deadlines[number], now + factor * (PATIENCE + seconds))
        signal.setitimer(timer, _deadlines[number] - now)


def stop_clock() -> None:
    """The task has ended."""
    global _deadlines
    _deadlines = None
    for timer, _, _ in _CLOCKS:
        signal.setitimer(timer, 0)
