"""Data → run folder."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medcli.data.arrays import ScanArrays
from medcli.data.splits import PARTS
from medcli.errors import UsageError
from medcli.files import check_target
from medcli.models.heads import head_width
from medcli.models.package import (
    ModelPackage,
    is_replaceable,
    load_package,
)
from medcli.models.registry import REGIONS
from medcli.models.scan_model import ScanModel, build_model
from medcli.models.weights import find_start
from medcli.training.checkpoint import Draft
from medcli.training.defaults import (
    choose_device,
)
from medcli.training.loop import Fit, fit
from medcli.training.measuring import measure_run
from medcli.training.preparing import Prepared, prepare
from medcli.training.processes import Processes, joined
from medcli.training.regression import with_measures
from medcli.training.request import Steps, TrainEvents, TrainRequest
from medcli.training.settings import (
    check_objective,
)
from medcli.training.start import begin
from medcli.training.tasks import (
    own_patient,
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
from medcli.training.writing import run_folder, versions, write_run


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
) -> tuple[ScanModel, Prepared]:
    """The data, and the model with the weights it begins with."""
    start = None
    if request.weights is not None and resumed is None:
        events.note(f"looking for the weights {request.weights}")
        start = find_start(request.weights, request.model.arch)
    data = prepare(request, events, processes, steps, resumed)
    if resumed is not None:
        check_scans(resumed.plan.scans, _scan_lines(data))
    torch.manual_seed(request.seed)
    model = build_model(
        request.model, data.preprocess.channels, data.preprocess.size, head_width(data.tasks)
    )
    if request.model.arch in REGIONS and resumed is None:
        scans = data.arrays["train"]
        images = torch.from_numpy(scans.images).float().div_(255)
        model.prepare(images, scans.lengths.tolist())
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
    data: Prepared,
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
    request: TrainRequest, target: Path, data: Prepared, fitted: Fit, events: TrainEvents
) -> None:
    """Measure what was trained and write the run folder."""
    if data.model.measured_columns is not None:
        events.stage("fitting the regression on measures of the findings")
        whole = with_measures(
            fitted.model,
            data.model,
            data.arrays["train"],
            data.arrays["val"],
            data.preprocess,
            batch_slices=data.train.batch_slices,
            device=data.device,
        )
        fitted = replace(fitted, model=whole)
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
    write_run(request, target, data, fitted, measured)


def _plan_of(request: TrainRequest, target: Path, data: Prepared, processes: Processes) -> Plan:
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


def _scan_lines(data: Prepared) -> list[ScanLine]:
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
        **versions(),
    }


def _predict(
    data: Prepared, fitted: Fit, what: Callable[..., Tensor], scans: ScanArrays
) -> np.ndarray:
    """What the trained model says of `scans`: `predict_logits` or `predict_embeddings`."""
    batch_slices = data.train.batch_slices
    return what(fitted.model, scans, data.preprocess, batch_slices, data.device).numpy()
