"""Data → run folder."""

from __future__ import annotations

import csv
import os
import platform
import re
import secrets
import shlex
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from medcli.config import ModelConfig, PreprocessConfig, TrainConfig
from medcli.data.arrays import ScanArrays
from medcli.data.audit import find_copies
from medcli.data.domains import check_domain, with_domains
from medcli.data.gate import pass_gate
from medcli.data.likeness import look_of
from medcli.data.named import is_named
from medcli.data.sources import DataSet
from medcli.data.splits import PARTS, Split, SplitRow, split_by_patient
from medcli.errors import ManifestError, UsageError
from medcli.files import check_target, new_folder
from medcli.home import runs_folder, scan_cache
from medcli.models.export import check_onnx, export_onnx
from medcli.models.heads import head_width
from medcli.models.held_out import write_held_out
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
    save_references,
    seal,
)
from medcli.models.registry import VOLUMES
from medcli.models.scan_model import ScanModel, build_model
from medcli.models.weights import find_start
from medcli.records import Task
from medcli.training.calibrating import check_sensitivity
from medcli.training.card import model_card
from medcli.training.checkpoint import Draft
from medcli.training.defaults import (
    DataFacts,
    choose_augmentation,
    choose_device,
    choose_shared_preprocess,
    choose_training,
)
from medcli.training.gather import (
    TRAIN_SLICES,
    ReadScan,
    inputs_at_hand,
    look_at,
    part_arrays,
    read_cases,
    sample_inputs,
)
from medcli.training.history import history_csv
from medcli.training.loop import Epoch, Fit, fit
from medcli.training.measuring import Measured, measure_run
from medcli.training.processes import Processes, joined
from medcli.training.settings import (
    ObjectiveRequest,
    check_objective,
    choose_objective,
    describe_objective,
)
from medcli.training.start import begin
from medcli.training.tasks import (
    cases_of,
    gather_tasks,
    inputs_by_task,
    labels_of,
    own_patient,
    split_rows,
    split_tasks,
    told_apart,
)
from medcli.training.tensorboard import check_tensorboard, logged
from medcli.training.unfinished import (
    Checkpoint,
    Plan,
    ScanLine,
    as_json,
    check_machine,
    check_scans,
    check_unfinished,
    find_unfinished,
    from_json,
    load_checkpoint,
    run_of,
)


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

    `inputs` and `task` are what `medcli.training.tasks.gather_tasks` knows, several tasks
    included. `weights` is what `medcli.models.weights.find_start` knows; None: from scratch.
    `sensitivity` is wanted of the threshold on the validation part; None: Youden's.
    `cache` keeps what was read for the next time. `tensorboard` is a folder of logs.
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
    objective: ObjectiveRequest = field(default_factory=ObjectiveRequest)
    cache: bool = True
    tensorboard: Path | None = None


@dataclass(frozen=True, slots=True)
class Steps:
    """How scans are read and put into parts; cross-validation brings its own."""

    read: Callable[..., list[ReadScan]] = read_cases
    split: Callable[..., Split] = split_by_patient


