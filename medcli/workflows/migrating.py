"""A gallery and another model → the same gallery with the vectors of that model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from medcli.errors import ScanError
from medcli.home import for_gallery
from medcli.imaging.batch import read_all
from medcli.imaging.hashing import pixel_sha256
from medcli.records import Case, Failure, Scan
from medcli.retrieval.checking import keep_canaries
from medcli.retrieval.entries import vector_rows
from medcli.retrieval.gallery import Gallery
from medcli.retrieval.migrating import Overlap, embed_anew, measure_overlap, migration
from medcli.retrieval.rows import VectorRow
from medcli.retrieval.sources import StoredSource, stored_sources
from medcli.workflows.canaries import canary_vectors
from medcli.workflows.indexing import OnFailure, OnScan
from medcli.workflows.sources import case_of

if TYPE_CHECKING:
    from medcli.inference.predictor import Predictor

BATCH = 64  # scans a transaction
Vectors = tuple[VectorRow, ...]


@dataclass(frozen=True, slots=True)
class MigrationReport:
    """What became of the gallery.

    Parameters
    ----------
    switched : it has the new model's vectors now; else it is as it was
    embedded : scans embedded anew
    left_out : scans that could not be, and with `prune` are no part of it any more
    overlap : None where nothing could be compared because scans failed
    """

    switched: bool
    embedded: int
    left_out: int
    failures: tuple[Failure, ...]
    overlap: Overlap | None
    fingerprints: tuple[str, str]  # old, new


class _Stay(Exception):
    """Leaves a migration without switching."""


def migrate_gallery(
    path: Path,
    predictor: Predictor,
    *,
    prune: bool = False,
    dry_run: bool = False,
    k: int = 10,
    sample: int = 200,
    seed: int = 0,
    lock_timeout: float = 60.0,
    on_scan: OnScan = lambda done, total: None,
    on_failure: OnFailure = lambda failure: None,
    on_overlap: Callable[[Overlap], None] = lambda overlap: None,
) -> MigrationReport:
    """Embed all scans of a gallery anew beside it, compare neighbours, then change places.

    Until then the gallery answers as it did; an error or interruption leaves it so, and
    the work begins anew. A scan whose files are gone or have other pixels fails.

    Parameters
    ----------
    prune : go on without the scans that fail; else one that fails keeps the old gallery
    dry_run : do all but the last step
    k, sample, seed : of the overlap; see `measure_overlap`
    on_overlap : told before the places are changed

    Raises
    ------
    UsageError : it was built with this model
    LockedError, StorageError, DamagedError : as `Gallery.open`
    """
    package = predictor.package
    update = for_gallery("medcli index update", path)
    run = _Run(predictor, update, on_scan, on_failure)
    switched, overlap = False, None
    try:
        with migration(
            path,
            package.path,
            package.fingerprint,
            package.model.vector_dim,
            lock_timeout=lock_timeout,
        ) as (old, new):
            before = old.fingerprint
            run.embed_all(new)
            if not run.embedded or (run.failed and not prune):
                raise _Stay
            with new.writing():
                for scan in run.failed:
                    new.catalogue.delete(scan)
            overlap = measure_overlap(old, new, k=k, sample=sample, seed=seed)
            on_overlap(overlap)
            if dry_run:
                raise _Stay
            keep_canaries(new, canary_vectors(predictor))
        switched = True
    except _Stay:
        pass
    return MigrationReport(
        switched,
        run.embedded,
        len(run.failed) if switched else 0,
        tuple(run.failures),
        overlap,
        (before, package.fingerprint),
    )


class _Run:
    """All scans of a copy, read and embedded; those that fail are kept in mind.

    `update` is the command that brings the gallery up to date.
    """

    def __init__(
        self, predictor: Predictor, update: str, on_scan: OnScan, on_failure: OnFailure
    ) -> None:
        self._predictor = predictor
        self._update = update
        self._on_scan = on_scan
        self._on_failure = on_failure
        self.embedded = 0
        self.failed: list[int] = []
        self.failures: list[Failure] = []

    def embed_all(self, new: Gallery) -> None:
        """Give every scan of `new` its new vectors, a batch a transaction."""
        with new.snapshot():
            stored = list(stored_sources(new.catalogue))
        waiting: list[tuple[int, Vectors]] = []
        for done, each in enumerate(self._embeddings(stored), start=1):
            waiting += [each] if each else []
            if len(waiting) == BATCH or done == len(stored):
                embed_anew(new, waiting)
                self.embedded += len(waiting)
                waiting = []
            self._on_scan(done, len(stored))

    def _embeddings(self, stored: Sequence[StoredSource]) -> Iterator[tuple[int, Vectors] | None]:
        """The embedding of each scan, None where it fails."""
        dim = self._predictor.package.model.vector_dim
        cases = [case_of(each) or _unknown(each, self._update) for each in stored]
        for each, (_, scan) in zip(stored, read_all(cases), strict=True):
            problem = scan if isinstance(scan, Failure) else _other_pixels(each, scan, self._update)
            if problem is None:
                assert isinstance(scan, Scan)
                embedding = self._predictor.embed(scan)
                try:
                    rows = vector_rows(embedding, dim, scan.path)
                except ScanError as error:
                    problem = Failure(scan.path, error.code, str(error), files=scan.files)
                else:
                    yield each.id, rows
                    continue
            self.failed.append(each.id)
            self.failures.append(problem)
            self._on_failure(problem)
            yield None


def _unknown(stored: StoredSource, update: str) -> Case | Failure:
    """The failure of a scan of which it is not known how it is read."""
    return Failure(
        stored.row.path,
        "source_changed",
        f"{stored.row.path}: it is not known how this scan was read; run {update}",
        files=stored.row.files,
    )


def _other_pixels(stored: StoredSource, scan: Scan, update: str) -> Failure | None:
    """The failure of a scan whose files are read to other pixels than the stored ones."""
    if pixel_sha256(scan) == stored.row.pixel_sha256:
        return None
    return Failure(
        stored.row.path,
        "source_changed",
        f"{stored.row.path} has changed since it was stored; first run {update}",
        files=stored.row.files,
    )
