"""The answers behind a run's numbers, so that its curves can be drawn without the pictures.

`held_out.csv` has one line a scan: a number for its patient and its fold, its class, the
calibrated probabilities, and the threshold of the model that gave them. Where a scan may have
several findings its label names them all, and each has a threshold of its own. The file names no
scan, and the numbers of the patients mean nothing outside it.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medcli.errors import DamagedError
from medcli.models.package import HELD_OUT, ModelPackage
from medcli.records import Task

_PREFIX, _THRESHOLD = "p_", "t_"
_BETWEEN, _NOTHING = "|", "none"  # as labels of manifests name several findings, and none


@dataclass(frozen=True, slots=True)
class HeldOut:
    """What models answered about scans that they had not learnt from.

    Attributes
    ----------
    groups : (N,) patient of each scan, 0 … G-1
    folds : (N,) fold of each scan, from 1; all 0 without folds
    labels : (N,) class indices; of findings (N, F) uint8, 1 for those that a scan has
    probabilities : (N, K); of findings (N, F), each by itself
    thresholds : (N,) of the positive class, NaN where the task has none; of findings (N, F)
    """

    groups: np.ndarray
    folds: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray
    thresholds: np.ndarray

    @property
    def of_findings(self) -> bool:
        """Whether a scan may have several of what the columns stand for."""
        return self.labels.ndim == 2

    @property
    def patients(self) -> list[str]:
        """The patient of each scan as a name."""
        return [f"patient {group + 1}" for group in self.groups]


def join_folds(parts: Sequence[HeldOut]) -> HeldOut:
    """The answers of all folds as one; the patients of different folds are different."""
    starts = np.cumsum([0, *(int(part.groups.max()) + 1 for part in parts[:-1])])
    return HeldOut(
        groups=np.concatenate([p.groups + start for p, start in zip(parts, starts, strict=True)]),
        folds=np.concatenate([np.full(len(p.labels), n) for n, p in enumerate(parts, start=1)]),
        labels=np.concatenate([part.labels for part in parts]),
        probabilities=np.concatenate([part.probabilities for part in parts]),
        thresholds=np.concatenate([part.thresholds for part in parts]),
    )


def write_held_out(folder: Path, held_out: HeldOut, classes: Sequence[str]) -> None:
    """Write `held_out.csv` into a package; before `seal`."""
    several = held_out.of_findings
    limits = [_THRESHOLD + name for name in classes] if several else ["threshold"]
    with (folder / HELD_OUT).open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["patient", "fold", "label", *limits, *(_PREFIX + c for c in classes)])
        for group, fold, label, threshold, row in zip(
            held_out.groups.tolist(),
            held_out.folds.tolist(),
            held_out.labels.tolist(),
            held_out.thresholds.reshape(len(held_out.labels), -1).tolist(),
            held_out.probabilities.tolist(),
            strict=True,
        ):
            shown = ["" if np.isnan(value) else repr(value) for value in threshold]
            name = _named(label, classes) if several else classes[label]
            writer.writerow([group + 1, fold, name, *shown, *map(repr, row)])


def _named(flags: Sequence[int], findings: Sequence[str]) -> str:
    there = (name for name, flag in zip(findings, flags, strict=True) if flag)
    return _BETWEEN.join(there) or _NOTHING


def read_held_out(package: ModelPackage) -> HeldOut | None:
    """The answers behind the numbers of a package; None where it has none, as older ones.

    Raises
    ------
    DamagedError : the file is none of ours
    """
    path = package.path / HELD_OUT
    if not path.is_file():
        return None
    classes = package.task.classes
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            lines = list(csv.DictReader(stream))
        labels, thresholds = _decided(lines, package.task)
        return HeldOut(
            groups=np.array([int(line["patient"]) - 1 for line in lines], dtype=np.intp),
            folds=np.array([int(line["fold"]) for line in lines], dtype=np.intp),
            labels=labels,
            probabilities=np.array([[float(line[_PREFIX + c]) for c in classes] for line in lines]),
            thresholds=thresholds,
        )
    except (KeyError, ValueError, TypeError) as error:
        raise DamagedError(f"{path}: cannot be read", "Train again") from error


def _decided(lines: Sequence[Mapping[str, str]], task: Task) -> tuple[np.ndarray, np.ndarray]:
    """Labels and thresholds as `HeldOut` has them."""
    if not task.multi_label:
        labels = np.array([task.classes.index(line["label"]) for line in lines], dtype=np.intp)
        return labels, np.array([float(line["threshold"] or "nan") for line in lines])
    named = [line["label"].split(_BETWEEN) for line in lines]
    flags = np.array([[name in own for name in task.classes] for own in named], dtype=np.uint8)
    limits = [[float(line[_THRESHOLD + name]) for name in task.classes] for line in lines]
    return flags, np.array(limits)
