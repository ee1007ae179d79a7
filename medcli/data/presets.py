"""What the name of a known task brings, and how a task is read from its classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from medcli.data.manifest import closest
from medcli.errors import UsageError
from medcli.records import Task


@dataclass(frozen=True, slots=True)
class Preset:
    """Settings of a known task.

    Attributes
    ----------
    positives : classes that count as the positive one, the first present wins
    class_sets : label sets by which the task is recognised when it is not named
    augmentation, pictures, channels : as in `TrainConfig` and `PreprocessConfig`
    measures : a scan is a crop around a finding, whose measures tell much
    """

    positives: tuple[str, ...]
    class_sets: tuple[frozenset[str], ...]
    augmentation: Literal["ct", "radiograph", "colour"]
    pictures: Literal["full_range", "percentiles"] = "full_range"
    channels: Literal[1, 3] = 1
    measures: bool = False


PRESETS: dict[str, Preset] = {
    "nodule": Preset(
        positives=("malignant",),
        class_sets=(frozenset({"benign", "malignant"}),),
        augmentation="ct",
        measures=True,
    ),
    "lung": Preset(
        positives=("pneumonia",),
        class_sets=(frozenset({"normal", "pneumonia"}),),
        augmentation="radiograph",
        pictures="percentiles",
    ),
    "gi": Preset(
        positives=("colon_aca", "polyp"),
        class_sets=(frozenset({"colon_aca", "colon_n"}), frozenset({"normal", "polyp"})),
        augmentation="colour",
        channels=3,
    ),
}

DETECTION = "-detection"
"""Ends the name of every task that is one of finding boxes: polyp-detection."""

_POSITIVES = tuple(name for preset in PRESETS.values() for name in preset.positives)


def is_detection(task: str | None) -> bool:
    """Whether the name of a task asks for boxes."""
    return task is not None and task.endswith(DETECTION)


def infer_task(classes: Sequence[str]) -> str | None:
    """The known task that has exactly these classes, if one has."""
    labels = frozenset(name.casefold() for name in classes)
    return next((name for name, preset in PRESETS.items() if labels in preset.class_sets), None)


def resolve_task(
    name: str | None,
    classes: Sequence[str],
    positive: str | None = None,
    *,
    multi_label: bool = False,
) -> tuple[Task, list[str]]:
    """The task to train: its name, its classes and which of two classes is positive.

    Parameters
    ----------
    name : as the user gave it; None reads it from the classes
    classes : in the order of the logits
    positive : as the user gave it
    multi_label : the classes are findings, several of which a scan may have

    Returns
    -------
    the task, and notes on what was decided without being told

    Raises
    ------
    UsageError : `positive` is none of the classes, or there are more than two of them, or
        they are findings
    """
    notes = []
    if multi_label:
        if positive is not None:
            raise UsageError(
                "--positive is for one of two classes; here every finding is one", "leave it out"
            )
        told = f"several findings to a scan, an answer for each of {len(classes)}"
        return Task(name or "findings", tuple(classes), multi_label=True), [told]
    if name is None:
        name = infer_task(classes) or "task"
        reason = f"its classes are {', '.join(classes)}" if name in PRESETS else "no name given"
        notes.append(f"task {name!r} ({reason}); --task names another")
    elif name not in PRESETS and (hint := closest(name, PRESETS)):
        notes.append(f"task {name!r} is a new one, without presets: {hint.strip()}")
    chosen, positive_notes = _positive(classes, positive)
    return Task(name, tuple(classes), chosen), notes + positive_notes


def _positive(classes: Sequence[str], asked: str | None) -> tuple[str | None, list[str]]:
    if asked is not None and asked not in classes:
        raise UsageError(
            f"--positive {asked!r} is none of the classes",
            f"{closest(asked, classes)}classes: {', '.join(classes)}",
        )
    if len(classes) != 2:
        if asked is not None:
            raise UsageError(
                f"--positive needs two classes, there are {len(classes)}",
                "leave it out, or name two classes with --classes",
            )
        return None, []
    if asked is not None:
        return asked, []
    by_name = {label.casefold(): label for label in classes}
    for known in _POSITIVES:
        if known in by_name:
            return by_name[known], []
    return classes[-1], [f"positive class: {classes[-1]!r}, the last one; --positive names another"]
