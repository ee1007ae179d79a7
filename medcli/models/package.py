"""A model as a folder: read, checked and written without torch.

::

    model.json          settings, tasks, provenance, metrics; format version
    weights.safetensors what training and explanation load
    graph.onnx          what prediction runs
    MODEL_CARD.md       the same for people
    manifest.json       size and SHA-256 of each file
    reference.safetensors   what the training scans look like; absent in the first format
    history.csv, splits.csv   of a run: its epochs, and which scan was in which part
    held_out.csv        of a run: the answers behind its numbers (models/held_out.py)
    cv.json, folds.csv  of a run with --folds: the numbers of each fold
    regions.onnx        of a detector: its second stage; graph.onnx is the first

The fingerprint is a hash over weights, graph and preprocessing: two packages with
one fingerprint give the same embeddings.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from medcli.config import Calibration, DetectionConfig, ModelConfig, PreprocessConfig
from medcli.errors import DamagedError, StorageError, UsageError
from medcli.evaluation.out_of_distribution import Reference
from medcli.models.heads import Head, Router, make_heads, make_router
from medcli.records import Task

# 1 had no calibration: its probabilities are those of temperature 1. Up to 2 a model had
# one task, in the fields `task` and `calibration`; up to 3 classes had no offsets, weights were
# float32 and no model answered about a region.
FORMAT_VERSION = 4
# A detector's package, which older readers refuse by its number; no classifier has it.
DETECTION_FORMAT = 5
MODEL_JSON, WEIGHTS, GRAPH, CARD = (
    "model.json",
    "weights.safetensors",
    "graph.onnx",
    "MODEL_CARD.md",
)
MANIFEST, HISTORY, SPLITS = "manifest.json", "history.csv", "splits.csv"
HELD_OUT = "held_out.csv"
REFERENCE = "reference.safetensors"
REGIONS_GRAPH = "regions.onnx"
REQUIRED = (MODEL_JSON, WEIGHTS, GRAPH, CARD)
_WAY_OUT = "Restore the folder from a backup or train again"

ModelKind = Literal["classification", "detection"]


@dataclass(frozen=True, slots=True)
class ModelPackage:
    """What `model.json` says, after the files were checked.

    Attributes
    ----------
    heads : a task each, with the columns of the logits that answer it
    router : says which task a scan belongs to; None for a model of one task
    provenance : when, with which data, seed, settings and versions it was trained
    metrics : what was measured on its own held-out part
    patient_salt : hex; patients in `splits.csv` are hashed with it
    detection : how a detector proposes and judges; None for what classifies scans
    """

    path: Path
    fingerprint: str
    heads: tuple[Head, ...]
    router: Router | None
    preprocess: PreprocessConfig
    model: ModelConfig
    synthetic: bool
    created: str
    patient_salt: str = field(repr=False)
    provenance: Mapping[str, Any] = field(repr=False)
    metrics: Mapping[str, Any] = field(repr=False)
    detection: DetectionConfig | None = None

    @property
    def kind(self) -> ModelKind:
        """What the model does: give scans a class, or find boxes in them."""
        return "classification" if self.detection is None else "detection"

    @property
    def tasks(self) -> tuple[Task, ...]:
        """What the model knows, in the order of its columns."""
        return tuple(head.task for head in self.heads)

    @property
    def task_names(self) -> str:
        """The names of its tasks, for people."""
        return ", ".join(task.name for task in self.tasks)

    @property
    def task(self) -> Task:
        """The task of a model that knows one.

        Raises
        ------
        UsageError : it knows several
        """
        return self._only_head().task

    @property
    def calibration(self) -> Calibration:
        """How the logits of a model of one task are read; else an error as of `task`."""
        return self._only_head().calibration

    def only(self, task: str) -> ModelPackage:
        """The same model as one of its tasks sees it: its classes, its numbers.

        Raises
        ------
        UsageError : the model does not know the task
        """
        head = next((head for head in self.heads if head.task.name == task), None)
        if head is None:
            known = ", ".join(repr(each.name) for each in self.tasks)
            raise UsageError(
                f"{self.path} is a model for the task{'s' * (len(self.heads) > 1)} {known}, "
                f"not for {task!r}",
                "Leave --task out, or name a model for it",
            )
        own = self.metrics.get("tasks", {}).get(task, self.metrics)
        return dataclasses.replace(self, heads=(head,), metrics=own)

    def _only_head(self) -> Head:
        if len(self.heads) > 1:
            raise UsageError(
                f"{self.path} knows several tasks: {self.task_names}",
                "Pick one of them with --task",
            )
        return self.heads[0]


def is_package(folder: Path) -> bool:
    """Whether `folder` looks like a model package."""
    return (folder / MODEL_JSON).is_file()


def is_replaceable(folder: Path) -> bool:
    """Whether `folder` holds a model package and nothing else, so that it may be overwritten."""
    if not is_package(folder):
        return False
    listed = _read_json(folder / MANIFEST).get("files")
    known = {MANIFEST, *(listed if isinstance(listed, dict) else ())}
    return {path.name for path in folder.iterdir()} <= known


def load_package(folder: Path, kind: ModelKind | None = "classification") -> ModelPackage:
    """Read `model.json` and compare every file of the package with its checksum.

    Parameters
    ----------
    kind : what the model has to do; None takes any

    Raises
    ------
    UsageError : `folder` holds no model package, one of a newer format or of another kind
    DamagedError : a file is missing, or differs from what the manifest says
    StorageError : the operating system refuses to read a file
    """
    if not is_package(folder):
        raise UsageError(
            f"{folder} is not a model package: it has no {MODEL_JSON}",
            "Name a folder written by `medcli train`",
        )
    digests = _check_files(folder)
    values = _read_json(folder / MODEL_JSON)
    package = _parse(folder, values)
    expected = fingerprint(digests[WEIGHTS], digests[GRAPH], package.preprocess)
    if package.fingerprint != expected:
        raise DamagedError(
            f"{folder / MODEL_JSON}: the fingerprint does not fit weights, graph and preprocessing",
            _WAY_OUT,
        )
    check_kind(package, kind)
    return package


def check_kind(package: ModelPackage, kind: ModelKind | None) -> None:
    """Raise where a model does something else than what it is asked for.

    Raises
    ------
    UsageError : it finds boxes and classes are asked for, or the other way round
    """
    if kind is None or package.kind == kind:
        return
    if package.kind == "detection":
        raise UsageError(
            f"{package.path} finds boxes; it gives scans no class",
            "It is for `medcli detect`, `medcli evaluate` and `medcli models`",
        )
    raise UsageError(
        f"{package.path} classifies scans; it finds no boxes",
        "Train a detector on a manifest with boxes: `medcli train --task NAME-detection`",
    )


def peek(folder: Path) -> ModelPackage:
    """Read `model.json` alone, for lists; the other files are not looked at."""
    return _parse(folder, _read_json(folder / MODEL_JSON))


def fingerprint(weights_sha256: str, graph_sha256: str, preprocess: PreprocessConfig) -> str:
    """16 hex digits over weights, graph and preprocessing."""
    settings = json.dumps(preprocess.to_json(), sort_keys=True)
    text = f"{weights_sha256}\n{graph_sha256}\n{settings}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def finish_package(
    folder: Path,
    *,
    heads: Sequence[Head],
    router: Router | None = None,
    preprocess: PreprocessConfig,
    model: ModelConfig,
    synthetic: bool,
    created: str,
    patient_salt: str,
    provenance: Mapping[str, Any],
    metrics: Mapping[str, Any],
    detection: DetectionConfig | None = None,
) -> ModelPackage:
    """Write `model.json`; weights and graph lie in `folder` already. `seal` comes last."""
    of_detector = {"kind": "detection", "detection": detection.to_json()} if detection else {}
    values = {
        "format_version": DETECTION_FORMAT if detection else FORMAT_VERSION,
        **of_detector,
        "fingerprint": fingerprint(
            sha256_file(folder / WEIGHTS), sha256_file(folder / GRAPH), preprocess
        ),
        "tasks": [
            {**dataclasses.asdict(head.task), "calibration": head.calibration.to_json()}
            for head in heads
        ],
        "router": {"temperature": router.temperature} if router else None,
        "preprocess": preprocess.to_json(),
        "model": model.to_json(),
        "synthetic": synthetic,
        "created": created,
        "patient_salt": patient_salt,
        "provenance": dict(provenance),
        "metrics": dict(metrics),
    }
    (folder / MODEL_JSON).write_text(json.dumps(values, indent=2, allow_nan=False) + "\n")
    return _parse(folder, values)


def seal(folder: Path) -> None:
    """Write the manifest over every file that lies in `folder`."""
    files = {path.name: _entry(path) for path in sorted(folder.iterdir()) if path.name != MANIFEST}
    version = _read_json(folder / MODEL_JSON)["format_version"]
    manifest = {"format_version": version, "files": files}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")


def save_references(folder: Path, references: Mapping[str, Reference]) -> None:
    """Write what the training scans of each task look like; before `seal`."""
    from safetensors.numpy import save

    arrays = {}
    for task, reference in references.items():
        for view, mean in reference.means.items():
            arrays[f"{task}/{view}.mean"] = mean
            arrays[f"{task}/{view}.whitening"] = reference.whitenings[view]
    whole = {key: np.ascontiguousarray(array) for key, array in arrays.items()}
    (folder / REFERENCE).write_bytes(save(whole))  # its save_file lets only the owner read


def load_references(folder: Path) -> dict[str, Reference]:
    """What the training scans look like, by task; empty where the package does not say.

    Up to format 2 the file does not name the one task; it is "" here.

    Raises
    ------
    DamagedError : the file is none of ours
    """
    if REFERENCE not in _read_json(folder / MANIFEST).get("files", {}):
        return {}
    from safetensors.numpy import load_file

    means: dict[str, dict[str, np.ndarray]] = {}
    whitenings: dict[str, dict[str, np.ndarray]] = {}
    try:
        arrays = load_file(folder / REFERENCE)
        for key in (key for key in arrays if key.endswith(".mean")):
            task, _, view = key.removesuffix(".mean").rpartition("/")
            whitening = arrays[f"{key.removesuffix('.mean')}.whitening"]
            means.setdefault(task, {})[view] = arrays[key]
            whitenings.setdefault(task, {})[view] = whitening
    except Exception as error:  # safetensors' own errors share no base class with the rest
        raise DamagedError(f"{folder / REFERENCE}: cannot be read", _WAY_OUT) from error
    return {task: Reference(means[task], whitenings[task]) for task in means}


def patient_of_task(task: str, patient_id: str) -> str:
    """What stands for a patient of a run where each task numbers its own."""
    return f"{task}:{patient_id}"


def salted_patient(patient_id: str | None, salt: str) -> str:
    """16 hex digits that stand for a patient in one run; empty where the patient is unknown."""
    if not patient_id:
        return ""
    return hashlib.sha256(f"{salt}:{patient_id}".encode()).hexdigest()[:16]


def sha256_file(path: Path) -> str:
    """The SHA-256 of a file, read in pieces."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}") from error


