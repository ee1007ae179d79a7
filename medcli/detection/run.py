"""Manifest with boxes → the run folder of a detector."""

from __future__ import annotations

import secrets
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save

from medcli.config import DetectionConfig, ModelConfig, Optimizer, PreprocessConfig, TrainConfig
from medcli.data.audit import find_copies
from medcli.data.boxes import BoxSet, load_boxes
from medcli.data.gate import pass_gate
from medcli.data.sources import folder_manifest
from medcli.data.splits import PARTS, Split, SplitRow, split_by_patient
from medcli.detection.arrays import BoxArrays
from medcli.detection.card import detector_card
from medcli.detection.export import check_detector, export_detector
from medcli.detection.fit import DetectionEpoch, DetectionFit, fit, predict
from medcli.detection.gather import BoxScan, joined, read_boxes
from medcli.detection.measuring import box_metrics, measure_scans
from medcli.detection.network import DetectionModel
from medcli.detection.settings import choose_detection, choose_input, choose_training
from medcli.errors import ManifestError, UsageError
from medcli.evaluation.detection import ImageBoxes, best_threshold
from medcli.files import check_target, new_folder
from medcli.inference.detector import Detector
from medcli.models.heads import make_heads
from medcli.models.package import (
    CARD,
    HISTORY,
    SPLITS,
    WEIGHTS,
    ModelPackage,
    finish_package,
    is_replaceable,
    load_package,
    seal,
)
from medcli.models.registry import BACKBONES
from medcli.models.weights import find_start, start_backbone
from medcli.records import Case, Task
from medcli.training.defaults import choose_device
from medcli.training.gather import look_at
from medcli.training.history import history_csv
from medcli.training.request import TrainEvents, TrainRequest
from medcli.training.settings import PRETRAINED_SHARE, RATES, check_objective
from medcli.training.start import warn_if_taught
from medcli.training.writing import run_folder, versions, write_splits


@dataclass(frozen=True, slots=True, eq=False)
class _Data:
    """What is trained on: the scans of each part, and how they are seen."""

    found: BoxSet
    parts: dict[str, list[BoxScan]]
    split: Split
    preprocess: PreprocessConfig
    detection: DetectionConfig
    train: TrainConfig
    device: torch.device

    def arrays(self, part: str) -> BoxArrays:
        return joined(self.parts[part])

    @property
    def pixels(self) -> dict[tuple[str, str], str]:
        scans = [scan for part in self.parts.values() for scan in part]
        return {(scan.case.scan_id, scan.case.path): scan.pixel_sha256 for scan in scans}


def train_detector(request: TrainRequest, events: TrainEvents | None = None) -> ModelPackage:
    """Train a detector on a manifest with boxes and write it as a run folder.

    Of the request count inputs, task, output, size, epochs, minutes, seed, device, weights,
    the architecture, the optimizer and its rates, and `allow_overlap`. Without inputs
    `manifest.csv` of the current folder is taken.

    Raises
    ------
    UsageError, ManifestError, LeakageError : options or data that cannot be used
    ScanError : nothing readable, or more than 5 % of the scans unreadable
    OutputExistsError, StorageError : the run folder cannot be written
    """
    events = events or TrainEvents()
    if request.model.arch not in BACKBONES:
        raise UsageError(
            f"{request.model.arch} sees volumes or one finding; boxes are found slice by slice",
            "Give another --arch",
        )
    task = request.task or "lesion-detection"
    if "," in task:
        raise UsageError(f"{task!r} names several tasks", "A detector is trained for one")
    target = request.output or run_folder(task)
    check_target(target, overwrite=request.overwrite, replaceable=is_replaceable)
    start = find_start(request.weights, request.model.arch) if request.weights else None
    data = _prepare(request, task, events)
    torch.manual_seed(request.seed)
    settings = _model_config(request)
    model = DetectionModel(
        settings,
        data.detection,
        data.preprocess.channels,
        data.preprocess.size,
        len(data.found.classes),
    )
    origin = None
    if start is not None:
        start_backbone(model.backbone, start)
        origin = f"backbone of {start.origin}"
        events.note(f"starting from {origin}")
        held_out = [s for part in ("val", "test") for s in data.parts[part]]
        taught = [(s.case.patient_id, s.pixel_sha256, task) for s in held_out]
        warn_if_taught(start, taught, events.warn)
    events.ready(_split_rows(data), _plan(settings, data), data.train.epochs)
    fitted = fit(
        model,
        data.arrays("train"),
        data.arrays("val"),
        data.preprocess,
        data.detection,
        data.train,
        device=data.device,
        num_classes=len(data.found.classes),
        on_batch=events.batch,
        on_epoch=events.epoch,
    )
    _write(request, task, target, settings, data, fitted, origin, events)
    return load_package(target, "detection")


