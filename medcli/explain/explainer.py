"""A model package and a scan → a heat map in the scan's own geometry."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch.nn import functional as F

from medcli.errors import UsageError
from medcli.explain.methods import METHODS
from medcli.explain.subject import Subject
from medcli.imaging.preprocess import Preprocessor, sample_slices
from medcli.imaging.resize import unfit
from medcli.models.heads import Head
from medcli.models.package import ModelPackage
from medcli.models.registry import resolve
from medcli.models.weights import load_model
from medcli.records import Scan


@dataclass(frozen=True, slots=True)
class Explanation:
    """What in a scan speaks for a class.

    Attributes
    ----------
    task : whose class it is; of several the one that the model's router picks
    label : the class that is explained
    predicted : the class that the model gives the scan
    slices : (S',) numbers of the slices that the model saw
    heat : (S', H, W) float32 in the scan's rows and columns, 0–1; 1 is the strongest place of
        the scan, all 0 where nothing speaks for the class
    shares : (S',) of each slice in the heat, summing to 1 where there is any
    """

    method: str
    task: str
    label: str
    predicted: str
    slices: np.ndarray = field(repr=False)
    heat: np.ndarray = field(repr=False)
    shares: np.ndarray = field(repr=False)

    @property
    def peak(self) -> tuple[int, int, int]:
        """Slice number, row and column of the strongest place."""
        at = np.unravel_index(int(self.heat.argmax()), self.heat.shape)
        return int(self.slices[at[0]]), int(at[1]), int(at[2])

    @property
    def empty(self) -> bool:
        """Whether nothing in the scan speaks for the class."""
        return not self.heat.any()


class Explainer:
    """A model package loaded into torch, ready to explain its answers."""

    def __init__(self, package: ModelPackage) -> None:
        self.package = package
        self._preprocessor = Preprocessor(package.preprocess)
        self._model = load_model(package)

    def explain(self, scan: Scan, method: str, label: str | None = None) -> Explanation:
        """Explain a class of a scan, by default the one that is predicted.

        Parameters
        ----------
        method : one of `medcli.explain.methods.METHODS`

        Raises
        ------
        UsageError : an unknown method or class, or a method that this model cannot give
        """
        chosen = sample_slices(len(scan.pixels), self.package.preprocess.slice_budget)
        images = torch.from_numpy(self._preprocessor.model_input(scan, slices=chosen))
        with torch.no_grad():
            logits = Subject(self._model, images, 0).output().logits[0].numpy()
        head = self._head(logits)
        classes = head.task.classes
        if label is not None and label not in classes:
            raise UsageError(
                f"the model knows no class {label!r}", f"Its classes: {', '.join(classes)}"
            )
        run = resolve(METHODS, "method", method)
        predicted = classes[int(head.probabilities(logits).argmax())]
        subject = Subject(self._model, images, head.first + classes.index(label or predicted))
        size = self.package.preprocess.size
        heat = in_scan(run(subject), len(images), size, scan)
        highest, total = float(heat.max()), float(heat.sum())
        return Explanation(
            method=method,
            task=head.task.name,
            label=label or predicted,
            predicted=predicted,
            slices=chosen,
            heat=heat / highest if highest > 0 else heat,
            shares=heat.sum(axis=(1, 2)) / (total or 1.0),
        )

    def _head(self, logits: np.ndarray) -> Head:
        """The head that answers for (W,) logits: one alone, or the one that the router picks."""
        heads, router = self.package.heads, self.package.router
        if len(heads) == 1 or router is None:
            return heads[0]
        return heads[int(router.probabilities(logits).argmax())]


def in_scan(maps: torch.Tensor, slices: int, size: int, scan: Scan) -> np.ndarray:
    """(S', h, w) maps of any size over `slices` inputs of `size` → (slices, H, W) of the scan.

    Linear in between, in space and over slices; the padding of the square is left out.
    """
    whole = maps.detach().float()[None, None]
    resized = F.interpolate(whole, (slices, size, size), mode="trilinear", align_corners=False)
    heat = resized[0, 0].numpy()[..., np.newaxis]
    return unfit(heat, scan.pixels.shape[1:3], scan.spacing_mm[1:])[..., 0]
