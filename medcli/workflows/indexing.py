"""Scans → gallery."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medcli.imaging.display import display_slice
from medcli.imaging.hashing import pixel_sha256
from medcli.imaging.reader import read_all
from medcli.records import Case, Failure, GalleryEntry, Scan
from medcli.report.pictures import encode_jpeg

if TYPE_CHECKING:
    from medcli.inference.predictor import Predictor
    from medcli.retrieval.entries import AddReport
    from medcli.retrieval.gallery import Gallery

THUMBNAIL_SIDE = 96  # pixels


@dataclass(frozen=True, slots=True)
class IndexReport:
    """What became of the scans: what the gallery did, and what never reached it."""

    stored: AddReport
    failures: tuple[Failure, ...]


def create_gallery(path: Path, predictor: Predictor, *, overwrite: bool) -> Gallery:
    """An empty gallery for the vectors of `predictor`, with a copy of its model.

    Raises
    ------
    UsageError : a gallery is there already; names `index add` and --overwrite
    """
    from medcli.retrieval.gallery import Gallery

    package = predictor.package
    return Gallery.create(
        path,
        model_dir=package.path,
        fingerprint=package.fingerprint,
        dim=package.model.embedding_dim,
        overwrite=overwrite,
    )


def index_scans(
    gallery: Gallery,
    predictor: Predictor,
    cases: Iterable[Case | Failure],
    *,
    on_scan: Callable[[Case | Failure, Scan | Failure], None] = lambda case, scan: None,
) -> IndexReport:
    """Read, embed and store every case; bad ones are reported and the others go on.

    Parameters
    ----------
    on_scan : called for each case once it is embedded or has failed
    """
    failures: list[Failure] = []

    def entries() -> Iterator[GalleryEntry]:
        for case, scan in read_all(cases):
            if isinstance(scan, Failure) or isinstance(case, Failure):
                failures.append(scan if isinstance(scan, Failure) else case)  # type: ignore[arg-type]
            else:
                yield gallery_entry(case, scan, predictor)
            on_scan(case, scan)

    stored = gallery.add(entries())
    gallery.refresh()
    return IndexReport(stored, (*failures, *stored.refused))


def gallery_entry(case: Case, scan: Scan, predictor: Predictor) -> GalleryEntry:
    """A scan as a gallery stores it: vectors, thumbnails, tags by allow-list; paths absolute."""
    return GalleryEntry(
        path=absolute(scan.path),
        scan_id=scan.scan_id if scan.scan_id != scan.path else absolute(scan.path),
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


def thumbnail(scan: Scan, number: int, side: int = THUMBNAIL_SIDE) -> bytes:
    """A slice as a person sees it, as JPEG."""
    return encode_jpeg(np.asarray(display_slice(scan, number, edge=side)))


def absolute(path: str) -> str:
    """`path` from the root, so that a gallery's answer holds from any folder."""
    return str(Path(path).absolute())
