"""The scans of one patient in order of time."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from medcli.records import ScanWarning, SearchResult
from medcli.retrieval.answering import exact_match, hits_of, told, vote_of
from medcli.retrieval.calibration import calibration
from medcli.retrieval.columns import Members
from medcli.retrieval.query import Query, Wanted
from medcli.retrieval.studies import STUDY_DATE, days_between

if TYPE_CHECKING:
    from medcli.retrieval.gallery import Gallery
    from medcli.retrieval.rows import State

NO_TIMELINE = "no_timeline"


def timeline(
    gallery: Gallery,
    state: State,
    query: Query,
    wanted: Wanted,
    patients: Collection[str],
    itself: Collection[int],
    among: Members | None,
) -> SearchResult:
    """All stored scans of the query's patients in order of time; those without a date last.

    Parameters
    ----------
    patients : hashes
    itself : ids of stored scans that are the query
    among : the scans that meet the filter; None: all
    """
    find, stored = gallery.catalogue.find, gallery.catalogue.stored
    own = {scan for patient in patients for scan in find("patient", patient)}.difference(itself)
    matches = [
        exact_match(scan, *query.compared(wanted.compare), compare=wanted.compare)
        for scan in stored(own if among is None else among.held(own))
    ]
    dates = {match.scan.id: match.scan.row.metadata.get(STUDY_DATE) for match in matches}
    matches.sort(key=lambda m: (dates[m.scan.id] is None, dates[m.scan.id] or "", m.scan.id))
    known = calibration(gallery, state, wanted.compare, several=query.has_slices)
    first = query.study_date or min((date for date in dates.values() if date), default=None)
    (found,) = hits_of(gallery, known, matches)
    hits = tuple(replace(hit, days=days_between(first, dates[hit.id])) for hit in found)
    return SearchResult(
        query=query.name,
        hits=hits,
        vote=vote_of(hits),
        gallery=told(gallery, state),
        warnings=tuple(_lacking(patients, dates, query)),
    )


def _lacking(
    patients: Collection[str], dates: Mapping[int, str | None], query: Query
) -> Iterable[ScanWarning]:
    """What a timeline lacks."""
    undated = sum(date is None for date in dates.values())
    if not patients:
        yield ScanWarning(NO_TIMELINE, "no timeline: the query's patient is unknown")
    elif not dates:
        yield ScanWarning(NO_TIMELINE, "no timeline: no other scan of the patient is stored")
    elif undated:
        yield ScanWarning(
            NO_TIMELINE,
            f"{undated} of {len(dates)} scans have no date and stand at the end: they had none, "
            "or an earlier medcli stored them (a gallery built anew has dates)",
        )
    elif query.study_date is None:
        yield ScanWarning(NO_TIMELINE, "the query has no date: days count from the first scan")
