"""Data → run folder."""

from __future__ import annotations

import csv
import platform
import re
import secrets
import shlex
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from medcli.config import Calibration, ModelConfig, PreprocessConfig, TrainConfig
from medcli.data.arrays import ScanArrays
from medcli.data.audit import find_copies
from medcli.data.gate import pass_gate
from medcli.data.likeness import look_of
from medcli.data.named import is_named
from medcli.data.presets import resolve_task
from medcli.data.sources import DataSet, load_cases
from medcli.data.splits import PARTS, Split, SplitRow, split_by_patient, split_table
from medcli.errors import ManifestError
from medcli.evaluation.out_of_distribution import Reference
from medcli.files import check_target, new_folder
from medcli.home import runs_folder
from medcli.models.export import check_onnx, export_onnx
from medcli.models.held_out import HeldOut, write_held_out
from medcli.models.package import (
    CARD,
    GRAPH,
    HISTORY,
    SPLITS,
    WEIGHTS,
    ModelPackage,
    finish_package,
    is_replaceable,
    load_package,
    salted_patient,
    save_reference,
    seal,
)
from medcli.models.registry import VOLUMES
from medcli.models.scan_model import build_model
from medcli.models.weights import find_start
from medcli.records import Task
from medcli.training.baselines import perceptron_baselines
from medcli.training.calibrating import (
    calibrate,
    check_sensitivity,
    flagged_share,
    held_out_answers,
    measure,
    operating_point,
    picture_baselines,
    reference_scans,
)
from medcli.training.card import model_card
from medcli.training.defaults import choose_device, choose_preprocess, choose_training
from medcli.training.gather import (
    TRAIN_SLICES,
    ReadScan,
    inputs_at_hand,
    look_at,
    part_arrays,
    read_cases,
)
from medcli.training.loop import Epoch, Fit, fit
from medcli.training.prediction import predict_embeddings, predict_logits
from medcli.training.start import begin


@dataclass(frozen=True, slots=True)
class TrainEvents:
    """What happens on the way, for a display; every hook may be left out."""

    note: Callable[[str], None] = lambda message: None
    warn: Callable[[str], None] = lambda message: None
    reading: Callable[[int, int], None] = lambda done, total: None
    ready: Callable[[Sequence[SplitRow], str, int], None] = lambda rows, plan, epochs: None
    batch: Callable[[int, float, float], None] = lambda epoch, done, loss: None
    epoch: Callable[[Epoch], None] = lambda epoch: None
    stage: Callable[[str], None] = lambda name: None


@dataclass(frozen=True, slots=True)
class TrainRequest:
    """What the user asked for; None leaves the choice to data and device.

    `weights` is what `medcli.models.weights.find_start` knows; None: from scratch.
    `sensitivity` is wanted of the threshold on the validation part; None: Youden's.
    """

    inputs: tuple[str, ...] = ()
    task: str | None = None
    output: Path | None = None
    overwrite: bool = False
    classes: tuple[str, ...] | None = None
    positive: str | None = None
    size: int | None = None
    epochs: int | None = None
    minutes: float | None = None
    seed: int = 0
    device: str = "auto"
    weights: str | None = None
    allow_overlap: bool = False
    sensitivity: float | None = None
    model: ModelConfig = field(default_factory=ModelConfig)


@dataclass(frozen=True, slots=True)
class Steps:
    """How scans are read and put into parts; cross-validation brings its own."""

    read: Callable[..., list[ReadScan]] = read_cases
    split: Callable[..., Split] = split_by_patient


@dataclass(frozen=True, slots=True)
class _Data:
    """What was read, split and resized for a run; `pixels` are hashes by scan_id and path.

    `start` says which weights it began with; None: from scratch.
    """

    source: str
    task: Task
    synthetic: bool
    pixels: dict[tuple[str, str], str]
    split: Split
    arrays: dict[str, ScanArrays]
    preprocess: PreprocessConfig
    train: TrainConfig
    device: torch.device
    start: str | None = None


def train(
    request: TrainRequest, events: TrainEvents | None = None, steps: Steps | None = None
) -> ModelPackage:
    """Train a model on labelled scans and write it as a run folder.

    Without inputs it takes `manifest.csv` or class folders of the current folder,
    else generated sample data; such a run says `synthetic`.

    Raises
    ------
    UsageError, ManifestError, LeakageError : options or data that cannot be used
    ScanError : nothing readable, or more than 5 % of the scans unreadable
    OutputExistsError, StorageError : the run folder cannot be written
    """
    events = events or TrainEvents()
    if request.output is not None:
        check_target(request.output, overwrite=request.overwrite, replaceable=is_replaceable)
    start = None
    if request.weights is not None:
        events.note(f"looking for the weights {request.weights}")
        start = find_start(request.weights, request.model.arch)
    data = _prepare(request, events, steps or Steps())
    torch.manual_seed(request.seed)
    model = build_model(
        request.model, data.preprocess.channels, data.preprocess.size, len(data.task.classes)
    )
    if start is not None:
        held_out = [
            (case.patient_id, data.pixels[case.scan_id, case.path])
            for case in (*data.split.val, *data.split.test)
        ]
        origin = begin(model, start, held_out, note=events.note, warn=events.warn)
        data = replace(data, start=origin)
    fitted = fit(
        model,
        data.arrays["train"],
        data.arrays["val"],
        data.preprocess,
        data.train,
        device=data.device,
        on_batch=events.batch,
        on_epoch=events.epoch,
    )
    events.stage("measuring the held-out part")
    task, calibration, metrics, answers = _measure(data, fitted, request.sensitivity)
    reference = reference_scans(data.arrays["train"], data.arrays["val"])
    metrics["out_of_distribution"] = flagged_share(reference, data.arrays[metrics["split"]])
    events.stage("exporting and checking the ONNX graph")
    return _write(
        request, replace(data, task=task), fitted, calibration, reference, metrics, answers
    )


