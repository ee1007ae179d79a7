"""What was trained → the files of a run folder."""

from __future__ import annotations

import csv
import platform
import re
import secrets
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors.torch import save

from medcli.data.splits import PARTS, Split
from medcli.files import new_folder
from medcli.home import runs_folder
from medcli.models.export import check_onnx, export_onnx
from medcli.models.held_out import write_held_out
from medcli.models.package import (
    CARD,
    GRAPH,
    HISTORY,
    SPLITS,
    WEIGHTS,
    finish_package,
    is_replaceable,
    salted_patient,
    save_references,
    seal,
)
from medcli.training.card import model_card
from medcli.training.history import history_csv
from medcli.training.loop import Fit
from medcli.training.measuring import Measured
from medcli.training.preparing import Prepared
from medcli.training.request import TrainRequest
from medcli.training.tasks import (
    split_rows,
)


def write_run(
    request: TrainRequest,
    target: Path,
    data: Prepared,
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
        write_splits(folder / SPLITS, data.split, data.pixels, salt)
        if measured.answers is not None:
            write_held_out(folder, measured.answers, data.tasks[0].classes)
        save_references(folder, measured.references)
        package = finish_package(
            folder,
            heads=measured.heads,
            router=measured.router,
            preprocess=data.preprocess,
            model=data.model,
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


def _provenance(data: Prepared, fitted: Fit, onnx_difference: float) -> dict[str, Any]:
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
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Of what the last digits of the weights may depend on."""
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in ("medcli", "torch", "torchvision", "numpy")},
    }


def write_splits(
    path: Path, split: Split, pixels: Mapping[tuple[str, str], str], salt: str
) -> None:
    """Which pixels and which (salted) patient were in which part; no names, no paths.

    `pixels` has the hash of each scan, by its id and path.
    """
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["pixel_sha256", "patient", "split"])
        for part in PARTS:
            for case in getattr(split, part):
                patient = salted_patient(case.patient_id, salt)
                writer.writerow([pixels[case.scan_id, case.path], patient, part])
