"""Scans → gallery."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from medcli.errors import ScanError
from medcli.imaging.batch import read_all
from medcli.imaging.display import display_slices
from medcli.imaging.hashing import pixel_sha256
from medcli.records import Case, Embedding, Failure, GalleryEntry, Scan, Source
from medcli.report.pictures import encode_jpeg
from medcli.retrieval.checking import keep_canaries
from medcli.retrieval.entries import AddReport
from medcli.retrieval.gallery import Gallery
from medcli.workflows.canaries import canary_vectors
from medcli.workflows.sources import SourceWatch, absolute, common_root, kept_metadata

if TYPE_CHECKING:
    from medcli.inference.predictor import Predictor

OnScan = Callable[[int, int], None]  # (scans done, scans in all)
OnFailure = Callable[[Failure], None]  # what could not be read, as soon as it is known
THUMBNAIL_SIDE = 128  # pixels
_UID = re.compile(r"2\.25\.[0-9]+|[0-9]+(\.[0-9]+){3,}")  # 2.25: made from a UUID


@dataclass(frozen=True, slots=True)
class IndexReport:
    """What became of the scans: what the gallery did, and what never reached it."""

    stored: AddReport
    failures: tuple[Failure, ...]


def build_gallery(
    path: Path,
    predictor: Predictor,
    cases: Sequence[Case | Failure],
    *,
    overwrite: bool = False,
    lock_timeout: float = 60.0,
    on_scan: OnScan = lambda done, total: None,
    on_failure: OnFailure = lambda failure: None,
) -> IndexReport:
    """Make a gallery at `path` from every case that can be read, with a copy of the model.

    It takes its place once it is whole; until then an old gallery goes on answering, and
    where nothing can be read it stays.

    Raises
    ------
    OutputExistsError : `path` exists; names `index add` and --overwrite
    ScanError : none of the cases can be read
    LockedError : the gallery to be replaced is being written for longer than `lock_timeout`
    """
    package = predictor.package
    entries = _Entries(predictor, cases, on_scan, on_failure)
    with Gallery.build(
        path,
        model_dir=package.path,
        fingerprint=package.fingerprint,
        dim=package.model.vector_dim,
        root=common_root(cases),
        overwrite=overwrite,
        lock_timeout=lock_timeout,
    ) as gallery:
        report = _store(gallery, entries, on_failure)
        if not report.stored.added:
            raise nothing_readable(report.failures)
        keep_canaries(gallery, canary_vectors(predictor))
    return report


def add_to_gallery(
    gallery: Gallery,
    predictor: Predictor,
    cases: Sequence[Case | Failure],
    *,
    on_scan: OnScan = lambda done, total: None,
    on_failure: OnFailure = lambda failure: None,
) -> IndexReport:
    """Read, embed and store every case; bad ones are reported and the others go on."""
    return _store(gallery, _Entries(predictor, cases, on_scan, on_failure), on_failure)


def nothing_readable(failures: Sequence[Failure]) -> ScanError:
    """The error of a command that all its inputs failed."""
    if not failures:
        return ScanError("no_scans", "no scan was found", "Name files or folders with images")
    return ScanError(failures[0].code, f"no scan could be read; the first: {failures[0].message}")


def _store(gallery: Gallery, entries: _Entries, on_failure: OnFailure) -> IndexReport:
    stored = gallery.add(entries)
    for refused in stored.refused:
        on_failure(refused)
    return IndexReport(stored, (*entries.failures, *stored.refused))


class Looks(NamedTuple):
    """What a gallery keeps of the pixels themselves: their hash, and JPEG by slice."""

    pixel_sha256: str
    thumbnails: dict[int, bytes]


class Found(NamedTuple):
    """A scan that was read, to be embedded; `source` is the state of its files."""

    case: Case
    scan: Scan
    source: Source | None


def entries_of(predictor: Predictor, scans: Iterable[Found]) -> Iterator[GalleryEntry]:
    """What a gallery stores of each scan, in order.

    Some scans are embedded at a time; what is kept of their pixels is made beside.
    """
    waiting: deque[tuple[Found, Future[Looks]]] = deque()
    side = ThreadPoolExecutor(1, thread_name_prefix="medcli-looks")

    def read() -> Iterator[Scan]:
        for found in scans:
            waiting.append((found, side.submit(looks_of, found.scan)))
            yield found.scan

    try:
        for embedding in predictor.embed_all(read()):
            (case, scan, source), looks = waiting.popleft()
            yield gallery_entry(case, scan, embedding, source, looks.result())
    finally:  # where nobody wants the rest, it is not made
        side.shutdown(cancel_futures=True)


class _Entries:
    """The readable cases as entries, read as they are drawn; the others join `failures`."""

    def __init__(
        self,
        predictor: Predictor,
        cases: Sequence[Case | Failure],
        on_scan: OnScan,
        on_failure: OnFailure,
    ) -> None:
        self.failures: list[Failure] = []
        self._predictor = predictor
        self._cases = cases
        self._on_scan = on_scan
        self._on_failure = on_failure
        self._watch = SourceWatch()
        self._count = 0  # cases that are stored or have failed

    def __iter__(self) -> Iterator[GalleryEntry]:
        for entry in entries_of(self._predictor, self._read()):
            yield entry
            self._done()

    def _read(self) -> Iterator[Found]:
        """The scans that can be read, with their cases and their files' state."""
        for case, scan in read_all(self._watch.watched(self._cases)):
            if isinstance(scan, Failure):
                self.failures.append(scan)
                self._on_failure(scan)
                self._done()
                continue
            assert isinstance(case, Case)
            yield Found(case, scan, self._watch.source(case, scan))

    def _done(self) -> None:
        self._count += 1
        self._on_scan(self._count, len(self._cases))


def looks_of(scan: Scan) -> Looks:
    """The hash of a scan's pixels, and a thumbnail of each slice."""
    pictures = thumbnails(scan, range(len(scan.pixels)), THUMBNAIL_SIDE)
    return Looks(pixel_sha256(scan), dict(enumerate(pictures)))


def gallery_entry(
    case: Case,
    scan: Scan,
    embedding: Embedding,
    source: Source | None = None,
    looks: Looks | None = None,
) -> GalleryEntry:
    """A scan as a gallery stores it: vectors, thumbnails, tags by allow-list; paths absolute."""
    looks = looks or looks_of(scan)
    return GalleryEntry(
        path=absolute(scan.path),
        scan_id=stored_id(scan),
        files=tuple(map(absolute, scan.files)),
        slice_files=tuple(map(absolute, scan.slice_files)),
        embedding=embedding,
        label=case.label,
        patient_id=scan.patient_id,
        modality=scan.modality,
        format=scan.format,
        decoder=scan.decoder,
        pixel_sha256=looks.pixel_sha256,
        thumbnails=looks.thumbnails,
        metadata=kept_metadata(case, scan),
        source=source,
        study_uid=scan.study_uid,
        study_date=scan.study_date,
    )


def stored_id(scan: Scan) -> str:
    """A name that is unique over all data sets: the DICOM UID, else the absolute path.

    Numbers that a manifest gives its scans are not: two manifests may both have a "1".
    """
    is_uid = scan.format == "dicom" and _UID.fullmatch(scan.scan_id)
    return scan.scan_id if is_uid else absolute(scan.path)


def thumbnails(scan: Scan, numbers: Iterable[int], side: int) -> Iterator[bytes]:
    """Slices as a person sees them, as JPEG with the longer side of `side` pixels."""
    for picture in display_slices(scan, numbers, edge=side):
        yield encode_jpeg(picture)
