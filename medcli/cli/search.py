"""`medcli search`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medcli.cli.inputs import exit_status, found_scans
from medcli.cli.options import (
    AsJson,
    GalleryPath,
    HidePaths,
    Model,
    Overwrite,
    Scans,
    TimePoint,
)
from medcli.cli.output import (
    Names,
    common_json,
    failure_json,
    print_json,
    print_line,
    print_table,
    say,
    shorten,
    show_failure,
    show_warnings,
    warn,
)
from medcli.files import check_file, write_file
from medcli.home import default_gallery
from medcli.records import Failure, Hit, SearchResult, plain

if TYPE_CHECKING:
    from rich.table import Table

    from medcli.models.package import ModelPackage
    from medcli.retrieval.gallery import Gallery
    from medcli.workflows.searching import Answer


def search(
    queries: Scans,
    gallery: GalleryPath = None,
    k: Annotated[int, typer.Option("-k", metavar="K", min=1, max=1000, help="How many hits.")] = 5,
    same_patient: Annotated[
        bool, typer.Option("--same-patient", help="Also scans of the query's own patient.")
    ] = False,
    model: Model = None,
    time_point: TimePoint = None,
    as_json: AsJson = False,
    html: Annotated[
        Path | None,
        typer.Option(
            "--html", metavar="FILE", help="Write a page with pictures.", show_default=False
        ),
    ] = None,
    overwrite: Overwrite = False,
    hide_paths: HidePaths = False,
) -> None:
    """Find the stored scans most like each query scan.

    One picture finds the volume and its slice. Scans of the query's own patient are left out.

    Example: medcli search query.png -k 10 --html hits.html
    """
    from medcli.models.locate import find_model
    from medcli.models.package import load_package
    from medcli.workflows.searching import open_gallery, search_scans

    if html is not None:
        check_file(html, overwrite=overwrite)
    opened, predictor = open_gallery(gallery or default_gallery())
    names = Names(hide=hide_paths)
    package = predictor.package
    answers: list[Answer] = []
    failures: list[Failure] = []
    with opened:
        if model is not None:
            opened.check_fingerprint(load_package(find_model(model)).fingerprint)
        if package.synthetic:
            warn("synthetic: the gallery's model knows generated pictures only")
        for answer in search_scans(
            opened,
            predictor,
            found_scans(queries, names, time_point),
            k=k,
            same_patient=same_patient,
            pictures=html is not None,
        ):
            if as_json:
                print_json(answer_json(answer, names, synthetic=package.synthetic))
            if isinstance(answer, Failure):
                failures.append(answer)
                show_failure(answer, names)
                continue
            answers.append(answer)
            if not as_json:
                show_hits(answer.result, names, first=len(answers) == 1)
        if html is not None:
            page = html_page(opened, package, answers, failures, names)
            write_file(html, page.encode("utf-8", "replace"))
            say("wrote the page" if names.hide else f"wrote {html}")
    raise typer.Exit(exit_status(failures, len(answers)))


def answer_json(answer: Answer | Failure, names: Names, *, synthetic: bool) -> dict[str, Any]:
    """The object of one query."""
    if isinstance(answer, Failure):
        return {"query": names.of(answer.path), **failure_json(answer, names)}
    result, prediction = answer.result, answer.prediction
    return {
        "query": names.of(result.query),
        **common_json(result.query, prediction.scan_id, prediction.files, result.warnings, names),
        "hits": [hit_json(hit, names) for hit in result.hits],
        "vote": plain(result.vote),
        "no_good_match": result.no_good_match,
        "gallery": {**result.gallery, "path": names.shown(str(result.gallery["path"]))},
        "synthetic": synthetic,
    }


def hit_json(hit: Hit, names: Names) -> dict[str, Any]:
    """The object of one hit; hidden, its id stands for its path."""
    values: dict[str, Any] = plain(hit)
    return {**values, "path": str(hit.id), "file": None} if names.hide else values


def show_hits(result: SearchResult, names: Names, *, first: bool) -> None:
    """The hits of one query as a table, and the vote of their labels."""
    if not first:
        print_line("")
    if result.hits:
        print_table(hit_table(result, names))
    else:
        print_line(f"{names.of(result.query)}: no hits")
    if result.vote:
        shares = ", ".join(f"{label} {share:.0%}" for label, share in result.vote.items())
        print_line(f"vote: {shares}")
    if result.no_good_match:
        warn(f"{names.of(result.query)}: no good match, the query is unlike anything stored")
    show_warnings(result.query, result.warnings, names)


def hit_table(result: SearchResult, names: Names) -> Table:
    """Rank, score, and of label, slice and scan what any of the hits has."""
    from rich.table import Table

    from medcli.cli.console import stdout
    from medcli.cli.streams import visible

    columns: dict[str, Callable[[Hit], str | None]] = {
        "#": lambda hit: str(hit.rank),
        "score": lambda hit: f"{hit.score:.4f}",
        "label": lambda hit: hit.label,
        "slice": lambda hit: None if hit.slice is None else str(hit.slice),
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


def html_page(
    gallery: Gallery,
    package: ModelPackage,
    answers: list[Answer],
    failures: list[Failure],
    names: Names,
) -> str:
    """One self-contained page with every query beside its hits."""
    from datetime import datetime

    from medcli.report.search_page import search_page
    from medcli.workflows.searching import page_parts

    return search_page(
        **page_parts(gallery, package, answers),
        failures=failures,
        synthetic=package.synthetic,
        hide_paths=names.hide,
        stand_ins={
            path: names.of(path)
            for path in (*(a.result.query for a in answers), *(f.path for f in failures))
        },
        created=datetime.now().astimezone(),
    )