def _model_config(request: TrainRequest) -> ModelConfig:
    return ModelConfig(arch=request.model.arch, aggregator="none", layout_grid=0)


def _inputs(request: TrainRequest) -> tuple[str, ...]:
    """What was named, else the manifest here."""
    if request.inputs:
        return request.inputs
    here = folder_manifest(Path.cwd())
    if here is None:
        raise UsageError(
            "no manifest.csv here, and no data are generated for a detector",
            "Name a manifest with the columns path, x0, y0, x1, y1",
        )
    return (str(here),)


def _prepare(request: TrainRequest, task: str, events: TrainEvents) -> _Data:
    """Find, read, split and resize the data; settle every setting."""
    began = time.monotonic()
    device = choose_device(request.device)
    inputs = _inputs(request)
    found = load_boxes(inputs)
    for message in found.warnings:
        events.warn(message)
    facts = look_at(found.cases)
    every = [box for own in found.boxes for box in own]
    preprocess = choose_input(facts, every, request.size)
    read = read_boxes(
        found,
        preprocess,
        on_read=events.reading,
        on_failure=lambda failure: events.warn(f"left out: {failure.message}"),
    )
    split = _split(read, request, inputs, events)
    parts = _parts(read, split)
    train = joined(parts["train"])
    if not len(train.sides()):
        raise ManifestError(
            "no scan of the training part has a box", "Give more patients, or another --seed"
        )
    mean, std = train.statistics()
    config = choose_training(
        facts,
        task,
        len(train.images),
        _asked(request),
        epochs=request.epochs,
        minutes=request.minutes,
        spent=(time.monotonic() - began) / 60,
        on_cpu=device.type == "cpu",
    )
    return _Data(
        found,
        parts,
        split,
        replace(preprocess, mean=mean, std=std),
        choose_detection(train),
        config,
        device,
    )


def _asked(request: TrainRequest) -> TrainConfig:
    """What the user settled about the training."""
    check_objective(request.objective)
    asked = request.objective
    rate, decay = RATES[asked.optimizer]
    share = asked.backbone_rate
    if share is None:
        share = PRETRAINED_SHARE if request.weights else 1.0
    return TrainConfig(
        seed=request.seed,
        optimizer=cast(Optimizer, asked.optimizer),
        learning_rate=asked.learning_rate or rate,
        weight_decay=decay if asked.weight_decay is None else asked.weight_decay,
        backbone_rate=share,
    )


def _split(
    read: Sequence[BoxScan], request: TrainRequest, inputs: Sequence[str], events: TrainEvents
) -> Split:
    """Parts by patient, behind the gate against leakage.

    Raises
    ------
    LeakageError : given parts share a patient or a picture
    """
    copies = find_copies([scan.pixel_sha256 for scan in read], [scan.look for scan in read])
    gate = pass_gate(
        [replace(scan.case, label="scan") for scan in read],  # one class: boxes are no classes
        copies,
        clean=f"medcli data split {shlex.join(inputs)} -o clean.csv",
        allow_overlap=request.allow_overlap,
    )
    split = split_by_patient(
        gate.cases, seed=request.seed, links=gate.links, allow_overlap=request.allow_overlap
    )
    for message in (*gate.warnings, *split.warnings):
        events.warn(message)
    return split


def _parts(read: Sequence[BoxScan], split: Split) -> dict[str, list[BoxScan]]:
    def key(case: Case) -> tuple[str, str]:
        return case.scan_id, case.path

    by_key = {key(scan.case): scan for scan in read}
    return {part: [by_key[key(case)] for case in getattr(split, part)] for part in PARTS}


def _split_rows(data: _Data) -> list[SplitRow]:
    """The table of the parts: patients, scans, and boxes of each class."""
    rows = []
    for part, scans in data.parts.items():
        labels = [box.label for scan in scans for box in scan.truths]
        per_class = {name: labels.count(name) for name in data.found.classes}
        rows.append(SplitRow(part, _patients(scans), len(scans), per_class))
    return rows


def _patients(scans: Sequence[BoxScan]) -> int:
    return len({scan.case.patient_id or f"\0{n}" for n, scan in enumerate(scans)})