@dataclass(frozen=True, slots=True)
class _Data:
    """What was read, split and resized for a run; `pixels` are hashes by scan_id and path.

    `start` says which weights it began with; None: from scratch. `generated`: the inputs
    are sample data that exist no longer.
    """

    source: str
    inputs: tuple[str, ...]
    generated: bool
    tasks: tuple[Task, ...]
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
    else generated sample data; such a run says `synthetic`. What is interrupted leaves an
    unfinished run beside the run folder, for `resume_training`. In processes that
    `torchrun` started the model is trained by all and written by the first.

    Raises
    ------
    UsageError, ManifestError, LeakageError : options or data that cannot be used
    ScanError : nothing readable, or more than 5 % of the scans unreadable
    OutputExistsError, StorageError : the run folder cannot be written
    """
    with joined() as processes:
        return _train(request, events or TrainEvents(), processes, steps=steps)


def resume_training(
    name: str, events: TrainEvents | None = None, *, inputs: Sequence[str] = ()
) -> ModelPackage:
    """Go on with an unfinished run where its last epoch ended.

    The run ends with the weights that it would have had without interruption.

    Parameters
    ----------
    name : as `medcli.training.unfinished.find_unfinished` takes it
    inputs : where the data are now, if they have moved

    Raises
    ------
    UsageError : no such unfinished run; other data; another number of processes
    DamagedError : the unfinished run is damaged
    """
    checkpoint = load_checkpoint(find_unfinished(name))
    try:
        request = from_json(TrainRequest, checkpoint.plan.request)
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"{checkpoint.folder} was begun by another version of medcli",
            "Go on with that version, or train again",
        ) from error
    request = replace(
        request,
        inputs=tuple(inputs) or request.inputs,
        output=run_of(checkpoint.folder) or request.output,  # it may have been moved
    )
    with joined() as processes:
        return _train(request, events or TrainEvents(), processes, checkpoint)


def _train(
    request: TrainRequest,
    events: TrainEvents,
    processes: Processes,
    resumed: Checkpoint | None = None,
    steps: Steps | None = None,
) -> ModelPackage:
    """Train, or go on; with several processes the first one speaks, measures and writes."""
    began = time.monotonic()
    check_objective(request.objective)
    events = events if processes.leads else TrainEvents()
    if request.tensorboard is not None:
        check_tensorboard()
    with processes.first_leader():
        if request.output is not None:
            check_target(request.output, overwrite=request.overwrite, replaceable=is_replaceable)
            if resumed is None and not request.overwrite and processes.leads:
                check_unfinished(request.output)
        if resumed is not None:
            check_machine(resumed.plan, _made_on(request, processes), events.warn)
        model, data = _begin(request, events, processes, steps or Steps(), resumed)
    target = request.output or run_folder("-".join(task.name for task in data.tasks))
    target = processes.leaders_path(target)
    draft = Draft(target, _plan_of(request, target, data, processes), resumed)
    try:
        logs = request.tensorboard if processes.leads else None
        with logged(events.epoch, logs, target.name, resumed.epoch if resumed else 0) as on_epoch:
            heard = replace(events, epoch=on_epoch)
            fitted = _fit(model, data, processes, draft, heard, began, resumed)
        if processes.leads:
            _finish(request, target, data, fitted, events)
    except BaseException:
        if processes.leads and steps is None:
            draft.leave(events.warn)
        elif processes.leads:  # a fold is nothing to go on with
            draft.remove()
        raise
    processes.wait()
    if processes.leads:
        draft.remove()
    return load_package(target)


def _begin(
    request: TrainRequest,
    events: TrainEvents,
    processes: Processes,
    steps: Steps,
    resumed: Checkpoint | None,
) -> tuple[ScanModel, _Data]:
    """The data, and the model with the weights it begins with."""
    start = None
    if request.weights is not None and resumed is None:
        events.note(f"looking for the weights {request.weights}")
        start = find_start(request.weights, request.model.arch)
    data = _prepare(request, events, processes, steps, resumed)
    if resumed is not None:
        check_scans(resumed.plan.scans, _scan_lines(data))
    torch.manual_seed(request.seed)
    model = build_model(
        request.model, data.preprocess.channels, data.preprocess.size, head_width(data.tasks)
    )
    if start is not None:
        held_out = [
            (patient, data.pixels[case.scan_id, case.path], task)
            for case in (*data.split.val, *data.split.test)
            for patient, task in [own_patient(case, data.tasks)]
        ]
        origin = begin(model, start, held_out, note=events.note, warn=events.warn)
        data = replace(data, start=origin)
    return model, data


def _fit(
    model: ScanModel,
    data: _Data,
    processes: Processes,
    draft: Draft,
    events: TrainEvents,
    began: float,
    resumed: Checkpoint | None,
) -> Fit:
    """Train; an unfinished run goes on, and its reading counts as time, too."""
    if resumed is not None:
        events.note(f"going on after epoch {resumed.epoch} of {data.train.epochs}")
    return fit(
        model,
        data.arrays["train"],
        data.arrays["val"],
        data.preprocess,
        data.train,
        device=data.device,
        tasks=data.tasks,
        processes=processes,
        names=[case.path for case in data.split.train],
        resumed=resumed.state if resumed else None,
        spent=time.monotonic() - began if resumed else 0.0,
        on_batch=events.batch,
        on_epoch=events.epoch,
        on_state=draft.offer if processes.leads else lambda state: None,
    )


def _finish(
    request: TrainRequest, target: Path, data: _Data, fitted: Fit, events: TrainEvents
) -> None:
    """Measure what was trained and write the run folder."""
    events.stage("measuring the held-out part")
    measured = measure_run(
        data.tasks,
        data.arrays,
        data.split,
        data.train,
        partial(_predict, data, fitted),
        request.sensitivity,
    )
    events.stage("exporting and checking the ONNX graph")
    _write(request, target, data, fitted, measured)


def _plan_of(request: TrainRequest, target: Path, data: _Data, processes: Processes) -> Plan:
    """What an unfinished run keeps of this one; the current folder is not part of it."""
    inputs = tuple(map(_absolute, data.inputs))
    logs = request.tensorboard.absolute() if request.tensorboard else None
    asked = replace(request, inputs=inputs, output=target.absolute(), tensorboard=logs)
    return Plan(
        request=as_json(asked),
        generated=data.generated,
        origin=data.start,
        train=data.train,
        preprocess=data.preprocess,
        scans=_scan_lines(data),
        made_on=_made_on(request, processes),
    )


def _absolute(name: str) -> str:
    """An input that is a path, also behind ``task=``, from the root; a name as it is."""
    if os.path.exists(name):
        return os.path.abspath(name)
    task, equals, path = name.rpartition("=")
    return f"{task}{equals}{os.path.abspath(path)}" if os.path.exists(path) else name


def _scan_lines(data: _Data) -> list[ScanLine]:
    return [
        ScanLine(case.path, data.pixels[case.scan_id, case.path], str(case.label), part)
        for part in PARTS
        for case in getattr(data.split, part)
    ]


def _made_on(request: TrainRequest, processes: Processes) -> dict[str, Any]:
    """What the last digits of the weights depend on, beside seed and settings."""
    return {
        "device": choose_device(request.device).type,
        "threads": torch.get_num_threads(),
        "processes": processes.count,
        **_versions(),
    }


def _prepare(
    request: TrainRequest,
    events: TrainEvents,
    processes: Processes,
    steps: Steps,
    resumed: Checkpoint | None,
) -> _Data:
    """Find, read, split and resize the data; settle every setting, or take those of `resumed`."""
    start = time.monotonic()
    device = processes.device(choose_device(request.device))
    with tempfile.TemporaryDirectory(prefix="medcli-") as scratch:
        inputs, generated = request.inputs, False
        if not inputs and resumed is not None and resumed.plan.generated:
            inputs, generated = sample_inputs(Path(scratch)), True
        elif not inputs:
            inputs, sentence, generated = inputs_at_hand(Path(scratch))
            events.note(sentence)
        found = gather_tasks(
            inputs, request.task, request.classes, request.positive, on_note=events.note
        )
        tasks, cases = found.tasks, found.data.cases
        _check_tasks(tasks, request.sensitivity, steps)
        _tell(found.data, found.notes, events)
        names = [task.name for task in tasks]
        if resumed is None:
            facts = [look_at(cases_of(cases, task, tasks)) for task in tasks]
            preprocess = choose_shared_preprocess(facts, names, device, request.size)
        else:
            preprocess = resumed.plan.preprocess
        objective = request.objective
        if objective.domain is not None:
            objective = replace(objective, domain=check_domain(cases, objective.domain))
        whole = request.model.arch in VOLUMES
        read = steps.read(
            cases,
            preprocess,
            preprocess.slice_budget if whole else TRAIN_SLICES,
            cache=scan_cache() if request.cache and not generated else None,
            warn=events.warn,
            on_read=events.reading,
            on_failure=lambda failure: events.warn(f"left out: {failure.message}"),
        )
        if len(read) < len(cases):
            lost = len(cases) - len(read)
            events.warn(f"{lost:,} of {len(cases):,} scans could not be read and are left out")
    if found.apart:
        read = told_apart(read)
    split = _split(read, tasks, request, inputs, events, steps)
    arrays = part_arrays(read, split, *tasks)
    if objective.domain is not None:
        arrays, warnings = with_domains(arrays, split, objective.domain)
        for message in warnings:
            events.warn(message)
    if resumed is None:
        mean, std = arrays["train"].statistics()
        preprocess = replace(preprocess, mean=mean, std=std)
        settings = choose_training(
            DataFacts.joined(facts),
            names[0],
            len(arrays["train"].images),
            preprocess.size,
            device,
            TrainConfig(seed=request.seed),
            epochs=request.epochs,
            minutes=request.minutes,
            spent=(time.monotonic() - start) / 60,
        )
        if len(tasks) > 1:
            each = tuple(map(choose_augmentation, facts, names))
            settings = replace(settings, augmentations=each)
        settings = choose_objective(
            settings, objective, arrays["train"], tasks, pretrained=request.weights is not None
        )
    else:
        settings = resumed.plan.train
    plan = _plan(request.model, preprocess.size, settings, device)
    events.ready(split_rows(split, tasks), plan, settings.epochs)
    return _Data(
        source="generated sample data" if generated else _source(inputs),
        inputs=() if generated else inputs,
        generated=generated,
        tasks=tasks,
        synthetic=generated or all(map(_is_synthetic, read)),
        pixels={(item.case.scan_id, item.case.path): item.pixel_sha256 for item in read},
        split=split,
        arrays=arrays,
        preprocess=preprocess,
        train=settings,
        device=device,
        start=resumed.plan.origin if resumed else None,
    )


def _plan(model: ModelConfig, size: int, config: TrainConfig, device: torch.device) -> str:
    """What is about to be trained, for people."""
    limit = f" or {config.minutes:.3g} minutes" if config.minutes else ""
    return (
        f"{model.network} on {device.type}, {size} px, "
        f"{config.epochs} epochs{limit}, augmentation for "
        + ", ".join(dict.fromkeys(config.augmentations or (config.augmentation,)))
        + f"\n{describe_objective(config)}"
    )


def _check_tasks(tasks: Sequence[Task], sensitivity: float | None, steps: Steps) -> None:
    """Raise where what was asked for is about one choice among classes, and this is none.

    Raises
    ------
    UsageError : a wanted sensitivity or folds, and several tasks or findings
    """
    if len(tasks) == 1 and not tasks[0].multi_label:
        check_sensitivity(tasks[0], sensitivity)
        return
    kind = "several tasks" if len(tasks) > 1 else "several findings"
    for option, asked in (("--sensitivity", sensitivity), ("--folds", steps != Steps())):
        if asked:
            raise UsageError(f"{option} is for one task of classes, and here are {kind}")


def _tell(data: DataSet, notes: Iterable[str], events: TrainEvents) -> None:
    for message in notes:
        events.note(message)
    for message in data.warnings:
        events.warn(message)
    for reason, count in data.dropped.items():
        events.warn(f"{count} dropped: {reason}")


def _split(
    read: Sequence[ReadScan],
    tasks: Sequence[Task],
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
    cases = [item.case for item in read]
    for task in tasks:
        own = labels_of(cases_of(cases, task, tasks), task)
        if unread := sorted(set(task.classes) - own):
            raise ManifestError(
                f"no scan of class {unread[0]!r} can be read",
                "Repair its files, or leave the class out with --classes",
            )
    copies = find_copies(
        [item.pixel_sha256 for item in read], [look_of(item.images) for item in read]
    )
    gate = pass_gate(
        cases,
        copies,
        clean=f"medcli data split {shlex.join(inputs)} -o clean.csv",
        allow_overlap=request.allow_overlap,
    )
    split = split_tasks(
        gate.cases,
        tasks,
        request.seed,
        links=gate.links,
        allow_overlap=request.allow_overlap,
        split=steps.split,
    )
    for message in (*gate.warnings, *split.warnings):
        events.warn(message)
    return split


def _source(inputs: Sequence[str]) -> str:
    """The end of each input's path: enough to know the data again, little of the machine."""
    named = inputs_by_task(inputs) or {"": tuple(inputs)}
    return ", ".join(
        f"{task}={_end(name)}" if task else _end(name)
        for task, own in named.items()
        for name in own
    )


