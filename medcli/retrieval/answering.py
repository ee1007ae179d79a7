"""Candidates → exact scores → hits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from medcli.records import Hit
from medcli.retrieval.rows import SliceRow, StoredScan
from medcli.retrieval.studies import STUDY, STUDY_DATE

if TYPE_CHECKING:
    from medcli.retrieval.calibration import Calibrated
    from medcli.retrieval.columns import Column
    from medcli.retrieval.gallery import Gallery
    from medcli.retrieval.rows import State


@dataclass(frozen=True, slots=True)
class Match:
    """A candidate with its exact score.

    `slice` is the stored slice with the best match and `view` what it was rendered with,
    `query_slice` the query's slice; None where there is one only, or none was compared.
    """

    scan: StoredScan
    score: float
    slice: int | None
    view: str | None
    query_slice: int | None


def exact_match(
    scan: StoredScan, vectors: np.ndarray, numbers: np.ndarray, *, compare: str
) -> Match:
    """The score of `scan` by the rule of `medcli.retrieval.query`, and its best slice.

    Parameters
    ----------
    vectors : (S, D) float32 unit vectors of the query
    numbers : (S,) the slice of each, -1: the query as a whole
    compare : "slices", or "scan" for the vectors of wholes alone
    """
    stored, places = scan.vectors.astype(np.float64), scan.slice_numbers
    likeness = stored @ vectors.astype(np.float64).T  # (V, S)
    counted = likeness[places < 0] if compare == "scan" else likeness
    score = float(counted.max(axis=0).mean())
    best, view, nearest = None, None, None
    (slices,) = (places >= 0).nonzero()
    if len(slices) and scan.row.n_slices > 0:
        row, column = np.unravel_index(likeness[slices].argmax(), likeness[slices].shape)
        best = int(places[slices[row]]) if scan.row.n_slices > 1 else None
        view = scan.views[slices[row]]
        nearest = int(numbers[column]) if numbers[column] >= 0 else None
    # Stored vectors are rounded, so the product of two may leave the range of a cosine.
    return Match(scan, float(np.float32(min(max(score, -1.0), 1.0))), best, view, nearest)


def best_of_groups(matches: Sequence[Match], groups: Column | None) -> list[Match]:
    """The first match of each group; a scan without one is its own."""
    if groups is None:
        return list(matches)
    first: dict[int, Match] = {}
    for match in matches:
        first.setdefault(groups.group(match.scan.id), match)
    return list(first.values())


def hits_of(
    gallery: Gallery, known: Calibrated, *answers: Sequence[Match]
) -> list[tuple[Hit, ...]]:
    """The records of the matches of each of `answers`, in their order, the first of rank 1."""
    places = {(match.scan.id, match.slice or 0) for matches in answers for match in matches}
    slices = gallery.catalogue.slices(places)
    return [
        tuple(
            _hit_of(gallery, rank, match, known, slices.get((match.scan.id, match.slice or 0)))
            for rank, match in enumerate(matches, start=1)
        )
        for matches in answers
    ]


def _hit_of(
    gallery: Gallery, rank: int, match: Match, known: Calibrated, source: SliceRow | None
) -> Hit:
    row = match.scan.row
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
        view=match.view,
        percentile=known.percentile(match.score),
        study=row.metadata.get(STUDY),
        study_date=row.metadata.get(STUDY_DATE),
    )


def told(gallery: Gallery, state: State) -> dict[str, object]:
    """Which gallery answers, in which state."""
    return {
        "path": str(gallery.path),
        "generation": state.generation,
        "fingerprint": gallery.fingerprint,
    }


def vote_of(hits: Iterable[Hit]) -> Mapping[str, float]:
    """The share of each label among the labelled hits, largest first, then by name."""
    labels = Counter(hit.label for hit in hits if hit.label is not None)
    total = labels.total()
    ordered = sorted(labels.items(), key=lambda item: (-item[1], item[0]))
    return {label: count / total for label, count in ordered}