def _plan(settings: ModelConfig, data: _Data) -> str:
    """What is about to be trained, for people."""
    limit = f" or {data.train.minutes:.3g} minutes" if data.train.minutes else ""
    sizes = ", ".join(f"{size:g}" for size in data.detection.anchor_sizes)
    return (
        f"{settings.arch} with region proposals on {data.device.type}, {data.preprocess.size} px, "
        f"{data.train.epochs} epochs{limit}, augmentation for {data.train.augmentation}\n"
        f"anchors of {sizes} px every {data.detection.stride} px; {data.train.optimizer} at "
        f"{data.train.learning_rate:g}"
    )


def _write(
    request: TrainRequest,
    task: str,
    target: Path,
    settings: ModelConfig,
    data: _Data,
    fitted: DetectionFit,
    origin: str | None,
    events: TrainEvents,
) -> None:
    """Export, measure with what was exported, write; the folder appears whole or not at all."""
    part = "test" if data.parts["test"] else "val"
    threshold = _threshold(data, fitted)
    with new_folder(target, overwrite=request.overwrite, replaceable=is_replaceable) as folder:
        events.stage("exporting and checking the ONNX graphs")
        model = fitted.model.to("cpu")
        # safetensors' own writer makes a file that nobody else can read
        state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
        (folder / WEIGHTS).write_bytes(save(state))
        channels = data.preprocess.channels
        export_detector(model, folder, channels)
        difference = check_detector(model, folder, channels, data.detection)
        salt = secrets.token_hex(16)
        (folder / HISTORY).write_bytes(history_csv(fitted.history, DetectionEpoch))
        write_splits(folder / SPLITS, data.split, data.pixels, salt)
        known = Task(task, data.found.classes, threshold=threshold)

        def finish(metrics: dict[str, Any]) -> ModelPackage:
            return finish_package(
                folder,
                heads=make_heads([known]),
                preprocess=data.preprocess,
                model=settings,
                synthetic=False,
                created=datetime.now(UTC).isoformat(timespec="microseconds"),
                patient_salt=salt,
                provenance=_provenance(request, data, fitted, difference, origin),
                metrics=metrics,
                detection=data.detection,
            )

        events.stage("measuring the held-out part")
        metrics = _measured(finish({}), data.parts[part], part, request.seed)
        package = finish(metrics)
        (folder / CARD).write_text(
            detector_card(package), encoding="utf-8", errors="backslashreplace"
        )
        seal(folder)


def _threshold(data: _Data, fitted: DetectionFit) -> float:
    """The score from which boxes count, by the validation part."""
    val = data.arrays("val")
    found = predict(fitted.model, val, data.preprocess, data.detection, data.device)
    images = [
        ImageBoxes(truths, labels - 1, each.boxes, each.scores, each.classes)
        for truths, labels, each in zip(val.boxes, val.labels, found, strict=True)
    ]
    return best_threshold(images, len(data.found.classes))


def _measured(
    package: ModelPackage, scans: Sequence[BoxScan], part: str, seed: int
) -> dict[str, Any]:
    """The numbers of a part, from the files and through the graphs, as `evaluate` would."""
    rows, _ = measure_scans(
        Detector(package), [scan.case for scan in scans], [scan.truths for scan in scans]
    )
    numbers = box_metrics(rows, len(package.task.classes), seed=seed)
    return {"task": package.task.name, "classes": package.task.classes, "split": part, **numbers}


def _provenance(
    request: TrainRequest,
    data: _Data,
    fitted: DetectionFit,
    onnx_difference: float,
    origin: str | None,
) -> dict[str, Any]:
    rows = []
    for part, scans in data.parts.items():
        slices = sum(len(scan.slices.images) for scan in scans)
        boxes = sum(len(scan.truths) for scan in scans)
        facts = {"part": part, "patients": _patients(scans), "scans": len(scans)}
        rows.append({**facts, "slices": slices, "boxes": boxes})
    return {
        "source": ", ".join("/".join(Path(name).parts[-2:]) for name in _inputs(request)),
        "split": rows,
        "train": data.train.to_json(),
        "weights": origin,
        "epochs_run": len(fitted.history),
        "best_epoch": max(line.epoch for line in fitted.history if line.best),
        "stopped": fitted.stopped,
        "seconds": round(fitted.history[-1].seconds, 1),
        "device": data.device.type,
        "onnx_difference": onnx_difference,
        "versions": versions(),
    }
