"""The answer to a search as JSON, as a table and as rows of a CSV."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from medcli.cli.output import (
    Names,
    common_json,
    failure_json,
    print_line,
    print_table,
    shorten,
    show_warnings,
    warn,
)
from medcli.records import Failure, Hit, SearchResult, plain

if TYPE_CHECKING:
    from rich.table import Table

    from medcli.workflows.searching import Answer


MOST_CLASSES = 3  # in a line


def answer_json(answer: Answer | Failure, names: Names, *, synthetic: bool) -> dict[str, Any]:
    """The object of one query; docs/search.schema.json describes it."""
    if isinstance(answer, Failure):
        return {"query": names.of(answer.path), **failure_json(answer, names)}
    result, prediction = answer.result, answer.prediction
    scan_id = prediction.scan_id if prediction else None
    files = prediction.files if prediction else ()
    return {
        "query": names.of(result.query),
        **common_json(result.query, scan_id, files, result.warnings, names),
        "query_slice": result.query_slice,
        "hits": [hit_json(hit, names) for hit in result.hits],
        "vote": plain(result.vote),
        "vote_ci": plain(result.vote_ci),
        "contrast": [hit_json(hit, names) for hit in result.contrast],
        "no_good_match": result.no_good_match,
        "gallery": {**result.gallery, "path": names.shown(str(result.gallery["path"]))},
        "synthetic": synthetic,
    }


def hit_json(hit: Hit, names: Names) -> dict[str, Any]:
    """The object of one hit; hidden, its id stands for its path."""
    values: dict[str, Any] = plain(hit)
    del values["study_date"]  # a moved date means nothing by itself; `days` does
    return {**values, "path": str(hit.id), "file": None} if names.hide else values


def csv_rows(
    answers: Sequence[Answer], failures: Sequence[Failure], names: Names
) -> list[dict[str, Any]]:
    """A row a hit; a query without hits, or that failed, has one row without a rank."""
    rows = []
    for answer in answers:
        result = answer.result
        told = {
            "query": names.of(result.query),
            "status": "ok",
            "no_good_match": "" if result.no_good_match is None else str(result.no_good_match),
        }
        rows += [{**told, **_hit_cells(hit, names)} for hit in result.hits]
        rows += [] if result.hits else [{**told, **_hit_cells(None, names)}]
    for failure in failures:
        told = {"query": names.of(failure.path), "status": failure.code, "no_good_match": ""}
        rows.append({**told, **_hit_cells(None, names)})
    return rows


_HIT_COLUMNS = (
    *("rank", "id", "path", "score", "percentile", "label", "patient", "study", "days"),
    *("modality", "slice", "view", "file"),
)


def _hit_cells(hit: Hit | None, names: Names) -> dict[str, Any]:
    values = {} if hit is None else hit_json(hit, names)
    cells = {name: values.get(name) for name in _HIT_COLUMNS}
    return {name: "" if value is None else value for name, value in cells.items()}


def show_hits(result: SearchResult, names: Names, *, first: bool) -> None:
    """The hits of one query as a table, the vote of their labels and what speaks against it."""
    if not first:
        print_line("")
    if result.hits:
        print_table(hit_table(result, names))
    else:
        print_line(f"{names.of(result.query)}: no hits")
    if result.vote:
        print_line(f"vote: {', '.join(_shares(result))}")
    if contrast := _contrast(result):
        print_line(contrast)
    if result.no_good_match:
        warn(f"{names.of(result.query)}: no good match, the query is unlike all that may answer")
    show_warnings(result.query, result.warnings, names)


def _shares(result: SearchResult) -> Iterator[str]:
    """Each class with its share of the vote and the interval of that."""
    for label, share in result.vote.items():
        bounds = result.vote_ci.get(label)
        told = f" ({100 * bounds[0]:.0f}–{100 * bounds[1]:.0f})" if bounds else ""
        yield f"{label} {100 * share:.0f}%{told}"


def _contrast(result: SearchResult) -> str:
    """The nearest scan of each class, of so many classes as a line holds."""
    if len(result.contrast) < 2:
        return ""
    shown = result.contrast[:MOST_CLASSES]
    nearest = [f"{hit.label} {hit.score:.3f} id {hit.id}" for hit in shown]
    more = ["…"] if len(result.contrast) > len(shown) else []
    return f"nearest by class: {', '.join(nearest + more)}"


def hit_table(result: SearchResult, names: Names) -> Table:
    """Rank, id, score, and of the rest what any of the hits has."""
    from rich.table import Table

    from medcli.cli.console import stdout
    from medcli.cli.streams import visible

    columns: dict[str, Callable[[Hit], str | None]] = {
        "#": lambda hit: str(hit.rank),
        "score": lambda hit: f"{hit.score:.4f}",
        "pct": lambda hit: None if hit.percentile is None else f"{hit.percentile:.0f}",
        "days": lambda hit: None if hit.days is None else f"{hit.days:+d}",
        "label": lambda hit: hit.label,
        "slice": lambda hit: None if hit.slice is None else str(hit.slice),
        "id": lambda hit: str(hit.id),
    }
    cells = {name: [cell(hit) for hit in result.hits] for name, cell in columns.items()}
    shown = {name: values for name, values in cells.items() if any(values)}
    table = Table(
        title=visible(shorten(names.of(result.query), stdout().width)),
        title_justify="left",
        title_style="bold",
        box=None,
        pad_edge=False,
        header_style="dim",
    )
    for name in shown:
        table.add_column(name, justify="left" if name == "label" else "right", no_wrap=True)
    table.add_column("scan", no_wrap=True)
    taken = sum(_width([name, *values]) + 2 for name, values in shown.items())
    for row, hit in enumerate(result.hits):
        scan = str(hit.id) if names.hide else shorten(hit.path, max(24, stdout().width - taken))
        table.add_row(*(values[row] or "–" for values in shown.values()), scan)
    return table


def _width(cells: Iterable[str | None]) -> int:
    return max(len(cell or "–") for cell in cells)
