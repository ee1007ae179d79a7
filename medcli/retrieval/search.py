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

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from medcli.errors import UsageError
from medcli.records import Hit, ScanWarning, SearchResult
from medcli.retrieval.answering import (
    Match,
    best_of_groups,
    exact_match,
    hits_of,
    told,
    vote_of,
)
from medcli.retrieval.calibration import calibration
from medcli.retrieval.columns import Members
from medcli.retrieval.proposing import (
    MOST_CLASSES,
    ByMeans,
    ByPasses,
    Indexes,
    Proposals,
    first_passes,
)
from medcli.retrieval.query import Query, Wanted
from medcli.retrieval.rows import StoredScan
from medcli.retrieval.studies import days_between
from medcli.retrieval.timeline import timeline
from medcli.retrieval.where import matching, parse_where

if TYPE_CHECKING:
    from medcli.retrieval.gallery import Gallery
    from medcli.retrieval.rows import State
    from medcli.retrieval.vectors import Nearest

FEWER_HITS = "fewer_hits"
NO_GROUPS = "no_groups"
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
    return search_many(gallery, [query], wanted)[0]


def search_many(
    gallery: Gallery, queries: Sequence[Query], wanted: Wanted | None = None
) -> list[SearchResult]:
    """`search` of each query, in order: the same answers, all of one generation, in less time.

    Queries of one vector share one pass over the vectors where search is exact.

    Raises
    ------
    As `search`, of any of the queries
    """
    wanted = wanted or Wanted()
    if wanted.k < 1:
        raise ValueError(f"k is {wanted.k}; at least one hit must be asked for")
    queries = [query.checked(gallery.dim) for query in queries]
    with gallery.snapshot() as state:
        asked = [_judged(gallery, query, wanted) for query in queries]
        chosen = None if wanted.where is None else parse_where(wanted.where)
        among = None if chosen is None else matching(gallery.catalogue, chosen)
        if wanted.timeline:
            return [_timeline(gallery, state, query, wanted, among) for query in asked]
        searching = _Searching(gallery, state, wanted, among)
        firsts = searching.first_passes(asked)
        return [searching.answer(*each) for each in zip(asked, firsts, strict=True)]


def _timeline(
    gallery: Gallery, state: State, query: Query, wanted: Wanted, among: Members | None
) -> SearchResult:
    left_out = _left_out(gallery, query, wanted)
    return timeline(gallery, state, query, wanted, left_out.patients, left_out.itself, among)


