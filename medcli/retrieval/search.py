"""Search a gallery: exact, distinct scans, the own patient left out.

Score. All vectors have unit length, so an inner product is a cosine; higher is better. The
query is compared slice by slice (late interaction): each of its slices with the stored
vector of a scan that is most like it, be it of a slice, through whatever window, or of the
scan as a whole; the score of the scan is the mean of these best matches. A query of one
slice so has the score of its best match. Of a longer series 64 slices, evenly spaced, are
compared. With `compare` "scan" the vectors of query and stored scan as wholes are compared
alone. The slice named is the stored slice with the best match to any slice of the query.

FAISS proposes candidates, NumPy scores them again in float64 and rounds to float32, so
equal vectors have equal scores and ties are broken by id.

Left out, before the search: what does not meet `where`; the query itself (stored scans with
the same pixels, and `exclude`), scans that were judged (`more`, `less`), and, unless
`same_patient`, every scan of the query's patients. A patient comes with the query (tags,
manifest), else from the stored scan with the same pixels. An unknown patient is equal to no
other. A part of a scan (a region, some slices) is not the scan: with `same_patient` the scan
it was cut from may answer.

References
----------
Khattab, Zaharia 2020, arXiv:2004.12832 (late interaction); Rocchio 1971 (feedback)
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from medcli.errors import UsageError
from medcli.records import Hit, ScanWarning, SearchResult
from medcli.retrieval.answering import Match, best_of_groups, exact_match, hit_of, told, vote_of
from medcli.retrieval.calibration import calibration
from medcli.retrieval.query import GroupBy, Query, Wanted
from medcli.retrieval.rows import StoredScan
from medcli.retrieval.studies import days_between
from medcli.retrieval.timeline import timeline
from medcli.retrieval.where import matching, parse_where, values_of

if TYPE_CHECKING:
    from medcli.retrieval.gallery import Gallery
    from medcli.retrieval.rows import State
    from medcli.retrieval.vectors import Level

FEWER_HITS = "fewer_hits"
NO_GROUPS = "no_groups"
MOST_CLASSES = 20  # whose nearest scan is told
MORE_WEIGHT, LESS_WEIGHT = 0.75, 0.15
"""Of the mean of the scans judged alike and unlike, beside the query's own 1."""


def search(gallery: Gallery, query: Query, wanted: Wanted | None = None) -> SearchResult:
    """The distinct stored scans most like `query`, by the rules above.

    Returns
    -------
    Fewer than `k` hits only where the gallery holds no more that may answer; a warning
    (code "fewer_hits") then says why. `query_slice` belongs to the first hit.

    Raises
    ------
    UsageError : `where` is no condition, `more` or `less` name no stored scan
    MismatchError : the query's vector is not of the gallery's model
    ScanError : the query's vector is NaN, zero or not of unit length
    DamagedError : a row does not match its checksum
    """
    wanted = wanted or Wanted()
    if wanted.k < 1:
        raise ValueError(f"k is {wanted.k}; at least one hit must be asked for")
    query = query.checked(gallery.dim)
    with gallery.snapshot() as state:
        query = _judged(gallery, query, wanted)
        left_out = _left_out(gallery, query, wanted)
        chosen = None if wanted.where is None else parse_where(wanted.where)
        among = None if chosen is None else matching(gallery.catalogue, chosen)
        notes: list[ScanWarning] = []
        if wanted.timeline:
            own = left_out.patients
            return timeline(gallery, state, query, wanted, own, left_out.itself, among)
        groups = _groups(gallery, wanted.group_by)
        if groups is not None and not groups:
            told_of = "studies" if wanted.group_by == "study" else "patients"
            notes.append(ScanWarning(NO_GROUPS, f"no {told_of} known: each scan is its own"))
        search_in = _Field(left_out, among, groups)
        matches = _best(gallery, state, query, wanted, search_in, wanted.k, notes)
        found = matches if wanted.min_score is None else _above(matches, wanted.min_score)
        contrast = (
            _contrast(gallery, state, query, wanted, search_in, matches) if wanted.contrast else ()
        )
        known = calibration(gallery, state, wanted.compare, several=query.has_slices)
        hits = tuple(hit_of(gallery, rank, m, known) for rank, m in enumerate(found, 1))
        opposite = tuple(hit_of(gallery, rank, m, known) for rank, m in enumerate(contrast, 1))
        if wanted.same_patient:
            hits = tuple(_dated(hit, query) for hit in hits)
        if len(hits) < wanted.k:
            dropped = len(matches) - len(found)
            notes.append(_fewer(wanted, state.scans, search_in, dropped))
    best = matches[0].score if matches else None
    return SearchResult(
        query=query.name,
        hits=hits,
        vote=vote_of(hits),
        gallery=told(gallery, state),
        no_good_match=known.is_unlike(best),
        query_slice=matches[0].query_slice if matches else None,
        contrast=opposite,
        warnings=tuple(notes),
    )


