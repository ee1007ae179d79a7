"""A run → a package that medcli brings along: half the size, with whose data it learnt from."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save

from medcli.errors import UsageError
from medcli.files import new_folder
from medcli.models.export import check_onnx, export_onnx
from medcli.models.half import halve_graph, round_to_half
from medcli.models.heads import Head
from medcli.models.package import (
    CARD,
    GRAPH,
    REFERENCE,
    SPLITS,
    WEIGHTS,
    ModelPackage,
    finish_package,
    is_replaceable,
    load_package,
    seal,
)
from medcli.models.weights import load_model
from medcli.training.card_bundled import Source, bundled_card, bundled_facts

MOST_BYTES = 15_000_000  # of a file
_KEPT = (REFERENCE, SPLITS)  # what the training scans look like, and whose they are, hashed

Settle = Callable[[ModelPackage], ModelPackage]


def bundle(
    run: ModelPackage,
    target: Path,
    sources: Sequence[Source],
    *,
    region_mm: float | None = None,
    region_task: str | None = None,
    settle: Settle | None = None,
    overwrite: bool = False,
) -> ModelPackage:
    """Write `run` as a bundled package; the same run gives the same fingerprint.

    Parameters
    ----------
    sources : what it learnt from; every task of the run has one
    region_mm : side of the region that the model answers about; None: what the run says
    region_task : the one of several tasks that answers about it
    settle : asked for heads and metrics of the finished files (`recalibrate`); None: the run's

    Raises
    ------
    UsageError : a task without a source, a file beyond `MOST_BYTES`, numbers beyond float16
    OutputExistsError, StorageError : `target` cannot be written
    MedcliError : the graph does not answer as the weights do
    """
    _check_sources(run, sources)
    preprocess = run.preprocess
    if region_mm is not None:
        preprocess = dataclasses.replace(preprocess, region_mm=region_mm, region_task=region_task)
    with new_folder(target, overwrite=overwrite, replaceable=is_replaceable) as folder:
        difference = _write_numbers(run, folder)
        for name in _KEPT:
            if (run.path / name).is_file():
                shutil.copyfile(run.path / name, folder / name)
        told = bundled_facts(target.name, sources, run)

        def finish(heads: Sequence[Head], metrics: Mapping[str, Any]) -> ModelPackage:
            package = finish_package(
                folder,
                heads=heads,
                router=run.router,
                preprocess=preprocess,
                model=run.model,
                synthetic=run.synthetic,
                created=run.created,
                patient_salt=run.patient_salt,
                provenance={**run.provenance, "onnx_difference": difference, "bundled": told},
                metrics=metrics,
            )
            (folder / CARD).write_text(bundled_card(package), encoding="utf-8")
            seal(folder)
            return package

        package = finish(run.heads, run.metrics)
        if settle is not None:
            settled = settle(package)
            finish(settled.heads, settled.metrics)
        _check_sizes(folder)
    return load_package(target)


def _write_numbers(run: ModelPackage, folder: Path) -> float:
    """Weights and graph in float16; by how much they differ in what they answer."""
    model, settings = load_model(run), run.preprocess
    (folder / WEIGHTS).write_bytes(save(round_to_half(model)))
    export_onnx(model, folder / GRAPH, settings.channels, settings.size, fold=False)
    halve_graph(folder / GRAPH)
    return check_onnx(model, folder / GRAPH, settings.channels, settings.size)


def _check_sources(run: ModelPackage, sources: Sequence[Source]) -> None:
    missing = {task.name for task in run.tasks} - {source.task for source in sources}
    if missing:
        raise UsageError(
            f"no source is known for the task {', '.join(sorted(missing))}",
            "Name its data, licence and attribution: a model is not bundled without",
        )


def _check_sizes(folder: Path) -> None:
    for file in sorted(folder.iterdir()):
        if file.stat().st_size > MOST_BYTES:
            raise UsageError(
                f"{file.name} has {file.stat().st_size / 1e6:.1f} MB; "
                f"a bundled file may have {MOST_BYTES / 1e6:.0f}",
                "Train a smaller network",
            )
