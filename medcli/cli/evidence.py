"""`medcli classify --evidence`: predictions beside the nearest stored scans."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medcli.cli.classify import csv_row, describe_model, prediction_json, prediction_table
from medcli.cli.inputs import exit_status, found_scans
from medcli.cli.output import (
    Names,
    counting,
    failure_json,
    note,
    print_json,
    print_line,
    print_table,
    say,
    shorten,
    show_failure,
    warn,
    write_csv,
)
from medcli.cli.region import Crop, check_one_scan, for_region, region_of, tell_whole_ct
from medcli.cli.search_output import hit_json
from medcli.config import EngineName
from medcli.home import default_gallery
from medcli.records import Failure, plain

if TYPE_CHECKING:
    from rich.table import Table

    from medcli.cli.classify_outputs import Outputs
    from medcli.report.cards import PictureKey
    from medcli.retrieval.gallery import Gallery
    from medcli.workflows.evidence import Evidence


def classify_with_evidence(
    scans: Sequence[str],
    gallery: Path | None,
    model: str | None,
    task: str | None,
    time_point: int | None,
    engine: EngineName,
    crop: Crop | None,
    names: Names,
    outputs: Outputs,
    *,
    as_json: bool,
    csv: Path | None,
) -> int:
    """Predict each scan with the gallery's model, show its neighbours; return the status.

    Raises
    ------
    MismatchError : `model` is not the gallery's
    """
    from medcli.imaging.batch import read_all
    from medcli.models.locate import open_model
    from medcli.workflows.evidence import with_evidence
    from medcli.workflows.searching import open_gallery

    opened, predictor = open_gallery(gallery or default_gallery(), engine=engine, tell=note)
    found: list[Evidence] = []
    failures: list[Failure] = []
    results: list[Evidence | Failure] = []
    rows: list[dict[str, Any]] = []
    with opened:
        if model is not None:
            opened.check_fingerprint(open_model(model, task).fingerprint)
        if task is not None:
            predictor = predictor.for_task(task)
        describe_model(predictor.package, names, chosen=model is not None)
        cases = found_scans(scans, names, time_point)
        outputs.check_scans(cases)
        cut = None
        if crop is not None:
            check_one_scan(cases)
            predictor = for_region(predictor)
            cut = partial(region_of, crop=crop, side_mm=predictor.region_mm)
        with counting("classifying", beside_data=as_json) as on_scan:
            for result in with_evidence(opened, predictor, cases, crop=cut):
                if as_json:
                    print_json(evidence_json(result, names))
                told = result if isinstance(result, Failure) else result.prediction
                row = csv_row(told, predictor.package.tasks, names)
                rows.append({**row, **_columns(result)})
                results.append(result)
                if isinstance(result, Failure):
                    failures.append(result)
                    show_failure(result, names)
                else:
                    found.append(result)
                on_scan(len(rows), len(cases))
        again = (
            scan if cut is None or isinstance(scan, Failure) else cut(scan)
            for _, scan in read_all(cases)
        )
        outputs.make(again, results, predictor.package, names, _thumbnails(opened, found))
    if found and not as_json:
        print_table(prediction_table([each.prediction for each in found], names))
        print_line("")
        print_table(evidence_table(found, names))
    tell_whole_ct((each.prediction for each in found), names)
    for each in found:
        if each.agrees is False:
            warn(f"{names.of(each.prediction.path)}: the nearest scans disagree with the model")
    if csv is not None:
        write_csv(csv, rows)
        say("wrote the CSV" if names.hide else f"wrote {csv}")
    return exit_status(failures, len(found))


def _thumbnails(gallery: Gallery, found: Sequence[Evidence]) -> dict[PictureKey, bytes]:
    """The stored pictures of all hits, by (query, id, slice)."""
    pictures: dict[PictureKey, bytes] = {}
    for each in found:
        for hit in each.result.hits:
            picture = gallery.thumbnail(hit.id, hit.slice)
            if picture is not None:
                pictures[each.result.query, hit.id, hit.slice] = picture
    return pictures


def evidence_json(result: Evidence | Failure, names: Names) -> dict[str, Any]:
    """The object of one input: that of `classify`, the hits, and what they say together."""
    if isinstance(result, Failure):
        return failure_json(result, names)
    found = result.result
    return {
        **prediction_json(result.prediction, names),
        "evidence": [hit_json(hit, names) for hit in found.hits],
        "neighbours": {
            "agrees": result.agrees,
            "vote": plain(found.vote),
            "vote_ci": plain(found.vote_ci),
            "no_good_match": found.no_good_match,
            "contrast": [hit_json(hit, names) for hit in found.contrast],
            "gallery": {**found.gallery, "path": names.shown(str(found.gallery["path"]))},
        },
    }


def _columns(result: Evidence | Failure) -> dict[str, str]:
    """What the neighbours add to a line of the CSV."""
    columns = dict.fromkeys(("neighbours", "neighbours_share", "neighbours_agree"), "")
    if isinstance(result, Failure) or not result.result.vote:
        return columns
    label, share = next(iter(result.result.vote.items()))
    agree = "" if result.agrees is None else str(result.agrees).lower()
    return dict(zip(columns, (label, f"{share:.3f}", agree), strict=True))


def evidence_table(found: Sequence[Evidence], names: Names) -> Table:
    """For each scan the vote of its neighbours, the nearest one, and whether they agree."""
    from rich.table import Table

    from medcli.cli.console import stdout

    rows = [(_vote(each), _nearest(each), _verdict(each)) for each in found]
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("scan", no_wrap=True)
    for name in ("neighbours", "nearest", "with the model"):
        table.add_column(name, overflow="fold")
    taken = sum(max(map(len, column)) + 2 for column in zip(*rows, strict=True))
    for each, cells in zip(found, rows, strict=True):
        scan = shorten(names.of(each.prediction.path), max(24, stdout().width - taken))
        table.add_row(scan, *cells)
    return table


def _vote(each: Evidence) -> str:
    hits = [hit for hit in each.result.hits if hit.label is not None]
    shares = each.result.vote.items()
    return ", ".join(f"{label} {round(share * len(hits))}/{len(hits)}" for label, share in shares)


def _nearest(each: Evidence) -> str:
    if not each.result.hits:
        return "none"
    hit = each.result.hits[0]
    return f"{hit.label or 'no label'} {hit.score:.3f}, id {hit.id}"


def _verdict(each: Evidence) -> str:
    if each.result.no_good_match:
        return "no good match"
    return {True: "agree", False: "disagree", None: "–"}[each.agrees]