@dataclass(frozen=True, slots=True)
class _LeftOut:
    """Ids of scans that must not answer, by why."""

    itself: set[int]
    own: set[int]
    judged: set[int]
    patients: set[str]

    @property
    def ids(self) -> set[int]:
        return self.itself | self.own | self.judged

    def covers(self, scan: StoredScan, queries: Sequence[Query], same_patient: bool) -> bool:
        """Whether the row itself says that it must not answer."""
        row = scan.row
        if row.patient in self.patients:
            return True
        return any(
            row.pixel_sha256 is not None
            and row.pixel_sha256 == query.pixel_sha256
            and not (query.is_part and same_patient)
            for query in queries
        )


@dataclass(frozen=True, slots=True)
class _Field:
    """What may answer: ids left out, ids that meet the filter (None: all), groups by id."""

    left_out: _LeftOut
    among: set[int] | None
    groups: Mapping[int, int] | None

    def of(self, ids: Collection[int]) -> _Field:
        """The same for some scans alone, each by itself."""
        among = set(ids) if self.among is None else self.among & set(ids)
        return _Field(self.left_out, among, None)


def _judged(gallery: Gallery, query: Query, wanted: Wanted) -> Query:
    """The query moved by the scans that were judged (Rocchio)."""
    if not wanted.more and not wanted.less:
        return query
    judged = {scan.id: scan for scan in gallery.catalogue.stored({*wanted.more, *wanted.less})}
    absent = sorted({*wanted.more, *wanted.less} - judged.keys())
    if absent:
        raise UsageError(
            f"no stored scan has the id {', '.join(map(str, absent))}",
            "ids are those of `medcli search --json`",
        )
    move = np.zeros(gallery.dim)
    for ids, weight in ((wanted.more, MORE_WEIGHT), (wanted.less, -LESS_WEIGHT)):
        if ids:
            wholes = [Query.from_stored(judged[scan]).vector for scan in ids]
            move += weight * np.mean(wholes, axis=0)
    return query.moved(move)


def _left_out(gallery: Gallery, query: Query, wanted: Wanted) -> _LeftOut:
    """What must not answer `query`, by the rules above."""
    find = gallery.catalogue.find
    itself: set[int] = set()
    cut_from: set[int] = set()
    patients: set[str] = set()
    for each in (query, *query.joined):
        itself.update(each.exclude)
        twins = find("pixel_sha256", each.pixel_sha256) if each.pixel_sha256 is not None else []
        (cut_from if each.is_part else itself).update(twins)
        if each.patient is not None:
            patients.add(each.patient)
        else:
            rows = [twin.row for twin in gallery.catalogue.stored(twins)]
            patients |= {row.patient for row in rows if row.patient is not None}
    if wanted.same_patient or wanted.timeline:
        own: set[int] = set()
    else:
        own = cut_from | {scan for patient in patients for scan in find("patient", patient)}
    judged = {*wanted.more, *wanted.less}
    left = set() if wanted.same_patient and not wanted.timeline else patients
    return _LeftOut(itself, own - itself, judged - own - itself, left)


def _groups(gallery: Gallery, group_by: GroupBy) -> Mapping[int, int] | None:
    """The group of each scan whose patient or study is known; None: each scan is one."""
    if group_by == "scan":
        return None
    numbers: dict[str, int] = {}
    return {
        scan: numbers.setdefault(value, len(numbers) + 1)
        for scan, value in values_of(gallery.catalogue, group_by).items()
        if value is not None
    }