def _entry(path: Path) -> dict[str, int | str]:
    """What the manifest says of a file."""
    return {"size": path.stat().st_size, "sha256": sha256_file(path)}


def _check_files(folder: Path) -> dict[str, str]:
    """SHA-256 of each file in the manifest, equal to what the manifest says."""
    manifest = _read_json(folder / MANIFEST)
    _check_format(folder, manifest)
    files = manifest.get("files")
    if not isinstance(files, dict) or not set(REQUIRED) <= set(files):
        raise DamagedError(f"{folder / MANIFEST}: does not list the files of a package", _WAY_OUT)
    digests = {}
    for name, expected in files.items():
        path = folder / name
        if not path.is_file():
            raise DamagedError(f"{folder}: {name} is missing from the model package", _WAY_OUT)
        found = _entry(path)
        if found != expected:
            raise DamagedError(f"{path}: differs from its checksum in {MANIFEST}", _WAY_OUT)
        digests[name] = str(found["sha256"])
    return digests


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DamagedError(
            f"{path.parent}: {path.name} is missing from the model package", _WAY_OUT
        ) from error
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise DamagedError(f"{path}: cannot be read as JSON", _WAY_OUT) from error
    if not isinstance(values, dict):
        raise DamagedError(f"{path}: is no JSON object", _WAY_OUT)
    return values


