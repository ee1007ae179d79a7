"""What a gallery's vectors say about its scans: twins, conflicts, and what neighbours follow."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from medcli.retrieval.likeness import Agreement, Pair, agreement, near_pairs, neighbours
from medcli.retrieval.rows import ScanRow, StoredScan

if TYPE_CHECKING:
    from medcli.retrieval.gallery import Gallery

NEIGHBOURS = 5


@dataclass(frozen=True, slots=True)
class Twins:
    """Two stored scans that are nearly the same; `codes` say why that matters."""

    ids: tuple[int, int]
    paths: tuple[str, str]
    labels: tuple[str | None, str | None]
    cosine: float
    same_pixels: bool
    codes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Audit:
    """What was found.

    Parameters
    ----------
    twins : near-duplicates of two patients, with two labels, or in two splits; the nearest first
    total : pairs by code, and patients whose scans are in several splits
    splits : scans in each, where a manifest named them
    follows : by property (label, modality, manufacturer …) how often a scan's nearest
        scans of other patients share it, against chance
    warnings : properties that neighbours follow more than the label
    """

    scans: int
    threshold: float
    twins: tuple[Twins, ...]
    total: Mapping[str, int]
    splits: Mapping[str, int]
    follows: Mapping[str, Agreement]
    warnings: tuple[str, ...]


def audit_gallery(gallery: Gallery, *, threshold: float = 0.995, most: int = 1000) -> Audit:
    """Look for near-duplicates, label conflicts among them, and what neighbours follow.

    Compared are the vectors of whole scans.

    Parameters
    ----------
    threshold : the cosine from which two scans are twins
    most : twins listed; all are counted

    Raises
    ------
    DamagedError : a row does not match its checksum
    """
    with gallery.snapshot():
        scans = [_whole(scan) for scan in gallery.catalogue.stored()]
    vectors = np.array([scan.vectors[0] for scan in scans], np.float16)
    vectors = vectors.reshape(len(scans), gallery.dim)
    total: Counter[str] = Counter()

    def counted() -> Iterator[Twins]:
        for pair in near_pairs(vectors, threshold):
            if twins := _twins(scans, pair):
                total.update(twins.codes)
                yield twins

    found = heapq.nsmallest(most, counted(), key=lambda each: (-each.cosine, each.ids))
    patients = [scan.row.patient for scan in scans]
    nearest = neighbours(vectors, patients, NEIGHBOURS)
    follows = {}
    for name, value in PROPERTIES.items():
        result = agreement([value(scan.row) for scan in scans], patients, nearest)
        if result is not None:
            follows[name] = result
    return Audit(
        scans=len(scans),
        threshold=threshold,
        twins=tuple(found),
        total={
            **{code: total[code] for code in CODES},
            "patient_in_two_splits": _patients_in_two_splits(scans),
        },
        splits=dict(sorted(Counter(filter(None, (_split(scan.row) for scan in scans))).items())),
        follows=follows,
        warnings=tuple(_stronger(follows)),
    )


def _whole(scan: StoredScan) -> StoredScan:
    """The scan with the one vector that is compared; those of its slices need not be held."""
    vector = scan.vectors[scan.slice_numbers < 0].copy()
    return replace(scan, vectors=vector, slice_numbers=np.array([-1]), views=("model",))


def _metadata(name: str) -> Callable[[ScanRow], str | None]:
    return lambda row: row.metadata.get(name)


_split = _metadata("split")
CODES = ("near_duplicate", "near_label_conflict", "near_copy_in_two_splits")
PROPERTIES: Mapping[str, Callable[[ScanRow], str | None]] = {
    "label": lambda row: row.label,
    "modality": lambda row: row.modality,
    "format": lambda row: row.format,
    "site": _metadata("site"),
    "manufacturer": _metadata("Manufacturer"),
    "scanner": _metadata("ManufacturerModelName"),
    "kernel": _metadata("ConvolutionKernel"),
}


def _twins(scans: list[StoredScan], pair: Pair) -> Twins | None:
    """The pair, if it is of two patients, has two labels, or lies in two splits."""
    one, two = scans[pair.first], scans[pair.second]
    codes = []
    if one.row.patient is None or one.row.patient != two.row.patient:
        codes.append("near_duplicate")
    if None not in (one.row.label, two.row.label) and one.row.label != two.row.label:
        codes.append("near_label_conflict")
    if len({_split(one.row), _split(two.row)} - {None}) > 1:
        codes.append("near_copy_in_two_splits")
    if not codes:
        return None
    pixels = one.row.pixel_sha256
    return Twins(
        (one.id, two.id),
        (one.row.path, two.row.path),
        (one.row.label, two.row.label),
        pair.cosine,
        pixels is not None and pixels == two.row.pixel_sha256,
        tuple(codes),
    )


def _patients_in_two_splits(scans: Iterable[StoredScan]) -> int:
    """Patients that have scans in more than one split."""
    pairs = {(scan.row.patient, _split(scan.row)) for scan in scans}
    known = Counter(patient for patient, split in pairs if patient and split)
    return sum(count > 1 for count in known.values())


def _stronger(follows: Mapping[str, Agreement]) -> list[str]:
    """The properties that neighbours follow more than the label."""
    label = follows.get("label")
    own = label.lift if label else None
    if own is None:
        return []
    return [
        name
        for name, each in follows.items()
        if name != "label" and each.lift is not None and each.lift > own
    ]
