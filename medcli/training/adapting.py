"""A trained model and unlabelled scans of another site → the model with that site's statistics.

Batch normalisation brings every channel of every layer to mean 0 and deviation 1 by what it saw
in training. Another scanner shifts and stretches the channels. Mean and variance measured on
scans of the new site take that back, without a label and without a change of any weight.

References
----------
Li, Wang, Shi, Liu, Hou: Revisiting Batch Normalization For Practical Domain Adaptation, 2016
(arXiv:1603.04779). Nado et al.: Evaluating Prediction-Time Batch Normalization for Robustness
under Covariate Shift, 2020 (arXiv:2006.10963).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from medcli.config import PreprocessConfig
from medcli.data.arrays import ScanArrays
from medcli.errors import OutputExistsError, UsageError
from medcli.files import check_target, new_folder
from medcli.models.export import check_onnx, export_onnx
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
from medcli.models.registry import BACKBONES, resolve
from medcli.models.scan_model import ScanModel
from medcli.models.weights import load_model
from medcli.records import Case, Failure
from medcli.training.batches import Pixels, batches, draw_slices, standardise
from medcli.training.card_adapted import adapted_card
from medcli.training.gather import read_cases

LEAST = 16  # scans of which statistics are taken at all
FEW = 50  # scans below which a warning says so
BATCH_SLICES = 128
NOT_REFITTED = ("threshold", "calibration", "label_sets", "out_of_distribution")


@dataclass(frozen=True, slots=True)
class Adaptation:
    """What `adapt` made.

    Attributes
    ----------
    package : the new model
    scans, slices : that the statistics were measured on
    shift : by how much the mean of a channel moved, in its old deviations, on average
    """

    package: ModelPackage
    scans: int
    slices: int
    shift: float


def adapt(
    package: ModelPackage,
    cases: Sequence[Case],
    output: Path,
    *,
    source: str = "",
    overwrite: bool = False,
    seed: int = 0,
    on_read: Callable[[int, int], None] = lambda done, total: None,
    on_failure: Callable[[Failure], None] = lambda failure: None,
    warn: Callable[[str], None] = lambda message: None,
) -> Adaptation:
    """Measure the statistics of batch normalisation on `cases` and write a new package.

    Labels are not looked at. The new package has no metrics: nothing was measured. Threshold,
    calibration, label sets and the reference for what is out of distribution stay those of
    the old model, and its provenance says so.

    Parameters
    ----------
    output : a folder that is not the old package, also with `overwrite`
    source : what the cases are, for the provenance

    Raises
    ------
    UsageError : a network without batch normalisation; fewer than `LEAST` scans
    OutputExistsError, StorageError : the folder cannot be written
    ScanError : more than 5 % of the scans are unreadable
    """
    if output.resolve() == package.path.resolve():
        raise OutputExistsError(
            f"{output} is the model itself", "Give another -o; the old model is always kept"
        )
    check_target(output, overwrite=overwrite, replaceable=is_replaceable)
    model = load_model(package)
    check_adaptable(model, package.model.arch)
    scans = read_scans(cases, package.preprocess, on_read, on_failure)
    if len(scans.lengths) < LEAST:
        raise UsageError(
            f"{len(scans.lengths)} scans are too few to measure statistics on",
            f"Give {LEAST} or more, of all kinds that the site has; {FEW} are a beginning",
        )
    if len(scans.lengths) < FEW:
        warn(f"{len(scans.lengths)} scans give rough statistics; better are {FEW} and more")
    shift = adapt_statistics(model, scans, package.preprocess, seed=seed)
    told = {
        "from": package.fingerprint,
        "source": source,
        "scans": len(scans.lengths),
        "slices": len(scans.images),
        "shift": round(shift, 3),
        "seed": seed,
        "not_refitted": list(NOT_REFITTED),
        "versions": {name: version(name) for name in ("medcli", "torch")},
    }
    new = _write(package, model, output, told, overwrite=overwrite)
    return Adaptation(new, len(scans.lengths), len(scans.images), shift)


def check_adaptable(model: ScanModel, arch: str) -> None:
    """Raise where a network has no statistics to measure.

    Raises
    ------
    UsageError : names the networks that have
    """
    if not batch_norms(model.backbone):
        raise UsageError(
            f"{arch} has no batch normalisation, so nothing in it can be adapted without labels",
            f"Train one of {', '.join(adaptable())} to be able to",
        )


def adaptable() -> list[str]:
    """The registered backbones that have batch normalisation."""
    with torch.device("meta"):
        built = {name: resolve(BACKBONES, "architecture", name)(1, 64) for name in BACKBONES}
    return [name for name, backbone in built.items() if batch_norms(backbone)]


def batch_norms(module: nn.Module) -> list[_BatchNorm]:
    """Every batch normalisation inside `module`, in order."""
    return [part for part in module.modules() if isinstance(part, _BatchNorm)]


def read_scans(
    cases: Sequence[Case],
    preprocess: PreprocessConfig,
    on_read: Callable[[int, int], None],
    on_failure: Callable[[Failure], None],
) -> ScanArrays:
    """The scans as in training; their labels are all 0 and mean nothing."""
    read = read_cases(cases, preprocess, on_read=on_read, on_failure=on_failure)
    shape = (preprocess.channels, preprocess.size, preprocess.size)
    images = [np.empty((0, *shape), np.uint8), *(item.images for item in read)]
    lengths = np.array([len(item.images) for item in read], dtype=np.int64)
    return ScanArrays(np.concatenate(images), lengths, np.zeros(len(read), np.int64))


@torch.no_grad()
def adapt_statistics(
    model: ScanModel, scans: ScanArrays, preprocess: PreprocessConfig, *, seed: int = 0
) -> float:
    """Replace mean and variance of each batch normalisation of `model`, in place.

    The new ones are the means over batches of whole scans in random order, every layer seeing
    what the layers before it make of a batch that is normalised by itself. Nothing of the old
    ones is left: a blend would hold for no layer behind the first. The standardisation of the
    input stays: what a shift or stretch of the pixels does to the first layer, its new
    statistics take back.

    Returns
    -------
    by how much the mean of a channel moved, in its old deviations, on average
    """
    norms = batch_norms(model.backbone)
    before = [(_buffer(norm.running_mean), _buffer(norm.running_var)) for norm in norms]
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over all batches
        norm.train()
    generator, device = torch.Generator().manual_seed(seed), next(model.parameters()).device
    pixels = Pixels(scans.images, device)
    for batch in batches(scans, BATCH_SLICES, generator):
        rows, _ = draw_slices(scans, batch)
        model.encode(standardise(pixels.take(rows), preprocess))
    moved = []
    for norm, momentum, (mean, variance) in zip(norms, momenta, before, strict=True):
        norm.momentum = momentum
        norm.eval()
        moved.append((_buffer(norm.running_mean) - mean).abs() / (variance + norm.eps).sqrt())
    return float(torch.cat(moved).mean())


def _buffer(statistics: Tensor | None) -> Tensor:
    assert statistics is not None  # every backbone keeps track of them
    return statistics.clone()


def _write(
    old: ModelPackage, model: ScanModel, output: Path, told: dict[str, Any], *, overwrite: bool
) -> ModelPackage:
    """Write the new package; it appears whole or not at all."""
    created = datetime.now(UTC).isoformat(timespec="microseconds")
    size, channels = old.preprocess.size, old.preprocess.channels
    with new_folder(output, overwrite=overwrite, replaceable=is_replaceable) as folder:
        (folder / WEIGHTS).write_bytes(save(model.state_dict()))
        export_onnx(model, folder / GRAPH, channels, size)
        told["onnx_difference"] = check_onnx(model, folder / GRAPH, channels, size)
        told["created"] = created
        for name in (REFERENCE, SPLITS):  # whom the model has seen, and what it is used to
            if (old.path / name).is_file():
                shutil.copyfile(old.path / name, folder / name)
        package = finish_package(
            folder,
            heads=old.heads,
            router=old.router,
            preprocess=old.preprocess,
            model=old.model,
            synthetic=old.synthetic,
            created=created,
            patient_salt=old.patient_salt,
            provenance={
                **old.provenance,
                "adaptations": [*old.provenance.get("adaptations", []), told],
            },
            metrics={"split": None, "auroc": None, "accuracy": None},
        )
        (folder / CARD).write_text(adapted_card(package), encoding="utf-8")
        seal(folder)
    return load_package(output)
