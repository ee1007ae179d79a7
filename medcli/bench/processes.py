"""Whole processes: the seconds they take and the memory of all of them together."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from medcli.errors import MedcliError

PYTHON = (sys.executable, "-P")
"""An interpreter that imports nothing from the current folder."""

_POLL_SECONDS = 0.005


@contextmanager
def clean_environment() -> Iterator[dict[str, str]]:
    """The environment of measured processes: a home of their own, which goes with the block.

    A second start of a program finds its bytecode; where this process writes none, that of the
    measured ones lies in the home, too.
    """
    with TemporaryDirectory(prefix="medcli-bench-") as home:
        environment = {**os.environ, "MEDCLI_HOME": home}
        if environment.pop("PYTHONDONTWRITEBYTECODE", None):
            environment["PYTHONPYCACHEPREFIX"] = str(Path(home) / "bytecode")
        yield environment


def run_measured(command: Sequence[str], environment: Mapping[str, str]) -> tuple[float, float]:
    """Seconds of a command, and the MiB that it and all its descendants held at most.

    Memory is the sum of the peaks of the resident sizes, so pages that processes share count
    for each; it is 0 where the system has no /proc.

    Raises
    ------
    MedcliError : the command failed
    """
    start = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=dict(environment)
    )
    peaks: dict[int, int] = {}
    try:
        while process.poll() is None:
            for pid in _family(process.pid):
                peaks[pid] = max(peaks.get(pid, 0), _peak_kib(pid))
            time.sleep(_POLL_SECONDS)
    finally:
        process.kill()
        process.wait()
    seconds = time.perf_counter() - start
    if process.returncode:
        raise MedcliError(
            f"a measured command ended with {process.returncode}: {' '.join(command)}",
            "Run it by itself to see why",
        )
    return seconds, sum(peaks.values()) / 1024


def processes_in_turns(
    commands: Mapping[str, Sequence[str]], environment: Mapping[str, str], turns: int
) -> dict[str, list[tuple[float, float]]]:
    """`run_measured` of each command in turns, after a first turn that is not counted.

    Raises
    ------
    MedcliError : a command failed
    """
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for turn in range(turns + 1):
        for name, command in commands.items():
            measured = run_measured(command, environment)
            if turn:
                found[name].append(measured)
    return found


def _family(pid: int) -> list[int]:
    """A process and all its descendants."""
    members = [pid]
    for member in members:
        for task in Path(f"/proc/{member}/task").glob("*/children"):
            try:
                members += map(int, task.read_text().split())
            except OSError:  # it ended between the two looks
                continue
    return members


def _peak_kib(pid: int) -> int:
    """The peak resident size so far; 0 once the process has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)
