"""`medcli index tune`: which index answers, by what was measured."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from medcli.cli.options import AsJson, GalleryPath, HidePaths, LockTimeout, Seed
from medcli.cli.output import Names, note, print_json, print_table, print_words, warn
from medcli.errors import UsageError
from medcli.home import default_gallery

if TYPE_CHECKING:
    from rich.table import Table

    from medcli.retrieval.choice import ApproximateKind
    from medcli.retrieval.tuning import Trial, Tuning


def tune(
    gallery: GalleryPath = None,
    kind: Annotated[
        Literal["hnsw", "ivfpq", "exact"],
        typer.Option("--index", help="The index to measure; exact: back to exact search."),
    ] = "hnsw",
    recall: Annotated[
        float,
        typer.Option(
            metavar="SHARE",
            min=0.0,
            max=1.0,
            help="How much of what exact search finds must be found, else exact search stays.",
        ),
    ] = 0.99,
    k: Annotated[int, typer.Option("-k", metavar="N", min=1, help="Nearest scans compared.")] = 10,
    sample: Annotated[
        int, typer.Option(metavar="N", min=1, help="How many stored vectors are the queries.")
    ] = 200,
    seed: Seed = 0,
    lock_timeout: LockTimeout = 60.0,
    as_json: AsJson = False,
    hide_paths: HidePaths = False,
) -> None:
    """Measure an approximate index against exact search, and use it if it finds enough.

    Exact search is the default, and stays the truth: scores are always exact.

    Example: medcli index tune -g archive --index hnsw --recall 0.95
    """
    from medcli.retrieval.gallery import Gallery
    from medcli.retrieval.tuning import Tuning, use
    from medcli.retrieval.tuning import tune as measure

    target = gallery or default_gallery()
    with Gallery.open(target, write=True, lock_timeout=lock_timeout) as opened:
        if kind == "exact":
            use(opened, None)
            tuning = Tuning((), None)
        else:
            tuning = measure(opened, kind, wanted=recall, k=k, sample=sample, seed=seed)
    if as_json:
        print_json(_tuning_json(tuning, Names(hide=hide_paths).shown(target)))
        return
    _show(tuning, kind, recall, k)


def tune_built(path: Path, kind: ApproximateKind) -> None:
    """Measure `kind` for a new gallery, which is whole: what cannot be keeps it exact."""
    from medcli.retrieval.gallery import Gallery
    from medcli.retrieval.tuning import tune as measure

    try:
        with Gallery.open(path, write=True) as opened:
            tuning = measure(opened, kind)
    except UsageError as error:
        warn(f"{error.message}: {error.hint}")
        return
    if tuning.choice is None:
        warn(f"{kind} does not reach recall@10 0.99: exact search answers; see index tune")
    else:
        note(tuning.choice.told())


def _tuning_json(tuning: Tuning, shown: str | None) -> dict[str, Any]:
    choice = tuning.choice
    return {
        "gallery": shown,
        "index": {"kind": "exact"} if choice is None else dataclasses.asdict(choice),
        "trials": [dataclasses.asdict(each) for each in tuning.trials],
    }


def _show(tuning: Tuning, kind: str, recall: float, k: int) -> None:
    if tuning.trials:
        print_table(_table(tuning.trials, k))
    if tuning.choice is not None:
        print_words(f"from now on {tuning.choice.told()}")
        if not _is_faster(tuning):
            warn("it is no faster than exact search here; --index exact goes back")
    elif tuning.trials:
        print_words(f"{kind} does not reach recall@{k} {recall:g}: exact search answers")
    else:
        print_words("exact search answers")


def _is_faster(tuning: Tuning) -> bool:
    """Whether the index that was chosen is faster than exact search on any level."""
    exact = {each.level: each.milliseconds for each in tuning.trials if each.effort is None}
    chosen = [
        each
        for each in tuning.trials
        if tuning.choice is not None and each.effort == tuning.choice.effort
    ]
    return any(each.milliseconds < exact[each.level] for each in chosen)


def _table(trials: tuple[Trial, ...], k: int) -> Table:
    """What was measured: one row an index and effort."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("index")
    table.add_column("vectors")
    for name in ("effort", f"recall@{k}", "ms/query", "bytes/vector", "build s"):
        table.add_column(name, justify="right")
    for each in trials:
        table.add_row(
            each.kind,
            f"{each.vectors:,} of {each.level}s",
            "–" if each.effort is None else str(each.effort),
            f"{each.recall:.3f}",
            f"{each.milliseconds:.2f}",
            f"{each.bytes:.0f}",
            "–" if each.effort is None else f"{each.seconds:.1f}",
        )
    return table
