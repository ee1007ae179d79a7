"""`medcli search`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medcli.cli.inputs import exit_status, found_scans
from medcli.cli.options import AsJson, GalleryPath, HidePaths, Model, Overwrite, Scans
from medcli.cli.output import (
    Names,
    failure_json,
    print_json,
    say,
    shorten,
    show_failure,
    stdout,
    warn,
)
from medcli.files import check_file, write_file
from medcli.home import default_gallery
from medcli.records import Failure, SearchResult, plain

if TYPE_CHECKING:
    from rich.table import Table

    from medcli.models.package import ModelPackage
    from medcli.retrieval.gallery import Gallery
    from medcli.workflows.searching import Answer


def search(
    queries: Scans,
    gallery: GalleryPath = None,
    k: Annotated[int, typer.Option("-k", metavar="K", min=1, max=1000, help="Hits wanted.")] = 5,
    same_patient: Annotated[
        bool, typer.Option("--same-patient", help="Also scans of the query's own patient.")
    ] = False,
    model: Model = None,
    as_json: AsJson = False,
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="Write a page.", show_default=False),
    ] = None,
    overwrite: Overwrite = False,
    hide_paths: HidePaths = False,
) -> None:
    """Find the stored scans most like each query scan.

    One picture finds the volume and its slice. Example: medcli search query.png -k 10
    """
    from medcli.models.locate import find_model
    from medcli.models.package import load_package
    from medcli.workflows.searching import Answer, open_gallery, search_scans

    if html is not None:
        check_file(html, overwrite=overwrite)
    opened, predictor = open_gallery(gallery or default_gallery())
    names = Names(hide=hide_paths)
    with opened:
        if model is not None:
            opened.check_fingerprint(load_package(find_model(model)).fingerprint)
        if predictor.package.synthetic:
            warn("synthetic: the gallery's model knows generated pictures only")
        answers = []
        for answer in search_scans(
            opened,
            predictor,
            found_scans(queries),
            k=k,
            same_patient=same_patient,
            pictures=html is not None,
        ):
            answers.append(answer)
            if as_json:
                print_json(answer_json(answer, names, synthetic=predictor.package.synthetic))
            elif isinstance(answer, Failure):
                show_failure(answer, names)
            else:
                show_hits(answer.result, names)
        if html is not None:
            found = [answer for answer in answers if isinstance(answer, Answer)]
            failures = [answer for answer in answers if isinstance(answer, Failure)]
            page = html_page(opened, predictor.package, found, failures, hide_paths=hide_paths)
            write_file(html, page.encode())
            say(f"wrote {html}")
    sys.exit(exit_status(answers))


def answer_json(answer: Answer | Failure, names: Names, *, synthetic: bool) -> dict[str, Any]:
    """The object of one query."""
    if isinstance(answer, Failure):
        return {"query": names.of(answer.path), **failure_json(answer, names)}
    result = answer.result
    values = plain(result)
    values["query"] = names.of(result.query)
    for hit in values["hits"]:
        if names.hide:
            hit["path"], hit["file"] = str(hit["id"]), None
    if names.hide:
        values["gallery"]["path"] = None
    prediction = answer.prediction
    return {
        "path": values["query"],
        "scan_id": values["query"] if names.hide else prediction.scan_id,
        "files": names.files(result.query, prediction.files),
        "status": "ok",
        **values,
        "synthetic": synthetic,
        "error": None,
    }


def show_hits(result: SearchResult, names: Names) -> None:
    """The hits of one query as a table, and the vote of their labels."""
    for warning in result.warnings:
        warn(f"{warning.code}: {names.of(result.query) if names.hide else warning.message}")
    stdout().print(hit_table(result, names))
    if result.vote:
        shares = ", ".join(f"{label} {share:.0%}" for label, share in result.vote.items())
        stdout().print(f"vote: {shares}", markup=False)


def hit_table(result: SearchResult, names: Names) -> Table:
    """Rank, score, label, slice and path; fits 80 columns."""
    from rich.table import Table
    from rich.text import Text

    title = Text(shorten(names.of(result.query), 76))
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    table.add_column("#", justify="right")
    table.add_column("score", justify="right")
    table.add_column("label")
    table.add_column("slice", justify="right")
    table.add_column("scan", no_wrap=True, overflow="ellipsis")
    for hit in result.hits:
        table.add_row(
            str(hit.rank),
            f"{hit.score:.4f}",
            Text(hit.label or "–"),
            "–" if hit.slice is None else str(hit.slice),
            Text(str(hit.id) if names.hide else shorten(hit.path, 46)),
        )
    return table


def html_page(
    gallery: Gallery,
    package: ModelPackage,
    answers: list[Answer],
    failures: list[Failure],
    *,
    hide_paths: bool,
) -> str:
    """One self-contained page with every query beside its hits."""
    from datetime import datetime

    from medcli.report.search_page import search_page
    from medcli.workflows.searching import page_parts

    return search_page(
        **page_parts(gallery, package, answers),
        failures=failures,
        synthetic=package.synthetic,
        hide_paths=hide_paths,
        created=datetime.now().astimezone(),
    )
