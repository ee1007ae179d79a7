"""A gallery is checked against all that it was made from, and put right where that is proven."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medcli.errors import DamagedError, MedcliError, MismatchError, ScanError, UsageError
from medcli.imaging.reader import read_scan
from medcli.records import GalleryEntry, Source
from medcli.retrieval.checking import (
    SAME_DIRECTION,
    Problem,
    check_rows,
    compare_canaries,
    stored_canaries,
)
from medcli.retrieval.gallery import Gallery
from medcli.retrieval.rows import ScanRow
from medcli.retrieval.sources import StoredSource, stored_sources
from medcli.retrieval.upkeep import (
    check_caches,
    damaged_scan,
    forget_source,
    is_sound,
    recount,
    reindex,
    restore,
    restore_slices,
)
from medcli.workflows.canaries import canary_vectors
from medcli.workflows.indexing import gallery_entry
from medcli.workflows.searching import own_model
from medcli.workflows.sources import SourceWatch, case_of

if TYPE_CHECKING:
    from medcli.inference.predictor import Predictor

SAMPLE = 8  # scans whose embedding is made anew

OnStep = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What a check found.

    Parameters
    ----------
    rows : scans in the gallery; None where they cannot be counted
    recomputed : scans whose embedding was made anew from their files and compared
    unavailable : scans of the sample whose files are gone or have changed since
    canaries : pictures that never change whose embedding was compared
    hint : the ways out where `index repair` alone is none; else empty
    """

    rows: int | None
    problems: tuple[Problem, ...]
    recomputed: int = 0
    unavailable: int = 0
    canaries: int = 0
    hint: str = ""

    @property
    def status(self) -> str:
        """Either "ok" or "damaged"."""
        return "damaged" if self.problems else "ok"


@dataclass(frozen=True, slots=True)
class RepairReport:
    """What was put right, in words, and what is still wrong."""

    repaired: tuple[str, ...]
    checked: VerifyReport


def verify_gallery(
    path: Path, *, sample: int = SAMPLE, seed: int = 0, on_scan: OnStep = lambda done, total: None
) -> VerifyReport:
    """Compare all that a gallery holds with its checksums, and a sample with its sources.

    Checked are the catalogue's file, every row, slice and source, the counters, the
    patient key, the caches, the model package; then the model's answers to the canaries
    and to `sample` scans, drawn by `seed`, whose files have not changed.

    Raises
    ------
    UsageError : there is no gallery, or a newer medcli wrote it
    StorageError : it cannot be read
    """
    try:
        gallery = Gallery.open(path)
    except DamagedError as error:
        problem = Problem("catalogue_damaged", error.message)
        return VerifyReport(None, (problem,), hint=error.hint)
    with gallery:
        problems = [*check_rows(gallery), *check_caches(gallery), *_check_key(gallery)]
        rows: int | None = None
        with contextlib.suppress(MedcliError):  # it is among the problems already
            rows = gallery.info()["scans"]
        try:
            predictor = _predictor(gallery)
        except DamagedError as error:
            problems.append(Problem("model_damaged", error.message))
            return VerifyReport(rows, tuple(problems), hint=error.hint)
        canaries = 0
        with _collected(problems, "canary_damaged"):
            stored = stored_canaries(gallery)
            canaries = len(stored)
            problems += compare_canaries(stored, canary_vectors(predictor)) if stored else ()
        recomputed = unavailable = 0
        damaged = {each.scan for each in problems}
        with _collected(problems, "catalogue_damaged"):
            for each in _drawn(gallery, damaged, sample, seed):
                verdict = _compare(gallery, predictor, each)
                recomputed += verdict is not None
                unavailable += verdict is None
                problems += [verdict] if isinstance(verdict, Problem) else []
                on_scan(recomputed + unavailable, sample)
    return VerifyReport(rows, tuple(problems), recomputed, unavailable, canaries)


def repair_gallery(
    path: Path,
    *,
    model: Path | None = None,
    lock_timeout: float = 60.0,
    on_scan: OnStep = lambda done, total: None,
) -> RepairReport:
    """Rebuild what is derived, and damaged rows from their sources where that is proven.

    Nothing is deleted: what cannot be put right stays, and is named in `checked`.

    Parameters
    ----------
    model : a package to take the place of the gallery's damaged copy; without it a bundled
        model or a run does that is the same file by file

    Raises
    ------
    DamagedError : the catalogue cannot be opened
    MismatchError : `model` is another one than the gallery's
    UsageError, LockedError, StorageError : as `Gallery.open`
    """
    gallery = Gallery.open(path, write=True, lock_timeout=lock_timeout)
    repaired: list[str] = []
    with gallery:
        repaired += _restore_model(gallery, model)
        problems = [*check_rows(gallery), *check_caches(gallery)]
        codes = {each.code for each in problems}
        if "catalogue_damaged" in codes:
            with contextlib.suppress(DamagedError):  # the check below says what is left
                reindex(gallery)
        if "counters_wrong" in codes:
            recount(gallery)
            repaired.append("the counters of the catalogue")
        rows = [each for each in problems if each.scan is not None]
        predictor = _predictor_or_none(gallery) if rows else None
        for done, each in enumerate(rows, start=1):
            repaired += _repaired(gallery, predictor, each)
            on_scan(done, len(rows))
        with contextlib.suppress(DamagedError):  # rows that are still damaged are named below
            if codes - {"source_damaged", "slice_damaged"}:
                gallery.rebuild()
                repaired += ["the search index"] if "index_damaged" in codes else []
    checked = verify_gallery(path)
    if "catalogue_damaged" in codes - {each.code for each in checked.problems}:
        repaired.append("the lookup tables of the catalogue")
    return RepairReport(tuple(repaired), checked)


