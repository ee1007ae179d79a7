"""`medcli index info`, `export`, `audit`: what a gallery holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from medcli.cli.options import AsJson, GalleryPath, HidePaths, Overwrite
from medcli.cli.output import (
    Names,
    facts_table,
    note,
    print_json,
    print_line,
    print_table,
    print_words,
    say,
    shorten,
    warn,
    write_csv,
)
from medcli.home import default_gallery

if TYPE_CHECKING:
    from rich.table import Table

    from medcli.retrieval.auditing import Audit, Twins

MOST_SHOWN = 20  # pairs in the table
MOST_LISTED = 1000  # in JSON


def info(
    gallery: GalleryPath = None, as_json: AsJson = False, hide_paths: HidePaths = False
) -> None:
    """Say what a gallery holds.

    Example: medcli index info -g archive
    """
    from medcli.retrieval.gallery import Gallery

    with Gallery.open(gallery or default_gallery()) as opened:
        facts = opened.info()
    if hide_paths:
        facts |= {"path": None, "root": None, "model": None}
    if as_json:
        print_json(facts)
    else:
        print_table(facts_table((name, _told(name, facts[name])) for name in FACTS))


FACTS = (
    "path",
    "root",
    "scans",
    "slices",
    "vectors",
    "classes",
    "unlabelled",
    "modalities",
    "patients",
    "unknown_patients",
    "fingerprint",
    "index",
    "generation",
    "created",
    "bytes",
)


def _told(name: str, value: Any) -> str:
    """A fact of a gallery in words."""
    if name == "index":
        recall = f", recall@{value['k']} {value['recall']:.3f}" if "recall" in value else ""
        return f"{value['kind']}{recall}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {count}" for key, count in value.items()) or "–"
    if name == "bytes":
        return f"{value / 1e6:.1f} MB"
    return "–" if value is None else str(value)


def export(
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FOLDER", help="The folder to write."),
    ],
    gallery: GalleryPath = None,
    kind: Annotated[
        Literal["numpy", "parquet"],
        typer.Option("--format", help="NumPy arrays with CSV tables, or Parquet (needs pyarrow)."),
    ] = "numpy",
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    hide_paths: HidePaths = False,
) -> None:
    """Write the vectors and what is known of each scan for other programs.

    Row i of vectors.npy belongs to row i of scans.csv.

    Example: medcli index export -g archive -o vectors/
    """
    from medcli.retrieval.exporting import export_gallery
    from medcli.retrieval.gallery import Gallery

    with Gallery.open(gallery or default_gallery()) as opened:
        facts = export_gallery(
            opened,
            output,
            write_table=write_csv,
            kind=kind,
            hide_paths=hide_paths,
            overwrite=overwrite,
        )
    names = Names(hide=hide_paths)
    if as_json:
        print_json({"output": names.shown(output), **facts})
        return
    say(f"{facts['scans']} scans, {facts['slice_vectors']} slice vectors")
    if not hide_paths:
        print_line(str(output))


def audit(
    gallery: GalleryPath = None,
    threshold: Annotated[
        float,
        typer.Option(
            metavar="COSINE", min=0.5, max=1.0, help="From which likeness two scans are twins."
        ),
    ] = 0.995,
    as_json: AsJson = False,
    hide_paths: HidePaths = False,
) -> None:
    """Look for twins of two patients, labels or splits, and for what neighbours follow.

    Neighbours that follow the scanner or the site more than the label warn of a model that
    has learnt where a scan was made.

    Example: medcli index audit -g archive --threshold 0.99
    """
    from medcli.retrieval.auditing import audit_gallery
    from medcli.retrieval.gallery import Gallery

    with Gallery.open(gallery or default_gallery()) as opened:
        found = audit_gallery(opened, threshold=threshold, most=MOST_LISTED)
    names = Names(hide=hide_paths)
    if as_json:
        print_json(_audit_json(found, names))
    else:
        _show_audit(found, names)


def _audit_json(found: Audit, names: Names) -> dict[str, Any]:
    return {
        "scans": found.scans,
        "threshold": found.threshold,
        **found.total,
        "splits": found.splits,
        "pairs": [
            {
                "codes": each.codes,
                "ids": each.ids,
                "paths": [names.shown(path) for path in each.paths],
                "labels": each.labels,
                "cosine": each.cosine,
                "same_pixels": each.same_pixels,
            }
            for each in found.twins
        ],
        "neighbours_follow": {
            name: {
                "values": each.values,
                "scans": each.rows,
                "share": each.share,
                "chance": each.chance,
                "lift": each.lift,
            }
            for name, each in found.follows.items()
        },
        "more_than_the_label": found.warnings,
    }


def _show_audit(found: Audit, names: Names) -> None:
    print_words(
        f"{found.scans} scans; twins (cosine {found.threshold} or more): "
        f"{found.total['near_duplicate']} of two patients, "
        f"{found.total['near_label_conflict']} with two labels"
    )
    if found.splits:
        parts = ", ".join(f"{name} {count}" for name, count in found.splits.items())
        print_words(
            f"splits ({parts}): {found.total['patient_in_two_splits']} patients in several, "
            f"{found.total['near_copy_in_two_splits']} twins across them"
        )
    if found.twins:
        print_table(_twins_table(found.twins[:MOST_SHOWN], names))
    if len(found.twins) > MOST_SHOWN:
        note(f"the {MOST_SHOWN} nearest; --json lists up to {MOST_LISTED}")
    rows = [
        (name, f"{each.share:.0%} of neighbours share it, by chance {each.chance:.0%}")
        for name, each in found.follows.items()
    ]
    print_table(facts_table(rows, title="what the nearest scans of other patients share"))
    for name in found.warnings:
        warn(f"neighbours follow the {name} more than the label")


def _twins_table(twins: tuple[Twins, ...], names: Names) -> Table:
    """The pairs: ids, cosine, labels, and where they are."""
    from rich.table import Table

    from medcli.cli.console import stdout

    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("ids", "cosine", "labels", "pixels", "scans"):
        table.add_column(name, no_wrap=True)
    width = max(16, (stdout().width - 50) // 2)
    for each in twins:
        places = [shorten(path, width) for path in each.paths]
        table.add_row(
            f"{each.ids[0]} {each.ids[1]}",
            f"{each.cosine:.4f}",
            " / ".join(dict.fromkeys(label or "–" for label in each.labels)),
            "same" if each.same_pixels else "",
            "" if names.hide else "  ".join(places),
        )
    return table
