"""Frozen records that cross the borders between rooms.

Pixel arrays are (S, H, W, C): slices, rows, columns, channels; C is 1 for grey
and 3 for RGB. Spacing and coordinates are in mm; spacing is in array order
(z, y, x), coordinates are LPS.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np  # a help text need not wait for it

Kind = Literal["dicom", "volume", "picture", "array"]


@dataclass(frozen=True, slots=True)
class ScanWarning:
    """Something the reader noticed and handled; `code` is one of docs/codes.md."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Case:
    """A scan that was found but not read yet, with what a manifest says about it.

    `path` is what the user sees: the file, the series folder, or
    ``archive!/inner``. `files` are the files that make the scan, sorted as found
    (series order is settled by the reader), or in slice order for pictures of
    one `scan_id`. `patient_id` comes from a manifest only; the reader adds the
    one of the DICOM tags to `Scan.patient_id`. `time_point` chooses one of a file that
    holds several, counting from 0, and must be there; None takes `default_time_point` where
    the file holds several, or without one the first, and says so. `warnings` are what was
    noticed when the scan was found; the reader hands them on.
    """

    path: str
    files: tuple[str, ...]
    kind: Kind
    scan_id: str
    label: str | None = None
    patient_id: str | None = field(default=None, repr=False)
    split: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict, repr=False)
    member: str | None = None  # "train_images/17" inside an .npz
    series_uid: str | None = None  # which series of `files`, when a folder mixes several
    time_point: int | None = None
    warnings: tuple[ScanWarning, ...] = ()
    default_time_point: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Tones:
    """How bright the maker of a file means its values to be shown: a line through points.

    Parameters
    ----------
    values : (K,) float64, modality values, rising
    levels : (K,) float64, 0 black to 1 white; beyond the ends the first or last level holds
    function : what the line was made from: "LINEAR", "LINEAR_EXACT", "SIGMOID" or "LUT"

    References
    ----------
    DICOM PS3.3 C.11.2, VOI LUT Module
    """

    values: np.ndarray = field(repr=False)
    levels: np.ndarray = field(repr=False)
    function: str = "LINEAR"

    def _content(self) -> tuple[str, bytes, bytes]:
        return self.function, self.values.tobytes(), self.levels.tobytes()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tones) and self._content() == other._content()

    def __hash__(self) -> int:
        return hash(self._content())


