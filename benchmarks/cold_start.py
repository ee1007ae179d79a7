"""Cold start: `medcli classify scan.dcm` beside the same network in a plain torch script.

Both run as whole processes, in turns, after one warm-up each; printed are medians and the
median of the ratios of neighbouring runs. Memory is the sum of the peak resident sizes of
all processes of a command.

    python benchmarks/cold_start.py [--runs 7] [--model RUN] [--scan FILE]

Without --model a small run is trained on generated data first (the weights do not matter
for the time).
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).parent
POLL_SECONDS = 0.005


def main() -> None:
    """Time the two commands in turns and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--scan", type=Path, default=HERE.parent / "sample_data" / "scan.dcm")
    options = parser.parse_args()
    # A user's second start has its bytecode cached; so have both commands here.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    with tempfile.TemporaryDirectory() as scratch:
        environment["MEDCLI_HOME"] = scratch
        model = options.model or _small_run(Path(scratch), environment)
        commands = {
            "medcli classify": [
                sys.executable, "-m", "medcli", "classify", str(options.scan),
                "--model", str(model), "--json",
            ],
            "plain torch script": [
                sys.executable, str(HERE / "plain_classify.py"), str(model), str(options.scan),
            ],
        }  # fmt: skip
        for command in commands.values():
            measure(command, environment)
        rows = [[measure(c, environment) for c in commands.values()] for _ in range(options.runs)]
    print(f"{date.today()}, {platform.processor() or platform.machine()}, {os.cpu_count()} cores")
    print(", ".join(f"{name} {version(name)}" for name in ("torch", "onnxruntime", "pydicom")))
    print(f"{options.runs} pairs; whole processes, medians\n")
    print(f"{'command':<20} {'seconds':>8} {'MiB':>7}")
    for column, name in enumerate(commands):
        seconds = statistics.median(row[column][0] for row in rows)
        mebibytes = statistics.median(row[column][1] for row in rows)
        print(f"{name:<20} {seconds:>8.2f} {mebibytes:>7.0f}")
    for unit, name in enumerate(("time", "memory")):
        ratios = [plain[unit] / ours[unit] for ours, plain in rows]
        spread = f"{min(ratios):.1f}–{max(ratios):.1f}"
        print(f"ratio of {name}: {statistics.median(ratios):.1f} ({spread})")


def measure(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Seconds of a command, and the MiB of all its processes."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)
    peaks: dict[int, int] = {}
    while process.poll() is None:
        for pid in _family(process.pid):
            peaks[pid] = max(peaks.get(pid, 0), _peak_kib(pid))
        time.sleep(POLL_SECONDS)
    seconds = time.perf_counter() - start
    if process.returncode:
        raise SystemExit(f"{command} ended with {process.returncode}")
    return seconds, sum(peaks.values()) / 1024


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


def _small_run(folder: Path, environment: dict[str, str]) -> Path:
    run = folder / "run"
    command = [sys.executable, "-m", "medcli", "train", "--epochs", "1", "-o", str(run)]
    subprocess.run(command, env=environment, cwd=folder, check=True, capture_output=True)
    return run


if __name__ == "__main__":
    main()