def _check_format(folder: Path, values: Mapping[str, Any]) -> None:
    """Raise where a newer medcli wrote the package: its files may be others than we know."""
    version = values.get("format_version")
    newer = isinstance(version, int) and version > FORMAT_VERSION
    if newer and version != DETECTION_FORMAT:
        raise UsageError(
            f"{folder} has format {version}; this medcli reads up to {FORMAT_VERSION}",
            "Update medcli, or train again with this one",
        )


def _parse(folder: Path, values: Mapping[str, Any]) -> ModelPackage:
    _check_format(folder, values)
    try:
        heads = _heads(values)
        router = make_router([head.task for head in heads])
        if router is not None:
            router = dataclasses.replace(router, temperature=values["router"]["temperature"])
        return ModelPackage(
            path=folder,
            fingerprint=str(values["fingerprint"]),
            heads=heads,
            router=router,
            preprocess=PreprocessConfig.from_json(values["preprocess"]),
            model=ModelConfig.from_json(values["model"]),
            synthetic=bool(values["synthetic"]),
            created=str(values["created"]),
            patient_salt=str(values["patient_salt"]),
            provenance=dict(values["provenance"]),
            metrics=dict(values["metrics"]),
            detection=_detection(values),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedError(
            f"{folder / MODEL_JSON}: a field is missing or has the wrong kind ({error})",
            _WAY_OUT,
        ) from error


def _detection(values: Mapping[str, Any]) -> DetectionConfig | None:
    """How a detector works; None for what classifies."""
    if values["format_version"] != DETECTION_FORMAT:
        return None
    if values["kind"] != "detection":
        raise ValueError(f"a model of the kind {values['kind']!r}")
    return DetectionConfig.from_json(values["detection"])


def _heads(values: Mapping[str, Any]) -> tuple[Head, ...]:
    """The heads that `model.json` describes, in any format."""
    if values["format_version"] < 3:
        stored = [{**values["task"], "calibration": values.get("calibration", {})}]
    else:
        stored = values["tasks"]
    tasks = [_task(each) for each in stored]
    if len({task.name for task in tasks}) != len(tasks) or not tasks:
        raise ValueError("tasks need names of their own")
    calibrations = [Calibration.from_json(each["calibration"]) for each in stored]
    for task, calibration in zip(tasks, calibrations, strict=True):
        each = {
            "label_set_levels": calibration.label_set_levels,
            "offsets": calibration.offsets,
            "platt": calibration.platt,
            "thresholds": task.thresholds,
        }
        for name, values_ in each.items():
            if values_ is not None and len(values_) != len(task.classes):
                raise ValueError(f"{len(values_)} {name} for {len(task.classes)} classes")
    return make_heads(tasks, calibrations)


def _task(values: Mapping[str, Any]) -> Task:
    """A task as `model.json` holds it."""
    name, classes = values["name"], tuple(values["classes"])
    thresholds = values.get("thresholds")
    return Task(
        name,
        classes,
        values.get("positive"),
        values.get("threshold"),
        multi_label=bool(values.get("multi_label", False)),
        thresholds=None if thresholds is None else tuple(map(float, thresholds)),
    )