def _check_key(gallery: Gallery) -> Iterator[Problem]:
    try:
        gallery.patient_hash("any")
    except DamagedError as error:
        yield Problem("key_damaged", error.message)


@contextlib.contextmanager
def _collected(problems: list[Problem], code: str) -> Iterator[None]:
    """An error of the gallery inside the block becomes one of `problems`."""
    try:
        yield
    except DamagedError as error:
        problems.append(Problem(code, error.message))


def _predictor(gallery: Gallery) -> Predictor:
    """The gallery's own model, with the graph loaded: it may be damaged, too.

    Raises
    ------
    DamagedError : it is
    """
    from medcli.inference.predictor import Predictor

    return Predictor(own_model(gallery))


def _predictor_or_none(gallery: Gallery) -> Predictor | None:
    try:
        return _predictor(gallery)
    except DamagedError:  # the check that follows names it
        return None


def _drawn(
    gallery: Gallery, damaged: set[int | None], sample: int, seed: int
) -> list[StoredSource]:
    """`sample` sound scans, by chance."""
    from medcli.retrieval.checking import scan_ids

    with gallery.snapshot():
        sound = [scan for scan in scan_ids(gallery.catalogue) if scan not in damaged]
        count = min(sample, len(sound))
        order = np.random.default_rng(seed).permutation(len(sound))[:count]
        return list(stored_sources(gallery.catalogue, [sound[index] for index in order]))


def _compare(gallery: Gallery, predictor: Predictor, each: StoredSource) -> Problem | bool | None:
    """A problem, or True where the vectors are those of the files; None: the files are others."""
    entry = _again(predictor, each)
    if entry is None or each.row.pixel_sha256 is None:
        return None
    name = f"scan {each.id}"
    if entry.pixel_sha256 != each.row.pixel_sha256:
        return Problem("pixels_changed", f"{name}: its files are read to other pixels", each.id)
    (stored,) = gallery.lookup(id=each.id)
    whole = stored.vectors[stored.slice_numbers < 0][0].astype(np.float32)
    cosine = float(whole @ entry.embedding.vector)
    if not cosine >= SAME_DIRECTION:
        return Problem(
            "vector_changed",
            f"{name}: made anew, its vector differs (cosine {cosine:.4f})",
            each.id,
        )
    return True


def _again(predictor: Predictor, stored: StoredSource) -> GalleryEntry | None:
    """A stored scan read and embedded anew; None where its files are not what they were."""
    case, watch = case_of(stored), SourceWatch()
    try:
        if case is None or watch.state(stored) not in ("same", "same content"):
            return None
        scan = read_scan(case)
        return gallery_entry(case, scan, predictor.embed(scan), stored.source)
    except ScanError:
        return None


def _repaired(gallery: Gallery, predictor: Predictor | None, problem: Problem) -> Sequence[str]:
    """What was done about a problem of one scan, if anything."""
    assert problem.scan is not None
    scan = problem.scan
    sound = is_sound(gallery, scan)
    if problem.code == "source_damaged" and sound:
        forget_source(gallery, scan)
        return [f"scan {scan}: what is known of its files, which the next update notes anew"]
    damaged = damaged_scan(gallery, scan)
    row = damaged.row if damaged else None
    if predictor is None or damaged is None or row is None:
        return []
    entry = _reread(gallery, predictor, scan, row, damaged.source)
    if entry is None:
        return []
    if sound:
        restore_slices(gallery, scan, entry)
        return [f"scan {scan}: its slices, from its files"]
    done = restore(gallery, damaged, entry)
    return [f"scan {scan}: its row, from its files and its checksum"] if done else []


def _reread(
    gallery: Gallery, predictor: Predictor, scan: int, row: ScanRow, source: Source | None
) -> GalleryEntry | None:
    with gallery.snapshot():
        place = row.under(gallery.catalogue.root)
    return _again(predictor, StoredSource(scan, place, source))


def _restore_model(gallery: Gallery, model: Path | None) -> Sequence[str]:
    """Put a sound package in the place of the gallery's own, if that is damaged."""
    from medcli.files import new_folder
    from medcli.models.locate import same_package
    from medcli.models.package import load_package
    from medcli.retrieval.folder import copy_files

    with contextlib.suppress(DamagedError, UsageError):
        own_model(gallery)
        return []
    package = (
        same_package(gallery.model_dir, gallery.fingerprint)
        if model is None
        else load_package(model)
    )
    if package is None:  # the check that follows names it
        return []
    if package.fingerprint != gallery.fingerprint:
        raise MismatchError(
            f"{gallery.path} was built with model {gallery.fingerprint}, not with "
            f"{package.fingerprint}",
            "name the run that the gallery was built with",
        )
    with (
        gallery.locked(),
        new_folder(gallery.model_dir, overwrite=True, replaceable=lambda folder: True) as draft,
    ):
        draft.rmdir()
        copy_files(package.path, draft)
    return ["the copy of the model"]
