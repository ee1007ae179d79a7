"""What is explained: a scan as a model sees it, and one of the model's classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from medcli.errors import UsageError
from medcli.models.scan_model import ScanModel, ScanOutput


@dataclass(frozen=True, slots=True)
class Subject:
    """A scan and the class whose logit is explained.

    Attributes
    ----------
    model : in evaluation mode
    images : (S, C, H, W) standardised slices
    column : of the class among the logits
    """

    model: ScanModel
    images: Tensor
    column: int

    def output(self, images: Tensor | None = None) -> ScanOutput:
        """What the model says of the scan, or of other `images` in its place."""
        shown = self.images if images is None else images
        return self.model.aggregate_ragged(self.model.encode(shown), [len(shown)])

    def logit(self, output: ScanOutput) -> Tensor:
        """() the logit of the class."""
        return output.logits[0, self.column]


def telling(subject: Subject) -> tuple[Tensor, Tensor]:
    """The last feature map, and how the class's logit moves with it.

    Returns
    -------
    two of (S', F, h, w); of a 3-D network S' is the number of slices that its map has
    """

    def logit() -> Tensor:
        return subject.logit(subject.output(subject.images.requires_grad_()))

    feature_map, gradient = caught_map(subject.model, logit)
    return _slices_first(feature_map), _slices_first(gradient)


def caught_map(model: ScanModel, value: Callable[[], Tensor]) -> tuple[Tensor, Tensor]:
    """The last feature map while `value` is computed, and the gradient of () `value` at it.

    Raises
    ------
    UsageError : the map is a single field, which says nothing of where
    """
    caught: list[Tensor] = []

    def keep(module: torch.nn.Module, inputs: tuple[Tensor, ...], output: object) -> None:
        whole = output[0] if isinstance(output, tuple) else output
        caught.append(cast(Tensor, whole))

    handle = model.backbone.register_forward_hook(keep)
    try:
        with torch.enable_grad():
            result = value()
            if caught[0].shape[-2:] == (1, 1):
                raise UsageError(
                    "this model's last feature map is a single field, which says nothing of where",
                    "medcli explain --method occlusion needs no map",
                )
            (gradient,) = torch.autograd.grad(result, caught[0])
    finally:
        handle.remove()
    return caught[0].detach(), gradient.detach()


def _slices_first(maps: Tensor) -> Tensor:
    """(S, F, h, w) as it is; (1, F, s, h, w) of a volume → (s, F, h, w)."""
    return maps[0].transpose(0, 1) if maps.ndim == 5 else maps
