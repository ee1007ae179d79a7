"""How alike the scans of a gallery are to each other: what a score is compared with.

For a sample of stored scans the score of the nearest scan of another patient is kept. A new
score then has a percentile among these, and a query whose best score is below nearly all of
them is unlike anything stored. Derived from the catalogue, tied to its generation, written
beside the indexes and made anew where absent, old or damaged. Of a gallery that is searched
approximately it may be older, as long as the number of scans is about the same: the exact index,
which it is made with, is not kept up to date there.

Three kinds of query have a distribution each: one slice (of the sampled scan the middle
one), several slices (eight, evenly spaced), and whole scans.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from medcli.files import replace_file
from medcli.retrieval.names import CALIBRATION
from medcli.retrieval.query import MODEL_VIEW
from medcli.retrieval.rows import StoredScan

if TYPE_CHECKING:
    from medcli.retrieval.cache_files import Level
    from medcli.retrieval.gallery import Gallery
    from medcli.retrieval.rows import State

FORMAT = 1
SAMPLE = 256  # scans
FEWEST = 20  # scores, for a percentile
_DRIFT = 0.1  # share of the scans that may have come or gone, where search is approximate
UNLIKE = 0.01  # share of the stored scans that are as far from all others
_QUERY_SLICES = 8
_MOST_PRODUCTS = 400_000_000  # of vectors, so that a large gallery costs seconds
_COLUMNS = 64  # query vectors compared at a time

Kind = str  # "slice", "slices", "scan"


@dataclass(frozen=True, slots=True)
class Calibrated:
    """Scores of stored scans with their nearest of another patient, rising: (n,)."""

    scores: np.ndarray

    def percentile(self, score: float) -> float | None:
        """Share of the scores that are no higher, in per cent; None for fewer than 20."""
        if len(self.scores) < FEWEST:
            return None
        return float(round(100 * self._rank(score) / len(self.scores), 1))

    def is_unlike(self, best: float | None) -> bool | None:
        """Whether a best score is lower than all but 1 % of these; None where that is unknown."""
        if best is None or len(self.scores) < FEWEST:
            return None
        return self._rank(best) <= int(UNLIKE * len(self.scores))

    def _rank(self, score: float) -> int:
        return int(np.searchsorted(self.scores, score, side="right"))


def calibration(gallery: Gallery, state: State, compare: str, *, several: bool) -> Calibrated:
    """The scores that those of a query are compared with, inside `snapshot`.

    Parameters
    ----------
    compare : "slices", or "scan" for whole scans
    several : the query has more than one slice
    """
    kind = "scan" if compare == "scan" else "slices" if several else "slice"
    found = gallery.calibrated.get(state.generation)
    if found is None:
        found = _read(gallery, state)
        if found is None:
            found = _computed(gallery, state)
            _save(gallery, state, found)
        gallery.calibrated = {state.generation: found}
    return Calibrated(np.array(found.get(kind, ()), dtype=np.float64))


def _stamp(gallery: Gallery, state: State) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "gallery": gallery.uuid,
        "fingerprint": gallery.fingerprint,
        "generation": state.generation,
        "scans": state.scans,
    }


def _still_holds(gallery: Gallery, made_from: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether scores made from one state serve another."""
    if made_from == now:
        return True
    own = ("format", "gallery", "fingerprint")
    if gallery.caches.choice() is None or any(made_from[key] != now[key] for key in own):
        return False
    changed = abs(int(made_from["scans"]) - int(now["scans"]))
    return changed <= _DRIFT * int(now["scans"])


