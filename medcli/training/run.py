"""Data → run folder."""

from __future__ import annotations

import csv
import platform
import re
import secrets
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
from medcli.data.audit import identical_pixels
from medcli.data.domains import check_domain, sites_of, with_domains
from medcli.data.presets import resolve_task
from medcli.data.sources import DataSet, load_cases
from medcli.data.splits import PARTS, Split, SplitRow, split_by_patient, split_table
from medcli.errors import ManifestError
from medcli.evaluation.out_of_distribution import Reference
from medcli.files import check_target, new_folder
from medcli.home import runs_folder
from medcli.models.export import check_onnx, export_onnx
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
from medcli.models.scan_model import ScanModel
from medcli.models.weights import find_start
from medcli.records import Task
from medcli.training.baselines import perceptron_baselines
from medcli.training.calibrating import (
    calibrate,
    flagged_share,
    measure,
    picture_baselines,
    reference_scans,
)
from medcli.training.card import model_card
from medcli.training.defaults import choose_device, choose_preprocess, choose_training
from medcli.training.gather import ReadScan, inputs_at_hand, look_at, part_arrays, read_cases
from medcli.training.loop import Epoch, Fit, fit
from medcli.training.prediction import predict_embeddings, predict_logits
from medcli.training.settings import (
    ObjectiveRequest,
    check_objective,
    choose_objective,
    describe_objective,
)
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
    model: ModelConfig = field(default_factory=ModelConfig)
    objective: ObjectiveRequest = field(default_factory=ObjectiveRequest)


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