def _prepare(request: TrainRequest, events: TrainEvents, steps: Steps) -> _Data:
    """Find, read, split and resize the data; settle every setting."""
    start = time.monotonic()
    device = choose_device(request.device)
    with tempfile.TemporaryDirectory(prefix="medcli-") as scratch:
        inputs, synthetic = request.inputs, False
        if not inputs:
            inputs, sentence, synthetic = inputs_at_hand(Path(scratch))
            events.note(sentence)
        data = load_cases(inputs, task=request.task, classes=request.classes, on_note=events.note)
        task, notes = resolve_task(request.task, data.classes, request.positive)
        check_sensitivity(task, request.sensitivity)
        _tell(data, notes, events)
        facts = look_at(data.cases)
        preprocess = choose_preprocess(facts, task.name, device, request.size)
        whole = request.model.arch in VOLUMES
        read = steps.read(
            data.cases,
            preprocess,
            preprocess.slice_budget if whole else TRAIN_SLICES,
            on_read=events.reading,
            on_failure=lambda failure: events.warn(f"left out: {failure.message}"),
        )
        if len(read) < len(data.cases):
            lost = len(data.cases) - len(read)
            events.warn(f"{lost:,} of {len(data.cases):,} scans could not be read and are left out")
    split = _split(read, task, request, inputs, events, steps)
    arrays = part_arrays(read, split, task)
    mean, std = arrays["train"].statistics()
    settings = choose_training(
        facts,
        task.name,
        len(arrays["train"].images),
        preprocess.size,
        device,
        TrainConfig(seed=request.seed),
        epochs=request.epochs,
        minutes=request.minutes,
        spent=(time.monotonic() - start) / 60,
    )
    plan = _plan(request.model, preprocess.size, settings, device)
    events.ready(split_table(split), plan, settings.epochs)
    return _Data(
        source="generated sample data" if synthetic else _source(inputs),
        task=task,
        synthetic=synthetic or all(map(_is_synthetic, read)),
        pixels={(item.case.scan_id, item.case.path): item.pixel_sha256 for item in read},
        split=split,
        arrays=arrays,
        preprocess=replace(preprocess, mean=mean, std=std),
        train=settings,
        device=device,
    )


def _plan(model: ModelConfig, size: int, config: TrainConfig, device: torch.device) -> str:
    """What is about to be trained, for people."""
    limit = f" or {config.minutes:.3g} minutes" if config.minutes else ""
    return (
        f"{model.network} on {device.type}, {size} px, "
        f"{config.epochs} epochs{limit}, augmentation for {config.augmentation}"
    )


def _tell(data: DataSet, notes: Iterable[str], events: TrainEvents) -> None:
    for message in notes:
        events.note(message)
    for message in data.warnings:
        events.warn(message)
    for reason, count in data.dropped.items():
        events.warn(f"{count} dropped: {reason}")


def _split(
    read: Sequence[ReadScan],
    task: Task,
    request: TrainRequest,
    inputs: Iterable[str],
    events: TrainEvents,
    steps: Steps,
) -> Split:
    """The parts, behind the gate against leakage; says what was noticed.

    Raises
    ------
    LeakageError : given parts share a patient or a picture
    ManifestError : no scan of a class could be read, or too few patients
    """
    unread = sorted(set(task.classes) - {str(item.case.label) for item in read})
    if unread:
        raise ManifestError(
            f"no scan of class {unread[0]!r} can be read",
            "Repair its files, or leave the class out with --classes",
        )
    copies = find_copies(
        [item.pixel_sha256 for item in read], [look_of(item.images) for item in read]
    )
    gate = pass_gate(
        [item.case for item in read],
        copies,
        clean=f"medcli data split {shlex.join(inputs)} -o clean.csv",
        allow_overlap=request.allow_overlap,
    )
    defaults = TrainConfig()
    split = steps.split(
        gate.cases,
        val_fraction=defaults.val_fraction,
        test_fraction=defaults.test_fraction,
        seed=request.seed,
        links=gate.links,
        allow_overlap=request.allow_overlap,
    )
    for message in (*gate.warnings, *split.warnings):
        events.warn(message)
    return split