class _Searching:
    """What all queries of one call have in common."""

    def __init__(
        self, gallery: Gallery, state: State, wanted: Wanted, among: Members | None
    ) -> None:
        self._gallery = gallery
        self._state = state
        self._wanted = wanted
        self._among = among
        self._groups = None
        self._labels = None
        self._notes: tuple[ScanWarning, ...] = ()
        self._approximate = gallery.caches.choice() is not None
        self._indexes: dict[bool, Indexes] = {}  # by whether they must be exact
        if wanted.group_by != "scan":
            self._groups = gallery.column(wanted.group_by, state)
            if not self._groups.numbers.any():
                told_of = "studies" if wanted.group_by == "study" else "patients"
                note = ScanWarning(NO_GROUPS, f"no {told_of} known: each scan is its own")
                self._notes = (note,)
        if wanted.contrast and not self._approximate:
            self._labels = gallery.column("label", state)

    def first_passes(self, queries: Sequence[Query]) -> list[tuple[Nearest, ...] | None]:
        """For each query of one vector what passes over all vectors find, where that pays.

        It does not where search is approximate, and where few scans meet the condition.
        """
        found: list[tuple[Nearest, ...] | None] = [None] * len(queries)
        few = self._among is not None and 2 * len(self._among) <= self._state.scans
        if few or (self._approximate and not self._wanted.exact):
            return found
        compared = [query.compared(self._wanted.compare)[0] for query in queries]
        single = [place for place, vectors in enumerate(compared) if len(vectors) == 1]
        if single:
            vectors = np.concatenate([compared[place] for place in single])
            indexes = self._indexes_for(exact=True)
            for place, first in zip(
                single, first_passes(indexes.exact, vectors, self._wanted), strict=True
            ):
                found[place] = first
        return found

    def _indexes_for(self, *, exact: bool) -> Indexes:
        exact = exact or not self._approximate
        if exact not in self._indexes:
            compare = self._wanted.compare
            found = Indexes.of(self._gallery, self._state, compare, exact=exact)
            self._indexes[exact] = found
        return self._indexes[exact]

    def answer(self, query: Query, first: tuple[Nearest, ...] | None) -> SearchResult:
        """The answer to one query."""
        gallery, state, wanted = self._gallery, self._state, self._wanted
        left_out = _left_out(gallery, query, wanted)
        matches, contrast, notes = self._matches(query, left_out, first)
        found = matches if wanted.min_score is None else _above(matches, wanted.min_score)
        known = calibration(gallery, state, wanted.compare, several=query.has_slices)
        hits, opposite = hits_of(gallery, known, found, contrast)
        if wanted.same_patient:
            hits = tuple(_dated(hit, query) for hit in hits)
        warnings = [*self._notes, *notes]
        if len(hits) < wanted.k:
            dropped = len(matches) - len(found)
            warnings.append(_fewer(wanted, state.scans, left_out, self._among, dropped))
        return SearchResult(
            query=query.name,
            hits=hits,
            vote=vote_of(hits),
            gallery=told(gallery, state),
            no_good_match=known.is_unlike(matches[0].score if matches else None),
            query_slice=matches[0].query_slice if matches else None,
            contrast=opposite,
            warnings=tuple(warnings),
        )

    def _matches(
        self, query: Query, left_out: _LeftOut, first: tuple[Nearest, ...] | None
    ) -> tuple[list[Match], list[Match], tuple[ScanWarning, ...]]:
        """The best matches, one a group, and the best of each class, best first; notes."""
        wanted, among, labels = self._wanted, self._among, self._labels
        if among is not None and len(among) == len(among.held(left_out.ids)):
            return [], [], ()
        vectors, _ = query.compared(wanted.compare)
        indexes = self._indexes_for(exact=wanted.exact or len(vectors) > 1)
        proposals: Proposals
        if len(vectors) > 1:
            proposals = ByMeans(indexes.exact, vectors, left_out.ids, among)
        else:
            proposals = ByPasses(indexes.levels, vectors[0], left_out.ids, among, first)
        candidates = proposals.best(wanted.k, self._groups)
        if labels is not None:
            candidates |= proposals.of_classes(labels)
        matches = self._scored(candidates, query, left_out)
        best = best_of_groups(matches, self._groups)[: wanted.k]
        contrast: list[Match] = []
        if labels is not None:
            frequent = set(labels.most_frequent(MOST_CLASSES))
            classed = [m for m in matches if int(labels.numbers[m.scan.id]) in frequent]
            contrast = best_of_groups(classed, labels)
        elif wanted.contrast:  # one exact search a class would cost the speed of approximate search
            contrast = _first_of_labels(best)
        return best, contrast, indexes.notes

    def _scored(self, candidates: set[int], query: Query, left_out: _LeftOut) -> list[Match]:
        """All candidates with their exact scores, best first."""
        gallery, wanted = self._gallery, self._wanted
        vectors, numbers = query.compared(wanted.compare)
        matches = [
            exact_match(scan, vectors, numbers, compare=wanted.compare)
            for scan in gallery.catalogue.stored(candidates)
        ]
        if len(matches) != len(candidates):
            raise gallery.catalogue.damaged("scans of the index are missing")
        queries = (query, *query.joined)
        if any(left_out.covers(match.scan, queries, wanted.same_patient) for match in matches):
            raise gallery.catalogue.damaged("its lookup tables do not match its rows")
        matches.sort(key=lambda match: (-match.score, match.scan.id))
        return matches


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


def _first_of_labels(matches: Sequence[Match]) -> list[Match]:
    """The first match of each label."""
    first: dict[str, Match] = {}
    for match in matches:
        if match.scan.row.label is not None:
            first.setdefault(match.scan.row.label, match)
    return list(first.values())


def _above(matches: Sequence[Match], least: float) -> list[Match]:
    return [match for match in matches if match.score >= least]


def _dated(hit: Hit, query: Query) -> Hit:
    """The hit with its days from the query, where both are of one patient."""
    if hit.patient is None or hit.patient != query.patient:
        return replace(hit, days=None)
    return replace(hit, days=days_between(query.study_date, hit.study_date))


def _fewer(
    wanted: Wanted, scans: int, left: _LeftOut, among: Members | None, below: int
) -> ScanWarning:
    """Why there are fewer than `k` hits."""
    unit = (
        "hits"
        if wanted.group_by == "scan"
        else {"patient": "patients", "study": "studies"}[wanted.group_by]
    )
    held = f"the gallery holds {scans} scans"
    if among is not None:
        held += f", {len(among)} of them meet --where"
    told = f"fewer than {wanted.k} {unit}: {held}; left out are "
    own = left.own if among is None else among.held(left.own)
    itself = left.itself if among is None else among.held(left.itself)
    parts = [f"{len(own)} of the same patient and {len(itself)} equal to the query"]
    if left.judged:
        parts.append(f"{len(left.judged)} that were judged")
    if below:
        parts.append(f"{below} with a score below {wanted.min_score:g}")
    return ScanWarning(FEWER_HITS, told + ", ".join(parts))
