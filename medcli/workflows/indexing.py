"""Scans → gallery."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medcli.errors import ScanError
from medcli.imaging.batch import read_all
from medcli.imaging.display import display_slice
from medcli.imaging.hashing import pixel_sha256
from medcli.records import Case, Failure, GalleryEntry, Scan
from medcli.report.pictures import encode_jpeg
from medcli.retrieval.entries import AddReport
from medcli.retrieval.gallery import Gallery

if TYPE_CHECKING:
    from medcli.inference.predictor import Predictor

OnScan = Callable[[int, int], None]  # (scans done, scans in all)
THUMBNAIL_SIDE = 96  # pixels


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
    on_scan: OnScan = lambda done, total: None,
) -> IndexReport:
    """Make a gallery at `path` from every case that can be read, with a copy of the model.

    It is made once the first scan is embedded, so that nothing readable leaves
    nothing behind and an old gallery in its place.

    Raises
    ------
    OutputExistsError : `path` exists; names `index add` and --overwrite
    ScanError : none of the cases can be read
    """
    failures: list[Failure] = []
    entries = _entries(cases, predictor, failures, on_scan)
    first = next(entries, None)
    if first is None:
        raise ScanError(
            failures[0].code, f"no scan could be read; the first: {failures[0].message}"
        )
    package = predictor.package
    gallery = Gallery.create(
        path,
        model_dir=package.path,
        fingerprint=package.fingerprint,
        dim=package.model.embedding_dim,
        overwrite=overwrite,
    )
    with gallery:
        return _store(gallery, chain([first], entries), failures)


def add_to_gallery(
    gallery: Gallery,
    predictor: Predictor,
    cases: Sequence[Case | Failure],
    *,
    on_scan: OnScan = lambda done, total: None,
) -> IndexReport:
    """Read, embed and store every case; bad ones are reported and the others go on."""
    failures: list[Failure] = []
    return _store(gallery, _entries(cases, predictor, failures, on_scan), failures)


def _store(
    gallery: Gallery, entries: Iterable[GalleryEntry], failures: list[Failure]
) -> IndexReport:
    stored = gallery.add(entries)
    gallery.refresh()
    return IndexReport(stored, (*failures, *stored.refused))


def _entries(
    cases: Sequence[Case | Failure], predictor: Predictor, failures: list[Failure], on_scan: OnScan
) -> Iterator[GalleryEntry]:
    """The readable cases as entries; the others go to `failures`."""
    for done, (case, scan) in enumerate(read_all(cases), start=1):
        if isinstance(scan, Failure):
            failures.append(scan)
        else:
            assert isinstance(case, Case)
            yield gallery_entry(case, scan, predictor)
        on_scan(done, len(cases))


def gallery_entry(case: Case, scan: Scan, predictor: Predictor) -> GalleryEntry:
    """A scan as a gallery stores it: vectors, thumbnails, tags by allow-list; paths absolute."""
    return GalleryEntry(
        path=absolute(scan.path),
        scan_id=_stored_id(scan),
        files=tuple(map(absolute, scan.files)),
        slice_files=tuple(map(absolute, scan.slice_files)),
        embedding=predictor.embed(scan),
        label=case.label,
        patient_id=scan.patient_id,
        modality=scan.modality,
        format=scan.format,
        decoder=scan.decoder,
        pixel_sha256=pixel_sha256(scan),
        thumbnails={number: thumbnail(scan, number) for number in range(len(scan.pixels))},
        metadata=scan.metadata,
    )


def _stored_id(scan: Scan) -> str:
    """A name that is unique over all data sets: the DICOM UID, else the absolute path.

    Numbers that a manifest gives its scans are not: two manifests may both have a "1".
    """
    is_uid = scan.format == "dicom" and re.fullmatch(r"[0-9]+(\.[0-9]+){3,}", scan.scan_id)
    return scan.scan_id if is_uid else absolute(scan.path)


def thumbnail(scan: Scan, number: int, side: int = THUMBNAIL_SIDE) -> bytes:
    """A slice as a person sees it, as JPEG."""
    return encode_jpeg(np.asarray(display_slice(scan, number, edge=side)))


def absolute(path: str) -> str:
    """`path` from the root, so that a gallery's answer holds from any folder."""
    return str(Path(path).absolute())
