"""A gallery follows its files: what changed is embedded anew, what moved is found again."""

from __future__ import annotations

import itertools
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

from medcli.errors import ScanError, UsageError
from medcli.home import for_gallery
from medcli.imaging.batch import read_all
from medcli.imaging.hashing import pixel_sha256
from medcli.records import Case, Failure, GalleryEntry, Scan, ScanWarning, Source
from medcli.retrieval.gallery import Gallery
from medcli.retrieval.rows import ScanRow
from medcli.retrieval.sources import (
    Place,
    StoredSource,
    rewrite,
    stored_sources,
    touch,
    with_content,
)
from medcli.retrieval.studies import known_marks
from medcli.workflows.indexing import Found, OnFailure, OnScan, entries_of
from medcli.workflows.sources import (
    SITE,
    SPLIT,
    SourceWatch,
    absolute,
    case_of,
    kept_metadata,
    outer_file,
    stats_of,
    told_by_manifest,
)

if TYPE_CHECKING:
    from medcli.inference.predictor import Predictor

BATCH = 64  # scans a transaction
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class UpdateReport:
    """What became of the stored scans and of new ones.

    `missing` are stored scans whose files are gone, kept unless `pruned` counts them.
    """

    unchanged: int = 0
    updated: int = 0
    added: int = 0
    moved: int = 0
    pruned: int = 0
    missing: tuple[StoredSource, ...] = ()
    failures: tuple[Failure, ...] = ()
    warnings: tuple[ScanWarning, ...] = ()


_Series = tuple[str | int | None, ...]


@dataclass(frozen=True, slots=True)
class _Job:
    """A scan to be read: the stored one that it belongs to, and whether that one has moved."""

    case: Case
    stored: StoredSource | None
    moved: bool = False


@dataclass
class _Plan:
    """What a look at the files says there is to do."""

    jobs: list[_Job] = field(default_factory=list)
    noted: list[tuple[StoredSource, Source]] = field(default_factory=list)
    rewritten: list[tuple[int, ScanRow, Source | None, dict[int, str]]] = field(
        default_factory=list
    )
    moved: int = 0
    gone: list[StoredSource] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    unchanged: int = 0


def update_gallery(
    gallery: Gallery,
    predictor: Predictor,
    cases: Sequence[Case | Failure] | None = None,
    *,
    inputs: Sequence[str] = (),
    prune: bool = False,
    on_scan: OnScan = lambda done, total: None,
    on_failure: OnFailure = lambda failure: None,
) -> UpdateReport:
    """Bring stored scans up to date with their files, and add the new ones among `cases`.

    Size and time of change decide, then content, then pixels: only scans whose pixels
    changed are embedded. Work is committed every `BATCH` scans, so an interrupted update
    is taken up where it stopped.

    Parameters
    ----------
    cases : scans to look at; None: every stored scan
    inputs : what `cases` were found in; stored scans below these are looked at, too
    prune : remove the stored scans whose files are gone

    Raises
    ------
    UsageError : `prune`, and all files are gone: rather a disk is missing
    DamagedError, LockedError, StorageError : as `Gallery.add`
    """
    return _Update(gallery, predictor, on_scan, on_failure).run(cases, inputs, prune)


def move_root(gallery: Gallery, root: str) -> None:
    """Say where the folder lies now from which stored paths start.

    Raises
    ------
    UsageError : the gallery has no such folder, or none of its files is in the new one
    """
    new = absolute(root)
    with gallery.snapshot():
        old = gallery.catalogue.root
        scans = list(stored_sources(gallery.catalogue))
    if old is None:
        raise UsageError(
            f"the paths in {gallery.path} do not start at a common folder",
            "name the folder that the scans are in now: "
            + for_gallery("medcli index update FOLDER", gallery.path),
        )
    below = [s.row.path[len(old) :] for s in scans if s.row.path.startswith(old)]
    if not any(os.path.exists(outer_file(new + path)) for path in below):
        raise UsageError(f"{root} holds none of the scans of {gallery.path}", f"they were in {old}")
    with gallery.writing():
        gallery.catalogue.set_meta("root", new)
    gallery.refresh()


