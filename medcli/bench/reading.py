"""Frames a second for each transfer syntax, beside pydicom alone.

A program of its own, since it encodes and decodes in this process, which the commands never
do: python -m medcli.bench.reading FILES TURNS prints a measure a line, as JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from medcli.bench.measure import Measure, compared, seconds_in_turns
from medcli.bench.processes import PYTHON
from medcli.errors import MedcliError
from medcli.records import Failure, plain


def measure_reading(files: int, turns: int) -> Iterator[Measure]:
    """The measures of a process of its own, as it prints them.

    Raises
    ------
    MedcliError : it failed
    """
    command = [*PYTHON, "-m", __name__, str(files), str(turns)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                yield Measure(**json.loads(line))
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        raise MedcliError("reading could not be measured", f"Run {' '.join(command)} to see why")


def measure_syntaxes(files: int, turns: int) -> Iterator[Measure]:
    """Each transfer syntax that can be written here, as batches of files of one slice."""
    from medcli.bench.encoded import ROWS, write_syntax
    from medcli.imaging.decoders import decoder_matrix
    from medcli.imaging.isolation.pool import close_workers

    names = {row.syntax: row.name for row in decoder_matrix() if row.decoder}
    for syntax, bits in ROWS:
        if syntax not in names:
            continue
        name = f"{names[syntax].partition(',')[0]}, {bits}" if bits else names[syntax]
        with TemporaryDirectory(prefix="medcli-bench-") as scratch:
            paths = write_syntax(Path(scratch), syntax, bits, files)
            yield measured(name, paths, turns)
    close_workers()


def measured(name: str, paths: Sequence[str], turns: int) -> Measure:
    """Files of one slice as the commands read them, beside a loop over pydicom's `pixel_array`."""
    ways = {"ours": lambda: read_with_medcli(paths)}
    if pydicom_decodes(paths[0]):
        ways["pydicom"] = lambda: read_with_pydicom(paths)
    seconds = seconds_in_turns(ways, turns)
    alone = seconds.get("pydicom")
    return compared("read", name, "frames/s", seconds["ours"], "pydicom alone", alone, len(paths))


def read_with_medcli(paths: Sequence[str]) -> int:
    """Find, check, decode and rescale in worker processes, as a big batch is; scans read."""
    from medcli.imaging.batch import read_all
    from medcli.imaging.discovery import find_scans

    return sum(not isinstance(scan, Failure) for _, scan in read_all(find_scans(paths)))


def read_with_pydicom(paths: Sequence[str]) -> int:
    """Pixels only, one file after the other; values read."""
    import pydicom

    return sum(pydicom.dcmread(path).pixel_array.size for path in paths)


def pydicom_decodes(path: str) -> bool:
    """Whether pydicom has a decoder for it here."""
    import pydicom

    try:
        return pydicom.dcmread(path).pixel_array.size > 0
    except (RuntimeError, NotImplementedError, ValueError, AttributeError):
        return False


if __name__ == "__main__":
    for each in measure_syntaxes(int(sys.argv[1]), int(sys.argv[2])):
        print(json.dumps(plain(each)), flush=True)