def _best(
    gallery: Gallery,
    state: State,
    query: Query,
    wanted: Wanted,
    within: _Field,
    k: int,
    notes: list[ScanWarning],
) -> list[Match]:
    """The `k` best matches, one a group, best first."""
    if within.among is not None and not within.among - within.left_out.ids:
        return []
    candidates = _candidates(gallery, state, query, wanted, within, k, notes)
    matches = [
        exact_match(scan, *query.compared(wanted.compare), compare=wanted.compare)
        for scan in gallery.catalogue.stored(candidates)
    ]
    if len(matches) != len(candidates):
        raise gallery.catalogue.damaged("scans of the index are missing")
    queries = (query, *query.joined)
    if any(within.left_out.covers(m.scan, queries, wanted.same_patient) for m in matches):
        raise gallery.catalogue.damaged("its lookup tables do not match its rows")
    matches.sort(key=lambda match: (-match.score, match.scan.id))
    return best_of_groups(matches, within.groups)[:k]


def _candidates(
    gallery: Gallery,
    state: State,
    query: Query,
    wanted: Wanted,
    within: _Field,
    k: int,
    notes: list[ScanWarning],
) -> set[int]:
    """Ids of all scans that may be among the best."""
    from medcli.retrieval.vectors import best_scans

    levels: tuple[Level, ...] = ("scan",) if wanted.compare == "scan" else ("scan", "slice")
    vectors, _ = query.compared(wanted.compare)
    excluded, among, groups = within.left_out.ids, within.among, within.groups
    if len(vectors) > 1:
        exact = [gallery.caches.exact(level, state) for level in levels]
        _note(notes, (remark for _, remarks in exact for remark in remarks))
        return best_scans([index for index, _ in exact], vectors, k, excluded, among, groups)
    found: set[int] = set()
    for level in levels:
        index, remarks = gallery.index(level, state, exact=wanted.exact)
        _note(notes, remarks)
        found |= index.candidates(vectors[0], k, excluded, among=among, groups=groups)
    return found


def _note(notes: list[ScanWarning], remarks: Iterable[ScanWarning]) -> None:
    notes.extend(each for each in remarks if each not in notes)


def _contrast(
    gallery: Gallery,
    state: State,
    query: Query,
    wanted: Wanted,
    within: _Field,
    matches: Sequence[Match],
) -> tuple[Match, ...]:
    """The nearest scan of each of the most frequent classes, best first.

    Of an approximate search among the hits.
    """
    if gallery.caches.choice() is not None:  # one exact search a class would cost its speed
        first: dict[str, Match] = {}
        for match in matches:
            if match.scan.row.label is not None:
                first.setdefault(match.scan.row.label, match)
        return tuple(first.values())
    by_label: dict[str, set[int]] = {}
    for scan, label in values_of(gallery.catalogue, "label").items():
        if label is not None:
            by_label.setdefault(label, set()).add(scan)
    nearest = [
        match
        for ids in sorted(by_label.values(), key=len, reverse=True)[:MOST_CLASSES]
        for match in _best(gallery, state, query, wanted, within.of(ids), 1, [])
    ]
    return tuple(sorted(nearest, key=lambda match: (-match.score, match.scan.id)))


def _above(matches: Sequence[Match], least: float) -> list[Match]:
    return [match for match in matches if match.score >= least]


def _dated(hit: Hit, query: Query) -> Hit:
    """The hit with its days from the query, where both are of one patient."""
    if hit.patient is None or hit.patient != query.patient:
        return replace(hit, days=None)
    return replace(hit, days=days_between(query.study_date, hit.study_date))


def _fewer(wanted: Wanted, scans: int, within: _Field, below: int) -> ScanWarning:
    """Why there are fewer than `k` hits."""
    left, among = within.left_out, within.among
    unit = (
        "hits"
        if wanted.group_by == "scan"
        else {"patient": "patients", "study": "studies"}[wanted.group_by]
    )
    held = f"the gallery holds {scans} scans"
    if among is not None:
        held += f", {len(among)} of them meet --where"
    told = f"fewer than {wanted.k} {unit}: {held}; left out are "
    own = left.own if among is None else left.own & among
    itself = left.itself if among is None else left.itself & among
    parts = [f"{len(own)} of the same patient and {len(itself)} equal to the query"]
    if left.judged:
        parts.append(f"{len(left.judged)} that were judged")
    if below:
        parts.append(f"{below} with a score below {wanted.min_score:g}")
    return ScanWarning(FEWER_HITS, told + ", ".join(parts))