def _source(inputs: Sequence[str]) -> str:
    """The end of each input's path: enough to know the data again, little of the machine."""
    ends = ["/".join(Path(name).resolve().parts[-2:]) for name in inputs]
    return ", ".join(n if is_named(n) else end for n, end in zip(inputs, ends, strict=True))


def _is_synthetic(item: ReadScan) -> bool:
    """Whether a manifest marks the scan as generated (column `synthetic`)."""
    return item.case.columns.get("synthetic", "").lower() in ("1", "true", "yes")


def _measure(
    data: _Data, fitted: Fit, sensitivity: float | None
) -> tuple[Task, Calibration, dict[str, Any], HeldOut]:
    """The task with its threshold, the calibration, the numbers of the test part, the answers.

    Threshold and calibration are fitted on the validation part. Without a test part the
    numbers are those of the validation part, and say so.
    """

    def predict(what: Callable[..., Tensor], scans: ScanArrays) -> np.ndarray:
        batch_slices = data.train.batch_slices
        return what(fitted.model, scans, data.preprocess, batch_slices, data.device).numpy()

    def logits(part: str) -> np.ndarray:
        return predict(predict_logits, data.arrays[part])

    validation = data.arrays["val"].labels, logits("val"), sensitivity
    task, calibration = calibrate(data.task, *validation)
    choice = operating_point(task, calibration, *validation)
    part = "test" if data.split.test else "val"
    scans, cases = data.arrays[part], getattr(data.split, part)
    answered = task, calibration, scans.labels, logits(part), cases
    metrics = measure(*answered, data.train.seed)
    metrics["operating_point"] = asdict(choice) if choice else None
    baselines = picture_baselines(task, data.arrays["train"], scans, cases, data.train.seed)
    baselines |= perceptron_baselines(
        data.arrays["train"],
        scans,
        len(task.classes),
        embed=lambda wanted: predict(predict_embeddings, wanted),
        patients=[case.patient_id for case in cases],
        seed=data.train.seed,
    )
    metrics = {"split": part, **metrics, "baselines": baselines}
    return task, calibration, metrics, held_out_answers(*answered)


def _write(
    request: TrainRequest,
    data: _Data,
    fitted: Fit,
    calibration: Calibration,
    reference: Reference,
    metrics: dict[str, Any],
    answers: HeldOut,
) -> ModelPackage:
    """Write the run folder; it appears whole or not at all."""
    created = datetime.now(UTC)
    target = request.output or run_folder(data.task.name, created)
    with new_folder(target, overwrite=request.overwrite, replaceable=is_replaceable) as folder:
        # safetensors' own writer makes a file that nobody else can read
        (folder / WEIGHTS).write_bytes(save(fitted.model.to("cpu").state_dict()))
        channels, size = data.preprocess.channels, data.preprocess.size
        export_onnx(fitted.model, folder / GRAPH, channels, size)
        difference = check_onnx(fitted.model, folder / GRAPH, channels, size)
        salt = secrets.token_hex(16)
        _write_history(folder / HISTORY, fitted.history)
        _write_splits(folder / SPLITS, data, salt)
        write_held_out(folder, answers, data.task.classes)
        save_reference(folder, reference)
        package = finish_package(
            folder,
            task=data.task,
            preprocess=data.preprocess,
            model=request.model,
            calibration=calibration,
            synthetic=data.synthetic,
            created=created.isoformat(timespec="microseconds"),
            patient_salt=salt,
            provenance=_provenance(data, fitted, difference),
            metrics=metrics,
        )
        (folder / CARD).write_text(model_card(package), encoding="utf-8", errors="backslashreplace")
        seal(folder)
    return load_package(target)


def run_folder(task: str, created: datetime | None = None) -> Path:
    """The task's name, as far as it can stand in a file name, and the time, in the home."""
    safe = re.sub(r"[^\w-]+", "-", task).strip("-") or "task"
    return runs_folder() / f"{safe}-{created or datetime.now(UTC):%Y%m%d-%H%M%S-%f}"


def _provenance(data: _Data, fitted: Fit, onnx_difference: float) -> dict[str, Any]:
    return {
        "source": data.source,
        "split": [asdict(row) for row in split_table(data.split)],
        "train": data.train.to_json(),
        "weights": data.start,
        "epochs_run": len(fitted.history),
        "best_epoch": max(line.epoch for line in fitted.history if line.best),
        "stopped": fitted.stopped,
        "seconds": round(fitted.history[-1].seconds, 1),
        "device": data.device.type,
        "onnx_difference": onnx_difference,
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("medcli", "torch", "torchvision", "numpy")},
        },
    }


def _write_history(path: Path, history: Sequence[Epoch]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(asdict(history[0])))
        writer.writeheader()
        writer.writerows(asdict(line) for line in history)


def _write_splits(path: Path, data: _Data, salt: str) -> None:
    """Which pixels and which (salted) patient were in which part; no names, no paths."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["pixel_sha256", "patient", "split"])
        for part in PARTS:
            for case in getattr(data.split, part):
                patient = salted_patient(case.patient_id, salt)
                writer.writerow([data.pixels[case.scan_id, case.path], patient, part])