def _checksum(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _read(gallery: Gallery, state: State) -> Mapping[Kind, Sequence[float]] | None:
    """The stored scores; None where they are absent, damaged or of another generation."""
    try:
        values = json.loads((gallery.path / CALIBRATION).read_bytes())
        checksum = values.pop("checksum")
        scores: dict[Kind, list[float]] = values["scores"]
        now = _stamp(gallery, state)
        made_from = {key: values[key] for key in now}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    if _checksum(values) != checksum or not _still_holds(gallery, made_from, now):
        return None
    return scores


def _save(gallery: Gallery, state: State, scores: Mapping[Kind, Sequence[float]]) -> None:
    """Write the scores; where that cannot be done they serve this process alone."""
    values = {**_stamp(gallery, state), "scores": scores}
    told = json.dumps({**values, "checksum": _checksum(values)}).encode()
    if gallery.writable:
        with contextlib.suppress(OSError):
            replace_file(gallery.path / CALIBRATION, (told,))


def _computed(gallery: Gallery, state: State) -> dict[Kind, list[float]]:
    """The scores of a sample, by kind."""
    total = state.scans + state.slice_vectors
    budget = max(1, _MOST_PRODUCTS // max(total, 1))
    sample = list(_sampled(gallery, min(SAMPLE, budget)))
    several = [scan for scan in sample if scan.row.n_slices > 1][: budget // _QUERY_SLICES]
    queries = {
        "slice": [(scan, _middle(scan)) for scan in sample],
        "slices": [(scan, _spread(scan)) for scan in several],
        "scan": [(scan, _whole(scan)) for scan in sample],
    }
    return {
        kind: sorted(_nearest(gallery, state, each, whole=kind == "scan"))
        for kind, each in queries.items()
    }


def _sampled(gallery: Gallery, count: int) -> Iterator[StoredScan]:
    ids = [i for (i,) in gallery.catalogue.connection.execute("SELECT id FROM scans ORDER BY id")]
    places = np.unique(np.linspace(0, len(ids) - 1, min(count, len(ids))).round().astype(int))
    return gallery.catalogue.stored(ids[place] for place in places)


def _whole(scan: StoredScan) -> np.ndarray:
    return scan.vectors[scan.slice_numbers < 0].astype(np.float32)


def _slices(scan: StoredScan) -> np.ndarray:
    """(S, D) the slices as the model sees them; the whole for a scan of one slice."""
    pairs = zip(scan.slice_numbers, scan.views, strict=True)
    seen = [number >= 0 and view == MODEL_VIEW for number, view in pairs]
    own = scan.vectors[np.array(seen, bool)].astype(np.float32)
    return own if scan.row.n_slices > 1 and len(own) else _whole(scan)


def _middle(scan: StoredScan) -> np.ndarray:
    own = _slices(scan)
    middle: np.ndarray = own[len(own) // 2][np.newaxis]
    return middle


def _spread(scan: StoredScan) -> np.ndarray:
    own = _slices(scan)
    count = min(len(own), _QUERY_SLICES)
    places = np.unique(np.linspace(0, len(own) - 1, count).round().astype(int))
    spread: np.ndarray = own[places]
    return spread


def _nearest(
    gallery: Gallery, state: State, queries: Sequence[tuple[StoredScan, np.ndarray]], *, whole: bool
) -> Iterator[float]:
    """For each sampled scan the score of the nearest scan of another patient."""
    from medcli.retrieval.vectors import scores_of_scans

    levels: tuple[Level, ...] = ("scan",) if whole else ("scan", "slice")
    indexes = [gallery.caches.exact(level, state)[0] for level in levels]
    find = gallery.catalogue.find
    for group in _batches(queries):
        vectors = np.concatenate([own for _, own in group])
        ids, scores = scores_of_scans(indexes, vectors)
        start = 0
        for scan, own in group:
            mean = scores[:, start : start + len(own)].mean(axis=1)
            start += len(own)
            same = {scan.id}
            if scan.row.patient is not None:
                same.update(find("patient", scan.row.patient))
            if scan.row.pixel_sha256 is not None:
                same.update(find("pixel_sha256", scan.row.pixel_sha256))
            others = mean[~np.isin(ids, list(same))]
            if len(others):
                yield float(np.clip(others.max(), -1, 1))


def _batches(
    queries: Sequence[tuple[StoredScan, np.ndarray]],
) -> Iterator[list[tuple[StoredScan, np.ndarray]]]:
    batch: list[tuple[StoredScan, np.ndarray]] = []
    for each in queries:
        batch.append(each)
        if sum(len(own) for _, own in batch) >= _COLUMNS:
            yield batch
            batch = []
    if batch:
        yield batch