def train(request: TrainRequest, events: TrainEvents | None = None) -> ModelPackage:
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
    check_objective(request.objective)
    if request.output is not None:
        check_target(request.output, overwrite=request.overwrite, replaceable=is_replaceable)
    start = None
    if request.weights is not None:
        events.note(f"looking for the weights {request.weights}")
        start = find_start(request.weights, request.model.arch)
    data = _prepare(request, events)
    torch.manual_seed(request.seed)
    model = ScanModel(
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
    task, calibration, metrics = _measure(data, fitted)
    reference = reference_scans(data.arrays["train"], data.arrays["val"])
    metrics["out_of_distribution"] = flagged_share(reference, data.arrays[metrics["split"]])
    events.stage("exporting and checking the ONNX graph")
    return _write(request, replace(data, task=task), fitted, calibration, reference, metrics)


def _prepare(request: TrainRequest, events: TrainEvents) -> _Data:
    """Find, read, split and resize the data; settle every setting."""
    start = time.monotonic()
    device = choose_device(request.device)
    with tempfile.TemporaryDirectory(prefix="medcli-") as scratch:
        inputs, synthetic = request.inputs, False
        if not inputs:
            inputs, sentence, synthetic = inputs_at_hand(Path(scratch))
            events.note(sentence)
        data = load_cases(inputs, task=request.task, classes=request.classes)
        task, notes = resolve_task(request.task, data.classes, request.positive)
        _tell(data, notes, events)
        objective = request.objective
        if objective.domain is not None:
            objective = replace(objective, domain=check_domain(data.cases, objective.domain))
        facts = look_at(data.cases)
        preprocess = choose_preprocess(facts, task.name, device, request.size)
        read = read_cases(
            data.cases,
            preprocess,
            on_read=events.reading,
            on_failure=lambda failure: events.warn(f"left out: {failure.message}"),
        )
    split = _split(read, task, request.seed, events)
    arrays = part_arrays(read, split, task)
    if objective.domain is not None:
        arrays, warnings = with_domains(arrays, split, objective.domain)
        for message in warnings:
            events.warn(message)
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
    pretrained = request.weights is not None
    settings = choose_objective(settings, objective, arrays["train"], pretrained=pretrained)
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
    limit = f" or {config.minutes:.0f} minutes" if config.minutes else ""
    return (
        f"{model.arch} with {model.aggregator} on {device.type}, {size} px, "
        f"{config.epochs} epochs{limit}, augmentation for {config.augmentation}\n"
        f"{describe_objective(config)}"
    )


def _tell(data: DataSet, notes: Iterable[str], events: TrainEvents) -> None:
    for message in notes:
        events.note(message)
    for message in data.warnings:
        events.warn(message)
    for reason, count in data.dropped.items():
        events.warn(f"{count} dropped: {reason}")


def _split(read: Sequence[ReadScan], task: Task, seed: int, events: TrainEvents) -> Split:
    """The parts; says what was noticed, and where two parts hold the same picture.

    Raises
    ------
    ManifestError : no scan of a class could be read, or too few patients
    """
    unread = sorted(set(task.classes) - {str(item.case.label) for item in read})
    if unread:
        raise ManifestError(
            f"no scan of class {unread[0]!r} can be read",
            "Repair its files, or leave the class out with --classes",
        )
    defaults = TrainConfig()
    split = split_by_patient(
        [item.case for item in read],
        val_fraction=defaults.val_fraction,
        test_fraction=defaults.test_fraction,
        seed=seed,
    )
    for message in split.warnings:
        events.warn(message)
    hashes = {item.case.scan_id: item.pixel_sha256 for item in read}
    copies = identical_pixels({part: getattr(split, part) for part in PARTS}, hashes)
    if copies:
        events.warn(
            f"{sum(map(len, copies))} scans are pixel by pixel the same as one in another part: "
            "the numbers of the parts flatter; give copies one patient_id"
        )
    return split


def _source(inputs: Iterable[str]) -> str:
    """The end of each input's path: enough to know the data again, little of the machine."""
    return ", ".join("/".join(Path(name).resolve().parts[-2:]) for name in inputs)


def _is_synthetic(item: ReadScan) -> bool:
    """Whether a manifest marks the scan as generated (column `synthetic`)."""
    return item.case.columns.get("synthetic", "").lower() in ("1", "true", "yes")


def _measure(data: _Data, fitted: Fit) -> tuple[Task, Calibration, dict[str, Any]]:
    """The task with its threshold, the calibration, and the numbers of the test part.

    Threshold and calibration are fitted on the validation part. Without a test part the
    numbers are those of the validation part, and say so.
    """

    def predict(what: Callable[..., Tensor], scans: ScanArrays) -> np.ndarray:
        batch_slices = data.train.batch_slices
        return what(fitted.model, scans, data.preprocess, batch_slices, data.device).numpy()

    def logits(part: str) -> np.ndarray:
        return predict(predict_logits, data.arrays[part])

    task, calibration = calibrate(data.task, data.arrays["val"].labels, logits("val"))
    part = "test" if data.split.test else "val"
    scans, cases = data.arrays[part], getattr(data.split, part)
    metrics = measure(
        task,
        calibration,
        scans.labels,
        logits(part),
        cases,
        data.train.seed,
        sites=sites_of(cases, data.train.domain),
    )
    baselines = picture_baselines(task, data.arrays["train"], scans, cases, data.train.seed)
    baselines |= perceptron_baselines(
        data.arrays["train"],
        scans,
        len(task.classes),
        embed=lambda wanted: predict(predict_embeddings, wanted),
        patients=[case.patient_id for case in cases],
        seed=data.train.seed,
    )
    return task, calibration, {"split": part, **metrics, "baselines": baselines}


def _write(
    request: TrainRequest,
    data: _Data,
    fitted: Fit,
    calibration: Calibration,
    reference: Reference,
    metrics: dict[str, Any],
) -> ModelPackage:
    """Write the run folder; it appears whole or not at all."""
    created = datetime.now(UTC)
    target = request.output or runs_folder() / _run_name(data.task.name, created)
    with new_folder(target, overwrite=request.overwrite, replaceable=is_replaceable) as folder:
        # safetensors' own writer makes a file that nobody else can read
        (folder / WEIGHTS).write_bytes(save(fitted.model.to("cpu").state_dict()))
        channels, size = data.preprocess.channels, data.preprocess.size
        export_onnx(fitted.model, folder / GRAPH, channels, size)
        difference = check_onnx(fitted.model, folder / GRAPH, channels, size)
        salt = secrets.token_hex(16)
        _write_history(folder / HISTORY, fitted.history)
        _write_splits(folder / SPLITS, data, salt)
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
        (folder / CARD).write_text(model_card(package), encoding="utf-8")
        seal(folder)
    return load_package(target)


def _run_name(task: str, created: datetime) -> str:
    """The task's name, as far as it can stand in a file name, and the time."""
    safe = re.sub(r"[^\w-]+", "-", task).strip("-") or "task"
    return f"{safe}-{created:%Y%m%d-%H%M%S-%f}"


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
