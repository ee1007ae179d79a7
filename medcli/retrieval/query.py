"""What is asked of a gallery: a query, several joined into one, and how to search."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Self

import numpy as np

from medcli.errors import UsageError
from medcli.records import Embedding
from medcli.retrieval.entries import unit_vectors
from medcli.retrieval.rows import StoredScan
from medcli.retrieval.studies import STUDY_DATE

MODEL_VIEW = "model"
MOST_SLICES = 64  # of a query that are compared

Compare = Literal["slices", "scan"]
GroupBy = Literal["patient", "study", "scan"]


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
    pixel_sha256 : of the pixels, to know the query in the gallery; of a part, those of its scan
    exclude : ids of stored scans that are no answer
    is_part : a region or some slices of a scan
    joined : what else was joined to it, for its patients and pixels
    study_date : as stored, of the same patient; for `timeline`
    """

    name: str
    vector: np.ndarray = field(repr=False)
    slice_vectors: np.ndarray = field(repr=False)
    slice_numbers: np.ndarray = field(repr=False)
    patient: str | None = None
    pixel_sha256: str | None = None
    exclude: tuple[int, ...] = ()
    is_part: bool = False
    joined: tuple[Query, ...] = ()
    study_date: str | None = None

    @classmethod
    def from_embedding(
        cls,
        name: str,
        embedding: Embedding,
        *,
        patient: str | None = None,
        pixel_sha256: str | None = None,
        exclude: Iterable[int] = (),
        is_part: bool = False,
        study_date: str | None = None,
    ) -> Self:
        """The query of a scan that the engine has embedded, as the model sees its slices."""
        rows = [row for row, view in enumerate(embedding.slice_views) if view == MODEL_VIEW]
        return cls(
            name=name,
            vector=embedding.vector,
            slice_vectors=embedding.slice_vectors[rows],
            slice_numbers=embedding.slice_numbers[rows],
            patient=patient,
            pixel_sha256=pixel_sha256,
            exclude=tuple(exclude),
            is_part=is_part,
            study_date=study_date,
        )

    @classmethod
    def from_stored(cls, scan: StoredScan) -> Self:
        """The query of a scan of the gallery, which is no answer to itself."""
        own = [
            row
            for row, (number, view) in enumerate(zip(scan.slice_numbers, scan.views, strict=True))
            if number >= 0 and view == MODEL_VIEW
        ]
        return cls(
            name=str(scan.id),
            vector=scan.vectors[scan.slice_numbers < 0][0].astype(np.float32),
            slice_vectors=scan.vectors[own].astype(np.float32),
            slice_numbers=scan.slice_numbers[own],
            patient=scan.row.patient,
            pixel_sha256=scan.row.pixel_sha256,
            exclude=(scan.id,),
            study_date=scan.row.metadata.get(STUDY_DATE),
        )

    @property
    def has_slices(self) -> bool:
        """Whether the scan has more than one slice."""
        return bool((self.slice_numbers != self.slice_numbers[:1]).any())

    def checked(self, dim: int) -> Self:
        """The query with float32 vectors of exactly unit length.

        Raises
        ------
        MismatchError, ScanError : see `medcli.retrieval.entries.unit_vectors`
        """
        vector = unit_vectors(self.vector[np.newaxis], dim, self.name)[0]
        slices = self.slice_vectors
        if self.has_slices:
            slices = unit_vectors(slices, dim, self.name)
        return replace(self, vector=vector, slice_vectors=slices)

    def moved(self, move: np.ndarray) -> Self:
        """The query with each of its vectors moved by (D,) `move`, and of unit length again.

        Raises
        ------
        UsageError : a vector is cancelled out
        """

        def unit(vectors: np.ndarray) -> np.ndarray:
            wide = vectors.astype(np.float64) + move
            lengths = np.linalg.norm(wide, axis=-1, keepdims=True)
            if (lengths < 1e-3).any():
                raise UsageError(
                    f"nothing is left of {self.name}: what is taken away cancels it out",
                    "Leave out --minus or --less of the same scan",
                )
            result: np.ndarray = (wide / lengths).astype(np.float32)
            return result

        slices = unit(self.slice_vectors) if self.has_slices else self.slice_vectors
        return replace(self, vector=unit(self.vector), slice_vectors=slices)

    def compared(self, compare: Compare) -> tuple[np.ndarray, np.ndarray]:
        """The (S, D) vectors that are compared, and the (S,) slices they are of, -1: the whole."""
        if compare == "scan" or not self.has_slices:
            return self.vector[np.newaxis], np.array([-1])
        count = len(self.slice_numbers)
        rows = np.unique(np.linspace(0, count - 1, min(count, MOST_SLICES)).round().astype(int))
        return self.slice_vectors[rows], self.slice_numbers[rows]


@dataclass(frozen=True, slots=True)
class Wanted:
    """How to search.

    Parameters
    ----------
    k : hits, or groups of hits, wanted
    same_patient : also scans of the query's own patients
    where : a condition in the language of `medcli.retrieval.where`
    group_by : one hit, the best, of each patient or study; an unknown one is its own
    min_score : hits below it are left out
    compare : slice by slice, or query and stored scan as wholes
    more, less : ids of stored scans that were judged alike and unlike what is looked for
    timeline : all scans of the query's own patient in order of time, whatever k
    contrast : also the nearest scan of each class
    exact : whatever approximate index the gallery has
    """

    k: int = 5
    same_patient: bool = False
    where: str | None = None
    group_by: GroupBy = "scan"
    min_score: float | None = None
    compare: Compare = "slices"
    more: tuple[int, ...] = ()
    less: tuple[int, ...] = ()
    timeline: bool = False
    contrast: bool = False
    exact: bool = False


def joined(query: Query, plus: Sequence[Query] = (), minus: Sequence[Query] = ()) -> Query:
    """One query of several: its vectors moved towards those of `plus`, away from `minus`.

    Each vector v of the query becomes v + Σ plus - Σ minus, of the scans as wholes, at unit
    length. The patients of all of them are left out of the answer.

    Raises
    ------
    UsageError : the scans cancel each other out
    """
    if not plus and not minus:
        return query
    move = sum((other.vector for other in plus), np.zeros_like(query.vector, np.float64))
    move = move - sum((other.vector for other in minus), np.zeros_like(move))
    return replace(query.moved(move), joined=(*plus, *minus))
