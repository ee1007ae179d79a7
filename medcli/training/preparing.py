"""Data → what a training needs: read, split, resized, every setting settled."""

from __future__ import annotations

import shlex
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from medcli.config import ModelConfig, PreprocessConfig, TrainConfig
from medcli.data.arrays import ScanArrays
from medcli.data.audit import find_copies
from medcli.data.domains import check_domain, with_domains
from medcli.data.gate import pass_gate
from medcli.data.likeness import look_of
from medcli.data.named import is_named
from medcli.data.sources import DataSet
from medcli.data.splits import Split
from medcli.errors import ManifestError, UsageError
from medcli.home import scan_cache
from medcli.models.registry import REGIONS, VOLUMES
from medcli.records import Task
from medcli.training.calibrating import check_sensitivity
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
    sample_inputs,
)
from medcli.training.processes import Processes
from medcli.training.regression import choose_measured
from medcli.training.request import Steps, TrainEvents, TrainRequest
from medcli.training.settings import (
    choose_objective,
    describe_objective,
)
from medcli.training.tasks import (
    cases_of,
    gather_tasks,
    inputs_by_task,
    labels_of,
    split_rows,
    split_tasks,
    told_apart,
)
from medcli.training.unfinished import (
    Checkpoint,
)


@dataclass(frozen=True, slots=True)
class Prepared:
    """What was read, split and resized for a run; `pixels` are hashes by scan_id and path.

    `model` is what is written in the end: `TrainRequest.model`, and what is measured beside.
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
    model: ModelConfig
    device: torch.device
    start: str | None = None


def prepare(
    request: TrainRequest,
    events: TrainEvents,
    processes: Processes,
    steps: Steps,
    resumed: Checkpoint | None,
) -> Prepared:
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
        columns = choose_measured(request.measures, request.model, tasks)
        model = replace(request.model, measured_columns=columns)
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
        # What is measured as a volume needs every slice that prediction takes.
        whole = model.arch in VOLUMES or model.arch in REGIONS or columns is not None
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
        if model.arch in REGIONS:  # these measure the values themselves
            mean, std = (0.0,) * len(mean), (1.0,) * len(std)
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
    plan = _plan(model, preprocess.size, settings, device)
    events.ready(split_rows(split, tasks), plan, settings.epochs)
    return Prepared(
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
        model=model,
        device=device,
        start=resumed.plan.origin if resumed else None,
    )


def _plan(model: ModelConfig, size: int, config: TrainConfig, device: torch.device) -> str:
    """What is about to be trained, for people."""
    limit = f" or {config.minutes:.3g} minutes" if config.minutes else ""
    return (
        f"{model.network} on {device.type}, {size} px, "
        f"{config.epochs} epoch{'' if config.epochs == 1 else 's'}{limit}, augmentation for "
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
