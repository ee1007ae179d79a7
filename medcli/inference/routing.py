"""The bundled models together: the shared one picks the task, its specialist answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache, cached_property

import numpy as np

from medcli.config import EngineName
from medcli.inference.predictor import Predictor
from medcli.inference.remembered import Tell
from medcli.models.bundled import is_shared, specialist
from medcli.models.package import ModelPackage, load_package, peek
from medcli.records import Prediction, Scan


def routed(
    package: ModelPackage, engine: EngineName = "auto", tell: Tell = lambda sentence: None
) -> Predictor:
    """A predictor that lets specialists answer, where `package` is the bundled shared model."""
    several = len(package.heads) > 1
    kind = RoutedPredictor if several and is_shared(package) else Predictor
    return kind(package, engine, tell)


class RoutedPredictor(Predictor):
    """The shared model, whose router picks the task; where it has a specialist, that answers.

    A specialist is loaded when its first scan comes. Only `predict` asks specialists: vectors
    are always the shared model's, so that one gallery serves all tasks.
    """

    @property
    def region_mm(self) -> float | None:
        """That of a specialist, where one answers about a region; else the shared model's own."""
        found = [specialist(task.name) for task in self.package.tasks]
        sides = [peek(folder).preprocess.region_mm for folder in found if folder is not None]
        return next((side for side in sides if side is not None), super().region_mm)

    def _answered(
        self, scan: Scan, logits: np.ndarray, task_ood_scores: Mapping[str, float]
    ) -> Prediction:
        first = super()._answered(scan, logits, task_ood_scores)
        other = self._specialist(first.task)
        return first if other is None else _second_answer(first, scan, other)

    @cached_property
    def _specialist(self) -> Callable[[str], Predictor | None]:
        return cache(self._load)

    def _load(self, task: str) -> Predictor | None:
        """The specialist of a task, where the zoo has one that gives the same classes."""
        folder = specialist(task)
        if folder is None:
            return None
        package = load_package(folder)
        same = package.only(task).task.classes == self.package.only(task).task.classes
        return Predictor(package, *self._engine_asked) if same else None


def _second_answer(first: Prediction, scan: Scan, other: Predictor) -> Prediction:
    """What the specialist says, with what the shared model says of the tasks.

    A scan that is like the scans of no task is out of distribution whatever the specialist
    thinks of it; so is a whole CT for either model.
    """
    own = next(iter(other.predict([scan])))
    assert isinstance(own, Prediction)  # no failure went in
    nearest = min((first.task_ood_scores or {}).values(), default=None)
    scores = [score for score in (own.ood_score, nearest) if score is not None]
    warnings = tuple({each.code: each for each in (*first.warnings, *own.warnings)}.values())
    whole = any(warning.code == "whole_ct" for warning in warnings)
    return replace(
        own,
        out_of_distribution=True if whole else max(scores) > 1 if scores else None,
        ood_score=max(scores, default=None),
        warnings=warnings,
        task_probabilities=first.task_probabilities,
        task_ood_scores=first.task_ood_scores,
    )
