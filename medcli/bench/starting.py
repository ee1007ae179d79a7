"""Cold starts: `medcli --help` and `medcli classify` as whole processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from medcli.bench.made import write_ct_slices
from medcli.bench.measure import Measure, Unit, compared
from medcli.bench.processes import PYTHON, clean_environment, processes_in_turns
from medcli.models.package import GRAPH, ModelPackage

MEDCLI = (*PYTHON, "-m", "medcli")


def measure_start(turns: int) -> Iterator[Measure]:
    """`--help` beside an interpreter that imports what the command line is made with."""
    commands = {
        "help": [*MEDCLI, "--help"],
        "typer": [*PYTHON, "-c", "import typer"],
    }
    with clean_environment() as environment:
        found = processes_in_turns(commands, environment, turns)
    ours, theirs = ([seconds for seconds, _ in found[name]] for name in commands)
    yield compared("start", "medcli --help", "s", ours, "import typer alone", theirs)


def measure_classify(package: ModelPackage, turns: int) -> Iterator[Measure]:
    """One DICOM, cold, beside the libraries it needs: their import, the file, the graph."""
    settings = package.preprocess
    with TemporaryDirectory(prefix="medcli-bench-") as folder, clean_environment() as environment:
        (scan,) = write_ct_slices(Path(folder), 1)
        shape = (str(settings.channels), str(settings.size))
        graph = str(package.path / GRAPH)
        commands = {
            "ours": [*MEDCLI, "classify", scan, "--model", str(package.path), "--json"],
            "bare": [*PYTHON, "-m", "medcli.bench.bare", graph, scan, *shape],
        }
        found = processes_in_turns(commands, environment, turns)
    beside = "pydicom, ONNX Runtime"
    told: tuple[tuple[str, Unit], ...] = (
        ("one DICOM, cold", "s"),
        ("one DICOM, peak memory", "MiB"),
    )
    for number, (name, unit) in enumerate(told):
        ours, theirs = ([each[number] for each in found[way]] for way in commands)
        if any(theirs):  # memory is told by Linux only
            yield compared("classify", name, unit, ours, beside, theirs)