def _end(name: str) -> str:
    return name if is_named(name) else "/".join(Path(name).resolve().parts[-2:])


def _is_synthetic(item: ReadScan) -> bool:
    """Whether a manifest marks the scan as generated (column `synthetic`)."""
    return item.case.columns.get("synthetic", "").lower() in ("1", "true", "yes")


def _predict(
    data: _Data, fitted: Fit, what: Callable[..., Tensor], scans: ScanArrays
) -> np.ndarray:
    """What the trained model says of `scans`: `predict_logits` or `predict_embeddings`."""
    batch_slices = data.train.batch_slices
    return what(fitted.model, scans, data.preprocess, batch_slices, data.device).numpy()


def _write(
    request: TrainRequest,
    target: Path,
    data: _Data,
    fitted: Fit,
    measured: Measured,
) -> None:
    """Write the run folder; it appears whole or not at all."""
    created = datetime.now(UTC)
    with new_folder(target, overwrite=request.overwrite, replaceable=is_replaceable) as folder:
        # safetensors' own writer makes a file that nobody else can read
        (folder / WEIGHTS).write_bytes(save(fitted.model.to("cpu").state_dict()))
        channels, size = data.preprocess.channels, data.preprocess.size
        export_onnx(fitted.model, folder / GRAPH, channels, size)
        difference = check_onnx(fitted.model, folder / GRAPH, channels, size)
        salt = secrets.token_hex(16)
        (folder / HISTORY).write_bytes(history_csv(fitted.history))
        _write_splits(folder / SPLITS, data, salt)
        if measured.answers is not None:
            write_held_out(folder, measured.answers, data.tasks[0].classes)
        save_references(folder, measured.references)
        package = finish_package(
            folder,
            heads=measured.heads,
            router=measured.router,
            preprocess=data.preprocess,
            model=request.model,
            synthetic=data.synthetic,
            created=created.isoformat(timespec="microseconds"),
            patient_salt=salt,
            provenance=_provenance(data, fitted, difference),
            metrics=measured.metrics,
        )
        (folder / CARD).write_text(model_card(package), encoding="utf-8", errors="backslashreplace")
        seal(folder)


