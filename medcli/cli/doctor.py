"""`medcli doctor`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

from medcli.cli.options import AsJson, HidePaths
from medcli.cli.output import (
    Names,
    facts_table,
    print_json,
    print_line,
    print_table,
    print_words,
    show_error,
)
from medcli.records import plain

if TYPE_CHECKING:
    from rich.table import Table

    from medcli.imaging.decoders import DecoderRow
    from medcli.workflows.diagnosis import Bundled, Diagnosis, Engine

EXIT_PROBLEM = 1
DICOM_ROOT = "1.2.840.10008."  # what the UID of every transfer syntax begins with


def doctor(as_json: AsJson = False, hide_paths: HidePaths = False) -> None:
    """Show what this machine offers: decoders, engines, devices, versions.

    Ends with 1 where a library that medcli needs is missing or broken.

    Example: medcli doctor --json
    """
    from medcli.workflows.diagnosis import diagnose

    names = Names(hide=hide_paths)
    found = diagnose()
    if as_json:
        print_json(diagnosis_json(found, names))
    else:
        print_table(facts_table(_machine(found, names)))
        print_line("")
        print_table(engine_table(found.engines))
        print_line("")
        print_table(decoder_table(found.decoders))
        others = ", ".join(row.name for row in found.decoders if not is_supported(row))
        print_words(f"not supported: {others}")
        inside = ", ".join(row.name for row in found.decoders if not row.isolated)
        print_words(f"read in worker processes: all but {inside}")
    for problem in found.problems:
        show_error(problem)
    raise typer.Exit(EXIT_PROBLEM if found.problems else 0)


def diagnosis_json(found: Diagnosis, names: Names) -> dict[str, Any]:
    """Everything in one object."""
    values: dict[str, Any] = plain(
        {name: getattr(found, name) for name in ("medcli", "python", "platform", "cores")}
    )
    return {
        **values,
        "home": {"path": names.shown(found.home.path), "writable": found.home.writable},
        "engines": plain(found.engines),
        "decoders": plain(found.decoders),
        "bundled": plain(found.bundled),
    }


def _machine(found: Diagnosis, names: Names) -> list[tuple[str, str]]:
    writable = "writable" if found.home.writable else "cannot be written"
    home = names.shown(found.home.path)
    return [
        ("medcli", found.medcli),
        ("Python", found.python),
        ("system", found.platform),
        ("cores", str(found.cores)),
        ("home", f"{home}, {writable}" if home else writable),
        ("bundled", ", ".join(map(_bundled, found.bundled)) or "no models"),
    ]


def _bundled(model: Bundled) -> str:
    """`shared (nodule, lung, gi)`; a specialist is called after its one task."""
    if model.problem or model.tasks == (model.name,):
        return f"{model.name} (damaged)" if model.problem else model.name
    return f"{model.name} ({', '.join(model.tasks)})"


def engine_table(engines: Sequence[Engine]) -> Table:
    """Library, version, what it is for and what it found here."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in ("engine", "version", "for"):
        table.add_column(head, no_wrap=True)
    table.add_column("here", overflow="fold")
    for engine in engines:
        told = engine.problem or _details(engine.details)
        style = "red" if engine.problem else None
        table.add_row(engine.name, engine.version or "–", engine.purpose, told, style=style)
    return table


def _details(details: Mapping[str, Any]) -> str:
    """`{"threads": 2, "cuda": None}` in words; what is unknown is left out."""
    return "; ".join(
        f"{name} {', '.join(value) if isinstance(value, list) else value}"
        for name, value in details.items()
        if value not in (None, [])
    )


def decoder_table(rows: Sequence[DecoderRow]) -> Table:
    """A line for each transfer syntax that medcli reads: its decoder, or what to install."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("transfer syntax", no_wrap=True)
    table.add_column(f"{DICOM_ROOT}…", no_wrap=True)
    table.add_column("decoder", overflow="fold")
    for row in filter(is_supported, rows):
        uid = row.syntax.removeprefix(DICOM_ROOT)
        if row.decoder is not None:
            table.add_row(row.name, uid, f"{row.decoder} {row.version}")
        else:
            table.add_row(row.name, uid, row.install, style="yellow")
    return table


def is_supported(row: DecoderRow) -> bool:
    """Whether medcli reads the syntax once its decoder is installed."""
    return row.decoder is not None or row.install is not None