class _Update:
    """One run over the files."""

    def __init__(
        self, gallery: Gallery, predictor: Predictor, on_scan: OnScan, on_failure: OnFailure
    ) -> None:
        self._gallery = gallery
        self._predictor = predictor
        self._on_scan = on_scan
        self._on_failure = on_failure
        self._watch = SourceWatch()
        self._plan = _Plan()
        self._taken: set[int] = set()  # scans that were found at a new place

    def run(
        self, cases: Sequence[Case | Failure] | None, inputs: Sequence[str], prune: bool
    ) -> UpdateReport:
        """The whole update."""
        with self._gallery.snapshot():
            stored = list(stored_sources(self._gallery.catalogue))
        looked_at = stored if cases is None else self._look_at_cases(cases, inputs, stored)
        for each in looked_at:
            self._look_at_stored(each)
        plan = self._plan
        self._commit_rewrites()
        report = self._gallery.put(self._entries(), BATCH)
        self._commit_rewrites()
        for refused in report.refused:
            self._fail(refused)
        gone = self._still_gone()
        pruned = self._pruned(gone, len(looked_at)) if prune else 0
        return UpdateReport(
            unchanged=plan.unchanged + report.unchanged,
            updated=report.updated,
            added=report.added,
            moved=plan.moved,
            pruned=pruned,
            missing=tuple(gone),
            failures=tuple(plan.failures),
            warnings=report.warnings + self._gallery.refresh(),
        )

    def _look_at_cases(
        self,
        cases: Sequence[Case | Failure],
        inputs: Sequence[str],
        stored: Sequence[StoredSource],
    ) -> list[StoredSource]:
        """Plan what to do about `cases`; the stored scans below `inputs` that are none of them."""
        found = _stored_cases([case for case in cases if isinstance(case, Case)], stored)
        pairs = iter(found)
        for case in cases:
            if isinstance(case, Failure):
                self._fail(case)
                continue
            known = next(pairs)
            self._guarded(case.path, lambda c=case, k=known: self._look_at_case(c, k))  # type: ignore[misc]
        met = {known.id for known in found if known is not None}
        roots = [absolute(each) for each in inputs]
        return [each for each in stored if each.id not in met and _lies_below(each, roots)]

    def _look_at_case(self, case: Case, known: StoredSource | None) -> None:
        if known is None:
            self._look_for_origin(case)
            return
        if known.place != _place(case):  # a series that has lost slices, or got some
            self._plan.jobs.append(_Job(case, known))
            return
        state = self._watch.state(known)
        if state == "changed":
            self._plan.jobs.append(_Job(case, known))
            return
        patient = self._gallery.patient_hash(case.patient_id)
        row = replace(
            known.row,
            label=case.label or known.row.label,
            patient=patient or known.row.patient,
            metadata={**known.row.metadata, **told_by_manifest(case)},
        )
        if row != known.row:
            source = self._fresh(known)
            self._plan.rewritten.append((known.id, row, source, {}))
        else:
            self._keep(known, same=state == "same")

    def _look_for_origin(self, case: Case) -> None:
        """A case that is not stored at its place: it has moved, or it is new."""
        files = tuple(map(absolute, case.files))
        content = self._watch.content(files)
        with self._gallery.snapshot():
            twins = with_content(self._gallery.catalogue, content)
        parts = (case.member, case.series_uid, case.time_point)
        for twin in twins:
            taken = twin.id in self._taken
            if not taken and twin.place[2:] == parts and self._watch.state(twin) == "gone":
                self._taken.add(twin.id)
                self._move(case, twin)
                return
        self._plan.jobs.append(_Job(case, None))

    def _move(self, case: Case, twin: StoredSource) -> None:
        """The stored scan `twin` is now at `case`; where its files were renamed it is read."""
        old, new = twin.row.files, tuple(map(absolute, case.files))
        names = [os.path.basename(file) for file in new]
        if len(new) > 1 and [os.path.basename(file) for file in old] != names:
            self._plan.jobs.append(_Job(case, twin, moved=True))
            return
        places = dict(zip(old, new, strict=True))
        with self._gallery.snapshot():
            slices = {
                number: self._gallery.catalogue.slice(twin.id, number)
                for number in range(twin.row.n_slices)
            }
        moved = {number: places.get(each.file, new[0]) for number, each in slices.items() if each}
        row = _moved_row(twin.row, absolute(case.path), new, case.label)
        self._plan.rewritten.append((twin.id, row, _at(twin.source, self._watch, new), moved))
        self._plan.moved += 1

    def _look_at_stored(self, stored: StoredSource) -> None:
        self._guarded(stored.row.path, lambda: self._plan_for_stored(stored))

    def _plan_for_stored(self, stored: StoredSource) -> None:
        state = self._watch.state(stored)
        if state == "gone":
            self._plan.gone.append(stored)
        elif state == "changed":
            self._plan.jobs += [_Job(case, stored) for case in self._again(stored)]
        else:
            self._keep(stored, same=state == "same")

    def _again(self, stored: StoredSource) -> list[Case]:
        """How a stored scan is read again; one of format 1 is found by its files.

        A series is what is left of its slices. A stack of pictures is named by a manifest, so
        that one that is gone is missed.
        """
        case = case_of(stored)
        if case is not None and case.kind == "dicom":
            return [replace(case, files=tuple(f for f in case.files if _is_there(f)))]
        if case is not None:
            return [case]
        from medcli.imaging.discovery import find_scans

        found = [each for each in find_scans(stored.row.files) if isinstance(each, Case)]
        same = [each for each in found if absolute(each.path) == stored.row.path]
        return [replace(each, label=stored.row.label) for each in (same or found)[:1]]

    def _keep(self, stored: StoredSource, *, same: bool) -> None:
        """Its content is what it was; note a new time of change."""
        source = None if same else self._fresh(stored)
        if source is not None and source != stored.source:
            self._plan.noted.append((stored, source))
        self._plan.unchanged += 1

    def _fresh(self, stored: StoredSource) -> Source | None:
        return _at(stored.source, self._watch, stored.row.files)

    def _guarded(self, path: str, look: Callable[[], None]) -> None:
        """A scan whose files cannot be looked at fails, and the others go on."""
        try:
            look()
        except ScanError as error:
            self._fail(Failure(path, error.code, str(error), files=(path,)))

    def _fail(self, failure: Failure) -> None:
        self._plan.failures.append(failure)
        self._on_failure(failure)

    def _entries(self) -> Iterator[tuple[GalleryEntry, int | None]]:
        """What must be embedded, with the id of the stored scan whose place it takes."""
        replaced: deque[int | None] = deque()
        for entry in entries_of(self._predictor, self._to_embed(replaced)):
            yield entry, replaced.popleft()

    def _to_embed(self, replaced: deque[int | None]) -> Iterator[Found]:
        """The scans that must be; those whose pixels are the stored ones are noted only."""
        jobs = self._plan.jobs
        cases = self._watch.watched([job.case for job in jobs])
        for done, (job, (_, scan)) in enumerate(zip(jobs, read_all(cases), strict=True), start=1):
            if isinstance(scan, Failure):
                self._fail(scan)
            elif not self._is_stored(job, scan):
                replaced.append(job.stored.id if job.stored else None)
                yield Found(job.case, scan, self._watch.source(job.case, scan))
            if len(self._plan.rewritten) + len(self._plan.noted) >= BATCH:
                self._commit_rewrites()
            self._on_scan(done, len(jobs))

    def _is_stored(self, job: _Job, scan: Scan) -> bool:
        """Whether the vectors are those of the stored scan; then its row follows the files."""
        if job.stored is None or pixel_sha256(scan) != job.stored.row.pixel_sha256:
            return False
        files = tuple(map(absolute, scan.files))
        patient = self._gallery.patient_hash(scan.patient_id)
        row = _moved_row(job.stored.row, absolute(scan.path), files, job.case.label)
        row = replace(
            row,
            patient=patient or row.patient,
            modality=scan.modality,
            format=scan.format,
            decoder=scan.decoder,
            metadata={
                **_told_before(row),
                **known_marks(job.stored.row.metadata),
                **kept_metadata(job.case, scan),
                **self._gallery.study_marks(scan.patient_id, scan.study_uid, scan.study_date),
            },
        )
        source = self._watch.source(job.case, scan)
        slices = dict(enumerate(map(absolute, scan.slice_files)))
        if row == job.stored.row and not job.moved:
            if source is not None:
                self._plan.noted.append((job.stored, source))
        else:
            self._plan.rewritten.append((job.stored.id, row, source, slices))
        self._plan.moved += job.moved
        self._plan.unchanged += not job.moved
        return True

    def _commit_rewrites(self) -> None:
        """Write the rows that follow their files, a batch a transaction."""
        plan = self._plan
        for group in _batches(plan.noted):
            with self._gallery.writing():
                for stored, source in group:
                    touch(self._gallery.catalogue, stored.id, source)
        for rows in _batches(plan.rewritten):
            with self._gallery.writing():
                for values in rows:
                    rewrite(self._gallery.catalogue, *values)
        plan.noted, plan.rewritten = [], []

    def _still_gone(self) -> list[StoredSource]:
        """Of those whose files were gone, the ones that were not found elsewhere."""
        with self._gallery.snapshot():
            now = stored_sources(self._gallery.catalogue, [each.id for each in self._plan.gone])
            files = {each.id: each.row.files for each in now}
        return [each for each in self._plan.gone if files.get(each.id) == each.row.files]

    def _pruned(self, gone: Sequence[StoredSource], looked_at: int) -> int:
        if not gone:
            return 0
        if len(gone) == looked_at and not self._plan.unchanged:
            raise UsageError(
                f"the files of all {len(gone)} scans are gone; nothing was removed",
                "mount the disk they are on, say where they are now with --root FOLDER, "
                "or remove them with: " + for_gallery("medcli index remove", self._gallery.path),
            )
        return self._gallery.remove([each.id for each in gone])


