"""Search a gallery: exact, distinct scans, the own patient left out.

Score. All vectors have unit length, so the inner product of the query with a stored
float16 vector is the cosine; higher is better. FAISS proposes candidates, NumPy
scores them again in float64 and rounds to float32, so equal vectors have equal
scores and ties are broken by id.

* A query of one slice is compared with every stored vector, whole scans and slices.
  A stored scan scores the best of its vectors; the slice named is its best slice.
* A query of several slices is compared as a whole with whole scans. The slice named
  is the stored slice nearest to any slice of the query.

Left out, before the search: the query itself (a stored scan with the same pixels,
and `exclude`) and, unless `same_patient`, every scan of the query's patient. The
patient comes with the query (tags, manifest), else from the stored scan with the
same pixels. An unknown patient is equal to no other. A single slice of a stored
series has other pixels than the series and so finds it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Self

import numpy as np

from medcli.records import Embedding, Hit, ScanWarning, SearchResult
from medcli.retrieval.entries import unit_vectors
from medcli.retrieval.gallery import Gallery
from medcli.retrieval.rows import ScanRow, StoredScan

if TYPE_CHECKING:
    from medcli.retrieval.vectors import Level

FEWER_HITS = "fewer_hits"


@dataclass(frozen=True, slots=True)
class Query:
    """A scan to search with.

    Parameters
    ----------
    name : what the answer calls it: the path, or the id of a stored scan
    vector : (D,) unit length, the scan
    slice_vectors : (M, D) unit length; empty for a scan of one slice
    slice_numbers : (M,) int, the slice of each row
    patient : hash from `Gallery.patient_hash`, None where unknown
    pixel_sha256 : of the pixels, to know the query in the gallery
    exclude : ids of stored scans that are no answer
    """

    name: str
    vector: np.ndarray = field(repr=False)
    slice_vectors: np.ndarray = field(repr=False)
    slice_numbers: np.ndarray = field(repr=False)
    patient: str | None = None
    pixel_sha256: str | None = None
    exclude: tuple[int, ...] = ()

    @classmethod
    def from_embedding(
        cls,
        name: str,
        embedding: Embedding,
        *,
        patient: str | None = None,
        pixel_sha256: str | None = None,
        exclude: Iterable[int] = (),
    ) -> Self:
        """The query of a scan that the engine has embedded."""
        return cls(
            name=name,
            vector=embedding.vector,
            slice_vectors=embedding.slice_vectors,
            slice_numbers=embedding.slice_numbers,
            patient=patient,
            pixel_sha256=pixel_sha256,
            exclude=tuple(exclude),
        )

    @property
    def has_slices(self) -> bool:
        """Whether the scan has more than one slice."""
        return len(np.unique(self.slice_numbers)) > 1


@dataclass(frozen=True, slots=True)
class _Match:
    """A candidate with its exact score; the slices are None where there is one only."""

    scan: StoredScan
    score: float
    slice: int | None
    query_slice: int | None


@dataclass(frozen=True, slots=True)
class _LeftOut:
    """Ids of the scans that are the query itself, and of those of its `patients`."""

    itself: set[int]
    own: set[int]
    patients: set[str]

    def covers(self, query: Query, row: ScanRow) -> bool:
        """Whether the row itself says that it must not answer."""
        is_query = query.pixel_sha256 is not None and row.pixel_sha256 == query.pixel_sha256
        return is_query or row.patient in self.patients


def search(gallery: Gallery, query: Query, k: int = 5, same_patient: bool = False) -> SearchResult:
    """The `k` distinct stored scans most like `query`, by the rules above.

    Returns
    -------
    Fewer than `k` hits only where the gallery holds no more that may answer; a warning
    (code "fewer_hits") then says why. `query_slice` belongs to the first hit.

    Raises
    ------
    MismatchError : the query's vector is not of the gallery's model
    ScanError : the query's vector is NaN, zero or not of unit length
    DamagedError : a row does not match its checksum
    """
    if k < 1:
        raise ValueError(f"k is {k}; at least one hit must be asked for")
    query = _checked(query, gallery.dim)
    with gallery.snapshot() as state:
        left_out = _left_out(gallery, query, same_patient)
        notes: list[ScanWarning] = []
        candidates: set[int] = set()
        levels: tuple[Level, ...] = ("scan",) if query.has_slices else ("scan", "slice")
        for level in levels:
            index, remarks = gallery.index(level, state)
            notes.extend(each for each in remarks if each not in notes)
            candidates |= index.candidates(query.vector, k, left_out.itself | left_out.own)
        matches = [_match(query, scan) for scan in gallery.catalogue.stored(candidates)]
        if len(matches) != len(candidates):
            raise gallery.catalogue.damaged("scans of the index are missing")
        if any(left_out.covers(query, match.scan.row) for match in matches):
            raise gallery.catalogue.damaged("its lookup tables do not match its rows")
        matches.sort(key=lambda match: (-match.score, match.scan.id))
        hits = tuple(_hit(gallery, rank, match) for rank, match in enumerate(matches[:k], 1))
    if len(hits) < k:
        notes.append(_fewer(k, state.scans, left_out))
    return SearchResult(
        query=query.name,
        hits=hits,
        vote=_vote(hits),
        gallery={
            "path": str(gallery.path),
            "generation": state.generation,
            "fingerprint": gallery.fingerprint,
        },
        query_slice=matches[0].query_slice if matches else None,
        warnings=tuple(notes),
    )


def _checked(query: Query, dim: int) -> Query:
    """`query` with vectors of exactly unit length, float32."""
    vector = unit_vectors(query.vector[np.newaxis], dim, query.name)[0]
    slices = query.slice_vectors
    if query.has_slices:
        slices = unit_vectors(slices, dim, query.name)
    return replace(query, vector=vector, slice_vectors=slices)


def _left_out(gallery: Gallery, query: Query, same_patient: bool) -> _LeftOut:
    """What must not answer `query`, by the rules above."""
    find = gallery.catalogue.find
    itself = set(query.exclude)
    patients = set() if query.patient is None else {query.patient}
    if query.pixel_sha256 is not None:
        twins = find("pixel_sha256", query.pixel_sha256)
        itself.update(twins)
        if not patients:
            rows = [twin.row for twin in gallery.catalogue.stored(twins)]
            patients = {row.patient for row in rows if row.patient is not None}
    if same_patient:
        patients = set()
    own = {scan for patient in patients for scan in find("patient", patient)}
    return _LeftOut(itself, own - itself, patients)


def _match(query: Query, scan: StoredScan) -> _Match:
    """The exact score of `scan` and its best slice."""
    stored = scan.vectors.astype(np.float64)
    whole = scan.slice_numbers < 0
    slices, numbers = stored[~whole], scan.slice_numbers[~whole]
    own = query.slice_vectors if query.has_slices else query.vector[np.newaxis]
    likeness = slices @ own.astype(np.float64).T  # (V, M): stored slices × query's slices
    score = (stored[whole] @ query.vector.astype(np.float64)).max()
    if not query.has_slices:
        score = max(score, likeness.max(initial=-np.inf))
    best, nearest = None, None
    if likeness.size:
        row, column = np.unravel_index(likeness.argmax(), likeness.shape)
        best = int(numbers[row]) if scan.row.n_slices > 1 else None
        nearest = int(query.slice_numbers[column]) if query.has_slices else None
    # Stored vectors are rounded, so the product of two may leave the range of a cosine.
    return _Match(scan, float(np.float32(np.clip(score, -1, 1))), best, nearest)


def _hit(gallery: Gallery, rank: int, match: _Match) -> Hit:
    """The record of one match."""
    row = match.scan.row
    source = gallery.catalogue.slice(match.scan.id, match.slice or 0)
    if source is None and row.n_slices > 0:
        raise gallery.catalogue.damaged(f"slices of scan {match.scan.id} are missing")
    return Hit(
        rank=rank,
        id=match.scan.id,
        path=row.path,
        score=match.score,
        label=row.label,
        patient=row.patient,
        modality=row.modality,
        slice=match.slice,
        file=source.file if source else None,
    )


def _vote(hits: Iterable[Hit]) -> Mapping[str, float]:
    """The share of each label among the labelled hits, largest first, then by name."""
    labels = Counter(hit.label for hit in hits if hit.label is not None)
    total = labels.total()
    ordered = sorted(labels.items(), key=lambda item: (-item[1], item[0]))
    return {label: count / total for label, count in ordered}


def _fewer(k: int, scans: int, left_out: _LeftOut) -> ScanWarning:
    """Why there are fewer than `k` hits."""
    return ScanWarning(
        FEWER_HITS,
        f"fewer than {k} hits: the gallery holds {scans} scans; left out are "
        f"{len(left_out.own)} of the same patient and {len(left_out.itself)} equal to the query",
    )
