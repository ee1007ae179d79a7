"""A model on its way to others: the package, or its graph alone."""

from __future__ import annotations

import io
import json
import shutil
import tempfile
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from medcli.errors import DamagedError, UsageError
from medcli.files import check_file, new_folder, write_file
from medcli.inference.engine import OnnxEngine
from medcli.models.heads import Head
from medcli.models.package import (
    GRAPH,
    HELD_OUT,
    MANIFEST,
    SPLITS,
    ModelPackage,
    is_replaceable,
    load_package,
    seal,
)

ONNX_FORMAT = 2  # 1 had one task of classes, in fields of its own, and no offsets
_OF_SCANS = (SPLITS, HELD_OUT)  # files with a line for each scan of the training
_OF_CLASSES = "probabilities = softmax(logits / temperature + offsets)"
_OF_FINDINGS = "probabilities = sigmoid(scale * logits + offset), by the pairs of platt"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # of every file in an archive, so that it depends on them alone


def export_model(
    package: ModelPackage, target: Path, *, without_splits: bool = False, overwrite: bool = False
) -> None:
    """Write a model for others: FILE.onnx, FILE.zip, else a folder.

    Parameters
    ----------
    without_splits : leave out the files with a line for each scan (hashes of pixels and of
        patients, and held-out answers); an ONNX file never has them

    Raises
    ------
    OutputExistsError, StorageError, UsageError : it cannot be written there
    DamagedError : what was written does not answer as the package does
    """
    kind = target.suffix.lower()
    if kind == ".onnx" and package.kind == "detection":
        raise UsageError(
            f"{package.path} has two graphs, with a choice of proposals between them",
            "Export it as .zip or as a folder",
        )
    if kind in (".onnx", ".zip"):
        check_file(target, overwrite=overwrite)
        content = graph_file(package) if kind == ".onnx" else _archive(package, without_splits)
        write_file(target, content)
        return
    if target.resolve() == package.path.resolve():
        raise UsageError(f"{target} is the model itself", "Name another folder")
    with new_folder(target, overwrite=overwrite, replaceable=is_replaceable) as folder:
        _copy(package, folder, without_splits)
    load_package(target, None)


def graph_file(package: ModelPackage) -> bytes:
    """The package's ONNX graph with what is needed to use it, as metadata.

    Raises
    ------
    DamagedError : the graph is no valid one, or answers otherwise than the package's
    """
    import onnx

    model = onnx.load(str(package.path / GRAPH))
    onnx.helper.set_model_props(model, {**_kept(model), **graph_metadata(package)})
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise DamagedError(f"{package.path / GRAPH}: no valid ONNX graph", str(error)) from error
    content: bytes = model.SerializeToString()
    _check_answers(package, content)
    return content


def graph_metadata(package: ModelPackage) -> dict[str, str]:
    """What a program needs that has the graph alone; JSON but for plain words.

    `tasks` has an object for each task: the columns of the logits that answer it, and how
    they are read. `router` is null for a model of one task.
    """
    router = package.router
    values: dict[str, Any] = {
        "tasks": [_head_metadata(head) for head in package.heads],
        "router": router and {**asdict(router), "columns": _bounds(router.columns)},
        "preprocess": package.preprocess.to_json(),
        "synthetic": package.synthetic,
    }
    return {
        "medcli_format": str(ONNX_FORMAT),
        "fingerprint": package.fingerprint,
        "created": package.created,
        "notice": "Research use, not a medical device.",
        **{name: json.dumps(value) for name, value in values.items()},
    }


def _head_metadata(head: Head) -> dict[str, Any]:
    """How one task is read off the logits."""
    return {
        **asdict(head.task),
        **head.calibration.to_json(),
        "columns": _bounds(head.columns),
        "reading": _OF_FINDINGS if head.task.multi_label else _OF_CLASSES,
    }


def _bounds(columns: slice) -> list[int]:
    """The first of the columns and the one behind the last."""
    return [columns.start, columns.stop]


def _kept(model: Any) -> dict[str, str]:
    """The metadata that a graph has already."""
    return {entry.key: entry.value for entry in model.metadata_props}


def _check_answers(package: ModelPackage, content: bytes, seed: int = 0) -> None:
    """Compare the exported graph with the package's on random scans of 1 and 5 slices."""
    settings, rng = package.preprocess, np.random.default_rng(seed)
    with tempfile.TemporaryDirectory(prefix="medcli-") as scratch:
        written = Path(scratch) / GRAPH
        written.write_bytes(content)
        engines = [OnnxEngine(package.path / GRAPH), OnnxEngine(written)]
        for slices in (1, 5):
            shape = (2, slices, settings.channels, settings.size, settings.size)
            images = rng.standard_normal(shape).astype(np.float32)
            mask = np.ones(shape[:2], dtype=bool)
            own, other = (engine.run(images, mask).logits for engine in engines)
            if not np.allclose(own, other, atol=1e-5):
                raise DamagedError(
                    f"{package.path / GRAPH}: the exported graph answers otherwise",
                    "Report it with the output of `medcli doctor`",
                )


def _copy(package: ModelPackage, folder: Path, without_splits: bool) -> None:
    """The files of the package into an empty folder, under a manifest of their own."""
    left_out = {MANIFEST, *(_OF_SCANS if without_splits else ())}
    for file in sorted(package.path.iterdir()):
        if file.is_file() and file.name not in left_out:
            shutil.copyfile(file, folder / file.name)
    seal(folder)


def _archive(package: ModelPackage, without_splits: bool) -> bytes:
    """The package as a zip archive that holds one folder, named after its tasks."""
    stream = io.BytesIO()
    names = "-".join(task.name for task in package.tasks)
    root = f"{names}-{package.fingerprint}".replace("/", "-")
    with tempfile.TemporaryDirectory(prefix="medcli-") as scratch:
        folder = Path(scratch)
        _copy(package, folder, without_splits)
        load_package(folder, None)
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in sorted(folder.iterdir()):
                entry = zipfile.ZipInfo(f"{root}/{file.name}", _EPOCH)
                entry.compress_type = zipfile.ZIP_DEFLATED
                entry.external_attr = 0o644 << 16
                archive.writestr(entry, file.read_bytes())
    return stream.getvalue()