def _batches(items: Sequence[_T]) -> Iterable[Sequence[_T]]:
    for start in range(0, len(items), BATCH):
        yield items[start : start + BATCH]


def _place(case: Case) -> Place:
    """Where a case lies; see `StoredSource.place`."""
    files = tuple(map(absolute, case.files))
    return absolute(case.path), files, case.member, case.series_uid, case.time_point


def _stored_cases(
    cases: Sequence[Case], stored: Sequence[StoredSource]
) -> list[StoredSource | None]:
    """The stored scan that each case is, None for a new one.

    A series stays the same where it has lost slices or got some, if no other could be meant.
    """
    places = {each.place: each for each in stored}
    found = [places.get(_place(case)) for case in cases]
    met = {known.id for known in found if known is not None}
    series = Counter(
        _series(_place(case)) for case, known in zip(cases, found, strict=True) if not known
    )
    left: dict[_Series, list[StoredSource]] = {}
    for each in stored:
        if each.id not in met:
            left.setdefault(_series(each.place), []).append(each)
    for number, case in enumerate(cases):
        key = _series(_place(case))
        others = left.get(key, [])
        if found[number] is None and case.kind == "dicom" and series[key] == len(others) == 1:
            found[number] = others[0]
    return found


def _series(place: Place) -> _Series:
    """A place without its files."""
    path, _, *parts = place
    return path, *parts


def _is_there(file: str) -> bool:
    return os.path.exists(outer_file(file))


def _lies_below(stored: StoredSource, roots: Sequence[str]) -> bool:
    return any(
        file == root or file.startswith(root.rstrip(os.sep) + os.sep)
        for root, file in itertools.product(roots, stored.row.files)
    )


def _told_before(row: ScanRow) -> dict[str, str]:
    """What a manifest said of a stored scan; where none is given now, that stays."""
    return {name: row.metadata[name] for name in (SITE, SPLIT) if name in row.metadata}


def _moved_row(row: ScanRow, path: str, files: tuple[str, ...], label: str | None) -> ScanRow:
    """`row` at another place; an id that was made of the path follows it."""
    scan_id = path if row.scan_id == row.path else row.scan_id
    return replace(row, scan_id=scan_id, path=path, files=files, label=label or row.label)


def _at(source: Source | None, watch: SourceWatch, files: tuple[str, ...]) -> Source | None:
    """`source`, whose content is that of `files`, with their present size and time."""
    stats = stats_of(files)
    if source is None or stats is None or watch.content(files) != source.sha256:
        return None
    return replace(source, stats=stats)
