"""`medcli replay`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medcli.cli.options import AsJson, GalleryPath, HidePaths
from medcli.cli.output import Names, print_json, print_line
from medcli.errors import UsageError
from medcli.home import default_gallery

if TYPE_CHECKING:
    from medcli.workflows.receipts import Replayed

EXIT_CHANGED = 1


def replay(
    receipt: Annotated[
        Path, typer.Argument(metavar="RECEIPT", help="Written by search --receipt.")
    ],
    gallery: GalleryPath = None,
    as_json: AsJson = False,
    hide_paths: HidePaths = False,
) -> None:
    """Ask a gallery again what a receipt says was asked, and name what has changed.

    Status 0: the same hits with the same scores and labels. Status 1: something has changed.

    Example: medcli replay receipt.json -g archive
    """
    from medcli.retrieval.gallery import Gallery
    from medcli.workflows.receipts import changes_of_gallery, read_receipt
    from medcli.workflows.receipts import replay as ask_again

    record = read_receipt(receipt)
    names = Names(hide=hide_paths)
    if gallery is None and not default_gallery().exists():
        raise UsageError(
            "the medcli home has no gallery", "Name the one that the receipt is of with -g FOLDER"
        )
    with Gallery.open(gallery or default_gallery()) as opened:
        about = changes_of_gallery(opened, record)
        answers = list(ask_again(opened, record))
    changed = any(answer.changes for answer in answers)
    if as_json:
        for answer in answers:
            print_json(replayed_json(answer, about, names))
    else:
        for told in about:
            print_line(told)
        for answer in answers:
            changes = answer.changes or ("reproduced",)
            for change in changes:
                print_line(f"{names.of(answer.query)}: {change}")
    raise typer.Exit(EXIT_CHANGED if changed else 0)


def replayed_json(answer: Replayed, about: list[str], names: Names) -> dict[str, Any]:
    """The object of one query."""
    hits = answer.result.hits if answer.result else ()
    return {
        "query": names.of(answer.query),
        "reproduced": not answer.changes,
        "changes": list(answer.changes),
        "gallery_changes": about,
        "hits": [{"rank": h.rank, "id": h.id, "score": h.score, "label": h.label} for h in hits],
    }
