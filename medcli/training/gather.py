"""What a training run is made from: labelled cases, read, resized once and split by patient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from medcli.config import PreprocessConfig
from medcli.data.arrays import ScanArrays
from medcli.data.findings import indicator
from medcli.data.scan_cache import CachedScan, ScanCache
from medcli.data.sources import class_folders, folder_manifest
from medcli.data.splits import PARTS, Split
from medcli.data.survey import stop_if_many
from medcli.errors import ScanError
from medcli.imaging.batch import read_all
from medcli.imaging.discovery import find_scans
from medcli.imaging.hashing import pixel_sha256
from medcli.imaging.preprocess import LEVELS, Preprocessor, sample_slices
from medcli.models.heads import column_ranges
from medcli.records import Case, Failure, Scan, Task
from medcli.training.defaults import DataFacts

SAMPLE = 32  # scans that are looked at to choose size and channels
SAMPLE_PATIENTS = 60  # of the generated sample data
TRAIN_SLICES = 16  # slices of a scan that training sees


@dataclass(frozen=True, slots=True)
class ReadScan:
    """A labelled scan ready for training.

    `images` is (S, C, H, W) uint8 (0–255 stands for 0–1), sampled from its
    slices; `case.patient_id` holds the patient of the manifest, else of the tags.
    """

    case: Case
    images: np.ndarray
    pixel_sha256: str


def inputs_at_hand(scratch: Path) -> tuple[tuple[str, ...], str, bool]:
    """What to train on when nothing is named: inputs, a sentence about them, synthetic or not.

    `manifest.csv` or class folders of the current folder, else sample data
    generated into `scratch`.
    """
    here = Path.cwd()
    manifest = folder_manifest(here)
    if manifest is not None:
        return (str(manifest),), f"training on {manifest}", False
    if _has_classes(here):
        return (str(here),), f"training on the class folders of {here}", False
    sentence = "no manifest.csv and no class folders here: training on generated sample data"
    return sample_inputs(scratch), sentence, True


def sample_inputs(scratch: Path) -> tuple[str, ...]:
    """Sample data generated into `scratch`, the same every time."""
    from medcli.data.synthetic import write_sample_data

    write_sample_data(scratch, patients=SAMPLE_PATIENTS, tasks=("nodule",))
    return (str(scratch / "nodule.csv"),)


def _has_classes(root: Path) -> bool:
    """Whether folders of two classes hold scans; any folder could be called a class."""
    found: set[str] = set()
    for _, label, folder in class_folders(root):
        if label not in found and any(isinstance(s, Case) for s in find_scans([str(folder)])):
            found.add(label)
        if len(found) == 2:
            return True
    return False


def look_at(cases: Sequence[Case]) -> DataFacts:
    """Facts of a few cases, spread evenly.

    Raises
    ------
    ScanError : none of them can be read
    """
    chosen = [cases[i] for i in sample_slices(len(cases), SAMPLE)]
    results = [scan for _, scan in read_all(chosen)]
    scans = [scan for scan in results if isinstance(scan, Scan)]
    if not scans:
        first = next(scan for scan in results if isinstance(scan, Failure))
        raise ScanError(first.code, f"none of the scans can be read; the first: {first.message}")
    return DataFacts.of(scans)


def read_cases(
    cases: Sequence[Case],
    preprocess: PreprocessConfig,
    slices: int = TRAIN_SLICES,
    *,
    on_read: Callable[[int, int], None],
    on_failure: Callable[[Failure], None],
    cache: Path | None = None,
    warn: Callable[[str], None] = lambda message: None,
) -> list[ReadScan]:
    """Read and resize every case; unreadable ones are reported and left out.

    Of a longer stack `slices` are taken, evenly: fewer than prediction takes where slices are
    seen one by one, as many where a 3-D network learns from how far they lie apart.

    Parameters
    ----------
    cache : a folder of scans that were read before; what is not there goes there
    warn : told where nothing can be kept there

    Raises
    ------
    ScanError : more than 5 % of the scans are unreadable
    """
    kept = _Kept(cache, preprocess, slices, warn) if cache else None
    read = {place: item for place, case in enumerate(cases) if kept and (item := kept.find(case))}
    if read:
        on_read(len(read), len(cases))
    missing = [place for place in range(len(cases)) if place not in read]
    preprocessor = Preprocessor(preprocess)
    failures: list[Failure] = []
    found = zip(missing, read_all([cases[place] for place in missing]), strict=True)
    for done, (place, (_, scan)) in enumerate(found, start=len(read) + 1):
        on_read(done, len(cases))
        if isinstance(scan, Failure):
            failures.append(scan)
            on_failure(scan)
            stop_if_many(failures, len(cases))
            continue
        read[place] = _resized(cases[place], scan, preprocessor, slices)
        if kept:
            kept.keep(cases[place], scan, read[place])
    if kept:
        kept.trim()
    return [read[place] for place in sorted(read)]


def _resized(case: Case, scan: Scan, preprocessor: Preprocessor, slices: int) -> ReadScan:
    chosen = sample_slices(len(scan.pixels), slices)
    images = preprocessor.unit_input(scan, slices=chosen)
    return ReadScan(
        replace(case, patient_id=scan.patient_id),
        np.rint(images * LEVELS).astype(np.uint8),
        pixel_sha256(scan),
    )


class _Kept:
    """The scans of earlier commands, as `ReadScan`; patients are looked up, never kept."""

    def __init__(
        self,
        folder: Path,
        preprocess: PreprocessConfig,
        slices: int,
        warn: Callable[[str], None],
    ) -> None:
        # Mean and deviation are those of one split; they come after what is kept.
        settings = replace(preprocess, mean=(), std=()).to_json() | {"slices": slices}
        self._cache = ScanCache(folder, settings, warn=warn)
        self._keys: dict[tuple[str, str], str] = {}

    def find(self, case: Case) -> ReadScan | None:
        """The scan from an earlier command."""
        key = self._cache.key(case)
        if key is None:
            return None
        self._keys[case.scan_id, case.path] = key
        found = self._cache.get(key)
        if found is None:
            return None
        try:
            patient = case.patient_id or _patient_of_tags(case, found.first_file)
        except (ScanError, IndexError):
            return None
        return ReadScan(replace(case, patient_id=patient), found.images, found.pixel_sha256)

    def keep(self, case: Case, scan: Scan, item: ReadScan) -> None:
        """Keep what was read of a case."""
        key = self._keys.pop((case.scan_id, case.path), None)
        if key is not None and scan.slice_files[0] in case.files:
            first = case.files.index(scan.slice_files[0])
            self._cache.put(key, CachedScan(item.images, item.pixel_sha256, first))

    def trim(self) -> None:
        """Remove the oldest where there are too many."""
        self._cache.trim()


def _patient_of_tags(case: Case, first: int) -> str | None:
    """The patient in the header of the first slice, as the reader takes it."""
    if case.kind != "dicom":
        return None
    from medcli.imaging.dicom_header import read_header

    return read_header(case.files[first]).patient_id


def part_arrays(read: Sequence[ReadScan], split: Split, *tasks: Task) -> dict[str, ScanArrays]:
    """The arrays of each part of the split.

    A label is the column of the class among those of all tasks; which of several tasks a
    case belongs to stands in its column `task`. Of findings the labels are (N, F) of 0 and 1.
    """
    by_id = {(item.case.scan_id, item.case.path): item for item in read}
    arrays = {}
    for part in PARTS:
        cases: tuple[Case, ...] = getattr(split, part)
        items = [by_id[case.scan_id, case.path] for case in cases]
        arrays[part] = _join(items, tasks, read[0].images.shape[1:])
    return arrays


def _join(items: Sequence[ReadScan], tasks: Sequence[Task], shape: tuple[int, ...]) -> ScanArrays:
    images = [np.empty((0, *shape), np.uint8), *(item.images for item in items)]
    lengths = np.array([len(item.images) for item in items], dtype=np.int64)
    if tasks[0].multi_label:
        flags = indicator([str(item.case.label) for item in items], tasks[0].classes)
        return ScanArrays(np.concatenate(images), lengths, flags)
    names = [task.name for task in tasks]
    starts = [columns.start for columns in column_ranges(tasks)]
    own = [names.index(item.case.columns["task"]) if len(tasks) > 1 else 0 for item in items]
    labels = [
        starts[number] + tasks[number].classes.index(str(item.case.label))
        for number, item in zip(own, items, strict=True)
    ]
    return ScanArrays(
        np.concatenate(images),
        lengths,
        np.array(labels, dtype=np.int64),
    )
