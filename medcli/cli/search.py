"""`medcli search`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from medcli.cli.inputs import exit_status, found_scans
from medcli.cli.options import (
    AsJson,
    GalleryPath,
    HidePaths,
    Model,
    Overwrite,
    TimePoint,
    parse_slices,
)
from medcli.cli.output import Names, note, print_json, say, show_failure, warn, write_csv
from medcli.cli.region import box_of
from medcli.cli.search_output import answer_json, csv_rows, show_hits
from medcli.errors import UsageError
from medcli.files import check_file, write_file
from medcli.home import default_gallery
from medcli.records import Case, Failure

if TYPE_CHECKING:
    import numpy as np

    from medcli.imaging.parts import Part
    from medcli.inference.predictor import Predictor
    from medcli.models.package import ModelPackage
    from medcli.retrieval.gallery import Gallery
    from medcli.retrieval.query import Query, Wanted
    from medcli.workflows.picturing import Pictures
    from medcli.workflows.searching import Answer

QUERY_HELP = (
    "Scans as in classify (files, folders, globs, a manifest, - for stdin), or the id of a "
    "stored scan."
)


def search(
    queries: Annotated[
        list[str], typer.Argument(metavar="QUERY", help=QUERY_HELP, show_default=False)
    ],
    gallery: GalleryPath = None,
    k: Annotated[int, typer.Option("-k", metavar="K", min=1, max=1000, help="How many hits.")] = 5,
    where: Annotated[
        str | None,
        typer.Option(
            metavar="CONDITION",
            help="Only stored scans that meet it, as in 'modality = CT and label like mal%'.",
            show_default=False,
        ),
    ] = None,
    group_by: Annotated[
        Literal["patient", "study", "scan"], typer.Option(help="One hit, the best, of each.")
    ] = "scan",
    same_patient: Annotated[
        bool, typer.Option("--same-patient", help="Also scans of the query's own patient.")
    ] = False,
    timeline: Annotated[
        bool,
        typer.Option("--timeline", help="Only the query's own patient, in order of time."),
    ] = False,
    min_score: Annotated[
        float | None,
        typer.Option(
            metavar="SCORE", min=-1, max=1, help="Only hits of at least it.", show_default=False
        ),
    ] = None,
    compare: Annotated[
        Literal["slices", "scan"],
        typer.Option(help="Slice by slice, or scans as wholes; see docs/search.md."),
    ] = "slices",
    plus: Annotated[
        list[str] | None,
        typer.Option(metavar="QUERY", help="Join a scan to each query.", show_default=False),
    ] = None,
    minus: Annotated[
        list[str] | None,
        typer.Option(metavar="QUERY", help="Take a scan from each query.", show_default=False),
    ] = None,
    more: Annotated[
        list[int] | None,
        typer.Option(metavar="ID", help="A stored scan judged alike.", show_default=False),
    ] = None,
    less: Annotated[
        list[int] | None,
        typer.Option(metavar="ID", help="A stored scan judged unlike.", show_default=False),
    ] = None,
    region: Annotated[
        str | None,
        typer.Option(
            metavar="X0,Y0,X1,Y1",
            help="Only a rectangle of each slice, in pixels; ends are exclusive.",
            show_default=False,
        ),
    ] = None,
    slices: Annotated[
        str | None,
        typer.Option(
            metavar="FIRST-LAST", help="Only some slices of each query.", show_default=False
        ),
    ] = None,
    model: Model = None,
    time_point: TimePoint = None,
    as_json: AsJson = False,
    csv: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="A row a hit.", show_default=False)
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(
            "--html", metavar="FILE", help="Write a page with pictures.", show_default=False
        ),
    ] = None,
    sheet: Annotated[
        Path | None,
        typer.Option(
            "--sheet", metavar="FILE", help="Write the pictures as one PNG.", show_default=False
        ),
    ] = None,
    receipt: Annotated[
        Path | None,
        typer.Option(
            "--receipt",
            metavar="FILE",
            help="Write what was asked and answered, for medcli replay.",
            show_default=False,
        ),
    ] = None,
    show: Annotated[
        bool | None,
        typer.Option(
            "--show/--no-show",
            help="Pictures in the terminal; by default where it has the colours.",
            show_default=False,
        ),
    ] = None,
    explain: Annotated[
        bool,
        typer.Option("--explain", help="Mark in the pictures what made query and hit alike."),
    ] = False,
    overwrite: Overwrite = False,
    hide_paths: HidePaths = False,
) -> None:
    """Find the stored scans most like each query scan.

    One picture finds the volume and its slice. Scans of the query's own patient are left out.

    Example: medcli search query.png -k 10 --where "modality = CT" --html hits.html
    """
    from medcli.cli.terminal import show_pictures
    from medcli.imaging.parts import Part
    from medcli.models.locate import find_model
    from medcli.models.package import load_package
    from medcli.retrieval.query import Wanted
    from medcli.retrieval.where import parse_where
    from medcli.workflows.searching import open_gallery

    for file in (csv, html, sheet, receipt):
        if file is not None:
            check_file(file, overwrite=overwrite)
    if explain and html is None and sheet is None:
        raise UsageError("--explain marks pictures", "Give --html or --sheet too")
    if where is not None:
        parse_where(where)  # before a gallery is opened
    part = Part(None if region is None else box_of(region), parse_slices(slices))
    wanted = Wanted(
        k=k,
        same_patient=same_patient,
        where=where,
        group_by=group_by,
        min_score=min_score,
        compare=compare,
        more=tuple(more or ()),
        less=tuple(less or ()),
        timeline=timeline,
        contrast=not timeline,
    )
    opened, predictor = open_gallery(gallery or default_gallery())
    names = Names(hide=hide_paths)
    package = predictor.package
    drawn = not as_json and _shows(show)
    answers: list[Answer] = []
    failures: list[Failure] = []
    with opened:
        if model is not None:
            opened.check_fingerprint(load_package(find_model(model)).fingerprint)
        if package.synthetic:
            warn("synthetic: the gallery's model knows generated pictures only")
        asking = _Asking(opened, predictor, names, wanted, part, time_point)
        joins = [asking.joins(each or ()) for each in (plus, minus)]
        pictures = drawn or html is not None or sheet is not None
        for answer in asking.answers(queries, joins[0], joins[1], pictures=pictures):
            if as_json:
                print_json(answer_json(answer, names, synthetic=package.synthetic))
            if isinstance(answer, Failure):
                failures.append(answer)
                show_failure(answer, names)
                continue
            answers.append(answer)
            if not as_json:
                show_hits(answer.result, names, first=len(answers) == 1)
                if drawn:
                    show_pictures(_pictures(opened, answer))
        if csv is not None:
            write_csv(csv, csv_rows(answers, failures, names))
            say("wrote the CSV" if names.hide else f"wrote {csv}")
        alike = _alike(opened, package, answers, names) if explain else None
        if html is not None:
            page = html_page(opened, package, answers, failures, names, alike)
            write_file(html, page.encode("utf-8", "replace"))
            say("wrote the page" if names.hide else f"wrote {html}")
        if sheet is not None and answers:
            write_file(sheet, sheet_png(opened, package, answers, names, alike))
            say("wrote the contact sheet" if names.hide else f"wrote {sheet}")
        if receipt is not None:
            write_receipt(receipt, opened, wanted, answers, names)
    raise typer.Exit(exit_status(failures, len(answers)))


def _shows(asked: bool | None) -> bool:
    """Whether pictures go to the terminal: as it can where nothing was asked."""
    from medcli.cli.terminal import can_show, terminal_shows

    if asked is None:
        return can_show()
    return asked and terminal_shows()


def _pictures(gallery: Gallery, answer: Answer) -> list[tuple[str, np.ndarray]]:
    """The query and as many of the first hits as fit beside it, with their names."""
    from medcli.cli.terminal import in_row
    from medcli.workflows.picturing import pixels_of

    named = [("query", answer.picture)]
    for hit in answer.result.hits[: in_row() - 1]:
        named.append((f"#{hit.rank}", gallery.thumbnail(hit.id, hit.slice)))
    return [(name, pixels_of(picture)) for name, picture in named if picture is not None]


class _Asking:
    """Turns what was typed into queries, and asks them."""

    def __init__(
        self,
        gallery: Gallery,
        predictor: Predictor,
        names: Names,
        wanted: Wanted,
        part: Part,
        time_point: int | None,
    ) -> None:
        from medcli.imaging.parts import cut

        self._gallery = gallery
        self._predictor = predictor
        self._names = names
        self._wanted = wanted
        self._part = part
        self._crop = partial(cut, part=part) if part.region or part.slices else None
        self._time_point = time_point

    def answers(
        self, typed: Sequence[str], plus: Sequence[Query], minus: Sequence[Query], *, pictures: bool
    ) -> Iterator[Answer | Failure]:
        """The answer to each query, in order."""
        from medcli.workflows.searching import search_scans, search_stored

        for are_ids, group in groupby(typed, key=_is_id):
            if are_ids:
                yield from search_stored(
                    self._gallery,
                    map(int, group),
                    self._wanted,
                    plus=plus,
                    minus=minus,
                    pictures=pictures,
                )
            else:
                yield from search_scans(
                    self._gallery,
                    self._predictor,
                    self._found(list(group)),
                    self._wanted,
                    crop=self._crop,
                    first_slice=self._part.slices[0] if self._part.slices else 0,
                    plus=plus,
                    minus=minus,
                    pictures=pictures,
                )

    def joins(self, typed: Sequence[str]) -> list[Query]:
        """The queries that are to be joined to others."""
        from medcli.workflows.searching import joining_queries, stored_queries

        ids = [int(each) for each in typed if _is_id(each)]
        files = [each for each in typed if not _is_id(each)]
        stored = stored_queries(self._gallery, ids)
        if not files:
            return stored
        return [*stored, *joining_queries(self._gallery, self._predictor, self._found(files))]

    def _found(self, typed: Sequence[str]) -> list[Case | Failure]:
        return found_scans(typed, self._names, self._time_point)


def _is_id(typed: str) -> bool:
    """Digits are an id; ./17 is a file."""
    return typed.isascii() and typed.isdigit()


def _alike(
    gallery: Gallery, package: ModelPackage, answers: list[Answer], names: Names
) -> Pictures:
    """The pictures with what made query and hit alike; loads torch."""
    from medcli.workflows.likening import alike_pictures

    def missing(query: str, hits: int) -> None:
        note(
            f"{names.of(query)}: {hits} hits are not explained, as a file of the two is gone or "
            "has changed, or the query is a stored scan"
        )

    return alike_pictures(gallery, package, answers, missing)


def html_page(
    gallery: Gallery,
    package: ModelPackage,
    answers: list[Answer],
    failures: list[Failure],
    names: Names,
    pictures: Pictures | None = None,
) -> str:
    """One self-contained page with every query beside its hits."""
    from datetime import datetime

    from medcli.report.search_page import search_page
    from medcli.workflows.picturing import page_parts

    return search_page(
        **page_parts(gallery, package, answers, pictures),
        failures=failures,
        synthetic=package.synthetic,
        hide_paths=names.hide,
        stand_ins={
            path: names.of(path)
            for path in (*(a.result.query for a in answers), *(f.path for f in failures))
        },
        created=datetime.now().astimezone(),
    )


def sheet_png(
    gallery: Gallery,
    package: ModelPackage,
    answers: list[Answer],
    names: Names,
    pictures: Pictures | None = None,
) -> bytes:
    """Each query and its hits in a row of pictures."""
    from medcli.workflows.picturing import search_sheet

    called = {answer.result.query: names.of(answer.result.query) for answer in answers}
    return search_sheet(gallery, package, answers, called, pictures=pictures)


def write_receipt(
    path: Path, gallery: Gallery, wanted: Wanted, answers: list[Answer], names: Names
) -> None:
    """Write the receipt of the answers."""
    from medcli.workflows.receipts import receipt

    called = {answer.result.query: names.of(answer.result.query) for answer in answers}
    write_file(path, receipt(gallery, wanted, answers, called))
    say("wrote the receipt" if names.hide else f"wrote {path}")
