"""`medcli bench`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medcli.cli.options import AsJson, Model
from medcli.cli.output import (
    counting,
    facts_table,
    print_json,
    print_line,
    print_table,
    print_words,
)
from medcli.records import plain

if TYPE_CHECKING:
    from rich.table import Table

    from medcli.bench.measure import Measure


class Part(StrEnum):
    """What can be measured alone; the groups of `medcli.bench.measure`."""

    START = "start"
    CLASSIFY = "classify"
    EMBED = "embed"
    SEARCH = "search"
    GALLERY = "gallery"
    READ = "read"


_TOLD = {
    "start": "start",
    "classify": "one answer",
    "embed": "folders",
    "search": "search",
    "gallery": "gallery",
    "read": "reading",
}


def bench(
    model: Model = None,
    only: Annotated[
        list[Part] | None,
        typer.Option("--only", help="Measure this alone; may be repeated.", show_default=False),
    ] = None,
    scans: Annotated[
        int, typer.Option(metavar="N", min=1, help="Files of each kind that are embedded.")
    ] = 32,
    files: Annotated[
        int, typer.Option(metavar="N", min=1, help="Files of each transfer syntax that are read.")
    ] = 6,
    vectors: Annotated[
        int, typer.Option(metavar="N", min=100, help="Random vectors that are searched.")
    ] = 100_000,
    rows: Annotated[
        int, typer.Option(metavar="N", min=100, help="Rows that go into a gallery.")
    ] = 1024,
    turns: Annotated[
        int, typer.Option(metavar="N", min=1, help="Turns of each pair; the medians are told.")
    ] = 3,
    as_json: AsJson = False,
) -> None:
    """Measure the speed of this machine, beside limits taken in the same run.

    Each line has what medcli needs, what a limit or the bare libraries need, and how many times
    as much that is. Takes about a minute, with the bundled model unless --model names another;
    all data are made up, and nothing stays behind.

    Example: medcli bench --only search --only start
    """
    from medcli.bench.measure import Sizes
    from medcli.bench.run import GROUPS, machine, measure_speed
    from medcli.models.bundled import SHARED
    from medcli.models.locate import open_model

    package = open_model(model or SHARED)
    sizes = Sizes(scans=scans, files=files, vectors=vectors, rows=rows, turns=turns)
    groups = [group for group in GROUPS if not only or group in only]
    told = machine(package)
    if as_json:
        print_json({"kind": "machine", **told})
    found: list[Measure] = []
    with counting("measuring", beside_data=as_json) as on_group:
        for each in measure_speed(package, sizes, groups):
            found.append(each)
            on_group(groups.index(each.group), len(groups))
            if as_json:
                print_json({"kind": "measure", **plain(each)})
    if not as_json:
        print_table(facts_table(machine_facts(told)))
        print_line("")
        print_table(measure_table(found))
        print_words("×: how many times the time or memory of what stands beside it; 1 is as good.")


def machine_facts(told: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The machine in a few lines."""
    versions = ", ".join(f"{name} {number}" for name, number in told["versions"].items())
    return [
        ("machine", f"{told['processor']}, {told['cores']} cores, load {told['load']}"),
        ("system", f"{told['system']}, Python {told['python']}, {told['date']}"),
        ("versions", versions),
        ("model", f"{told['model']}, {told['arch']}, {told['size']} px"),
    ]


def measure_table(found: Sequence[Measure]) -> Table:
    """A line for each measure, under the name of its group."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("measured", overflow="fold", min_width=27)
    table.add_column("medcli", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("beside it", overflow="fold")
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("×", justify="right", no_wrap=True)
    group, name = None, None
    for each in found:
        if each.group != group:
            table.add_row(_TOLD[each.group], style="bold")
        same = (each.group, each.name) == (group, name)
        group, name = each.group, each.name
        own = ("", "", "") if same else (f"  {each.name}", amount(each.value), each.unit)
        times = "–" if each.ratio is None else f"{each.ratio:.2f}"
        table.add_row(*own, each.beside, amount(each.reference), times)
    return table


def amount(value: float | None) -> str:
    """Three digits that count."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