@dataclass(frozen=True, slots=True)
class Scan:
    """A scan in memory.

    Parameters
    ----------
    pixels : (S, H, W, C) modality values (HU for CT, after rescale); larger is
        brighter (MONOCHROME1 is already inverted); uint8 for 8-bit pictures
    unit : "HU" for CT in Hounsfield units, "display" for pictures made to be looked at
        (0–255, in parts of a level where the file is deeper), "stored" for everything else
    spacing_mm : (z, y, x), each None where unknown
    affine : (4, 4) array index (z, y, x) → LPS mm, None where unknown
    window : (center, width) in `unit`, the first file's first VOI window as a LINEAR one
        (docs/pixels.md); through it, too, CT slices enter a gallery
    tones : how the slices are meant to be shown, by window or VOI LUT: none, one for all
        slices, or one for each; None where a slice has none. Display uses it, models do not
    slice_files : source file of each slice, length S
    metadata : tags by allow-list only
    study_date : YYYYMMDD, for order in time; never shown or stored as it is
    padded : how many values of `pixels` are padding, which was not imaged; they hold the
        smallest value of their file and count in no statistics
    """

    pixels: np.ndarray = field(repr=False)
    path: str
    files: tuple[str, ...]
    slice_files: tuple[str, ...] = field(repr=False)
    scan_id: str
    format: str
    modality: str | None = None
    unit: Literal["HU", "display", "stored"] = "stored"
    spacing_mm: tuple[float | None, float | None, float | None] = (None, None, None)
    affine: np.ndarray | None = field(default=None, repr=False)
    window: tuple[float, float] | None = None
    photometric: str | None = None
    transfer_syntax: str | None = None
    decoder: str | None = None
    patient_id: str | None = field(default=None, repr=False)
    study_uid: str | None = field(default=None, repr=False)
    study_date: str | None = field(default=None, repr=False)
    series_uid: str | None = field(default=None, repr=False)
    metadata: Mapping[str, str] = field(default_factory=dict, repr=False)
    warnings: tuple[ScanWarning, ...] = ()
    padded: int = 0
    tones: tuple[Tones | None, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Failure:
    """An input that could not be read (`failed`) or is no scan (`skipped`)."""

    path: str
    code: str
    message: str
    status: Literal["failed", "skipped"] = "failed"
    files: tuple[str, ...] = ()
    scan_id: str | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """A classification task of a model: its classes and how its answer is read.

    `positive` is set for binary tasks; `threshold` is a probability of the
    positive class, fixed on the validation part. With `multi_label` the classes are findings:
    a scan has none, one or several, and each has a threshold of its own in `thresholds`.
    """

    name: str
    classes: tuple[str, ...]
    positive: str | None = None
    threshold: float | None = None
    multi_label: bool = False
    thresholds: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class Embedding:
    """What the engine computes for one scan, all float32.

    Parameters
    ----------
    vector : (D,) unit length, the scan
    logits : (W,) of all tasks, then the router's
    slice_vectors : (M, D) unit length; empty for a scan of one slice, whose slice
        vector is `vector`. CT slices appear once for each window they are indexed in
    slice_numbers : (M,) int, position of each row in array order
    slice_views : (M,) what the slice was rendered with: "model", "own", "-600/1500" …
    attention : (S',) weights over the sampled slices, summing to 1
    task_ood_scores : task → how far the scan lies from its training scans, 1 at the limit;
        without the tasks of which the model does not know
    """

    vector: np.ndarray
    logits: np.ndarray
    slice_vectors: np.ndarray
    slice_numbers: np.ndarray
    slice_views: tuple[str, ...]
    attention: np.ndarray
    task_ood_scores: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer of `classify` for one scan.

    `label_set` holds the classes that are compatible with the scan at the model's stated
    coverage; the answer is `uncertain` unless it holds exactly one. `ood_score` is 1 at the
    limit beyond which a scan is `out_of_distribution`. All None where the model was not
    calibrated for it. `task_probabilities` is what the router of a model of several tasks
    says, whether it or the user picked `task`; None for a model of one. Where a scan may have
    several findings `labels` are those that reach their thresholds, and `label` is the
    likeliest of these; it and its `probability` are None where there is none.
    `task_ood_scores` is the `ood_score` towards the scans of each task, where the router picked
    one of several.
    """

    path: str
    scan_id: str
    files: tuple[str, ...]
    task: str
    label: str | None
    probability: float | None
    probabilities: Mapping[str, float]
    positive: str | None
    model: str
    synthetic: bool
    uncertain: bool | None = None
    out_of_distribution: bool | None = None
    ood_score: float | None = None
    warnings: tuple[ScanWarning, ...] = ()
    status: Literal["ok"] = "ok"
    label_set: tuple[str, ...] | None = None
    task_probabilities: Mapping[str, float] | None = None
    labels: tuple[str, ...] | None = None
    task_ood_scores: Mapping[str, float] | None = None

    @property
    def like_no_task(self) -> bool:
        """Whether a model of several tasks knows of none whose scans look like this one."""
        return bool(self.task_ood_scores) and min((self.task_ood_scores or {}).values()) > 1


@dataclass(frozen=True, slots=True)
class FoundBox:
    """A candidate lesion in one slice.

    Corners in pixels of the original slice, x1 and y1 exclusive. `slice` counts from 0 in
    array order. `lesion` is its place in `Detection.lesions`.
    """

    x0: float
    y0: float
    x1: float
    y1: float
    score: float
    slice: int
    label: str
    lesion: int = 0


@dataclass(frozen=True, slots=True)
class Lesion:
    """Boxes of neighbouring slices that overlap, taken for one lesion; `score` is the best's."""

    label: str
    score: float
    first_slice: int
    last_slice: int
    boxes: int


@dataclass(frozen=True, slots=True)
class Detection:
    """The answer of `detect` for one scan, best boxes first; empty where nothing was found."""

    path: str
    scan_id: str
    files: tuple[str, ...]
    task: str
    boxes: tuple[FoundBox, ...]
    lesions: tuple[Lesion, ...]
    model: str
    synthetic: bool
    warnings: tuple[ScanWarning, ...] = ()
    status: Literal["ok"] = "ok"


@dataclass(frozen=True, slots=True)
class Source:
    """How a stored scan is read again, and what tells whether its files have changed.

    Parameters
    ----------
    kind, member, series_uid, time_point : as in `Case`
    stats : size in bytes and time of change in ns of each file, in the order of the scan's
        `files`; the time is None where the file was so new that a later change could have
        the same time, and its content decides
    sha256 : over the content of all files
    """

    kind: Kind
    stats: tuple[tuple[int, int | None], ...]
    sha256: str
    member: str | None = None
    series_uid: str | None = None
    time_point: int | None = None


@dataclass(frozen=True, slots=True)
class GalleryEntry:
    """One scan on its way into a gallery; `patient_id` is hashed there, never stored.

    `thumbnails` maps slice numbers to JPEG bytes. `embedding` as from the engine. `source`
    is None where the files changed while they were read.
    """

    path: str
    scan_id: str
    files: tuple[str, ...]
    slice_files: tuple[str, ...]
    embedding: Embedding
    label: str | None = None
    patient_id: str | None = field(default=None, repr=False)
    modality: str | None = None
    format: str | None = None
    decoder: str | None = None
    pixel_sha256: str | None = None
    thumbnails: Mapping[int, bytes] = field(default_factory=dict, repr=False)
    metadata: Mapping[str, str] = field(default_factory=dict, repr=False)
    source: Source | None = None
    study_uid: str | None = field(default=None, repr=False)
    study_date: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Hit:
    """A stored scan that answers a query; `score` is a mean of cosines, higher is better.

    `patient` and `study` are the gallery's keyed hashes. `slice` counts from 0 in array order
    and is None where the scan has one slice; `file` is that slice's source, `view` what it was
    rendered with when it matched. `percentile` says how many of the gallery's own scans have
    their nearest neighbour no nearer, in per cent. `days` counts from the query's study to the
    hit's, of the same patient; `study_date` is a moved date and never shown.
    """

    rank: int
    id: int
    path: str
    score: float
    label: str | None
    patient: str | None
    modality: str | None
    slice: int | None
    file: str | None
    view: str | None = None
    percentile: float | None = None
    study: str | None = None
    days: int | None = None
    study_date: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The hits of one query, best first, with an unweighted vote of their labels.

    `vote_ci` has a 95 % interval for each share. `contrast` is the nearest scan of each
    class. `no_good_match` is None where the gallery has too few scans to tell.
    """

    query: str
    hits: tuple[Hit, ...]
    vote: Mapping[str, float]
    gallery: Mapping[str, Any]
    no_good_match: bool | None = None
    query_slice: int | None = None
    warnings: tuple[ScanWarning, ...] = ()
    vote_ci: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    contrast: tuple[Hit, ...] = ()


def plain(value: Any) -> Any:
    """`value` as JSON can hold it: tuples as lists, NumPy as Python, NaN and infinity as None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if hasattr(value, "tolist"):  # arrays, and numbers of NumPy
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [plain(item) for item in value]
    if hasattr(value, "__dataclass_fields__"):
        return {name: plain(getattr(value, name)) for name in value.__dataclass_fields__}
    return value