def run_folder(task: str, created: datetime | None = None) -> Path:
    """The task's name, as far as it can stand in a file name, and the time, in the home."""
    safe = re.sub(r"[^\w-]+", "-", task).strip("-") or "task"
    return runs_folder() / f"{safe}-{created or datetime.now(UTC):%Y%m%d-%H%M%S-%f}"


def _provenance(data: _Data, fitted: Fit, onnx_difference: float) -> dict[str, Any]:
    return {
        "source": data.source,
        "split": [asdict(row) for row in split_rows(data.split, data.tasks)],
        "train": data.train.to_json(),
        "weights": data.start,
        "epochs_run": len(fitted.history),
        "best_epoch": max(line.epoch for line in fitted.history if line.best),
        "stopped": fitted.stopped,
        "seconds": round(fitted.history[-1].seconds, 1),
        "device": data.device.type,
        "onnx_difference": onnx_difference,
        "versions": _versions(),
    }


def _versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in ("medcli", "torch", "torchvision", "numpy")},
    }


def _write_splits(path: Path, data: _Data, salt: str) -> None:
    """Which pixels and which (salted) patient were in which part; no names, no paths."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["pixel_sha256", "patient", "split"])
        for part in PARTS:
            for case in getattr(data.split, part):
                patient = salted_patient(case.patient_id, salt)
                writer.writerow([data.pixels[case.scan_id, case.path], patient, part])
