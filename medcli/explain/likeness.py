"""Where two slices are alike in the eyes of a model.

References
----------
Stylianou, Souvenir, Pless: Visualizing Deep Similarity Networks, WACV 2019.
"""

from __future__ import annotations

import torch
from torch import Tensor

from medcli.errors import UsageError
from medcli.explain.subject import caught_map
from medcli.models.scan_model import ScanModel
from medcli.models.volume_model import VolumeModel


def likeness(model: ScanModel, one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """What each place of two slices adds to the cosine of their learnt parts.

    The cosine is a sum over the places of either feature map and a rest that no place has (the
    bias of the projection): pooling and projection are linear once it is settled which place
    each maximum was taken at. The layout, which has its own share in a score, is no part of it.

    Parameters
    ----------
    one, other : (C, H, W) standardised slices

    Returns
    -------
    two of (h, w); negative where a place makes the two unlike

    Raises
    ------
    UsageError : a 3-D network, which knows no slices
    """
    if isinstance(model, VolumeModel):
        raise UsageError(
            "a 3-D network compares whole scans, so that no slices can be laid side by side",
            "Take a gallery of a model with an aggregator over slices",
        )
    with torch.no_grad():
        units = [model.project(_scan_features(model, image)) for image in (one, other)]
    return _shares(model, one, units[1]), _shares(model, other, units[0])


def _scan_features(model: ScanModel, image: Tensor) -> Tensor:
    """(C, H, W) a slice → (F,) its features as those of a scan of one slice."""
    features: Tensor = model.aggregator.single(model.encode(image[None]).learnt[None])
    return features[0, 0]


def _shares(model: ScanModel, image: Tensor, target: Tensor) -> Tensor:
    """(h, w): each place's part of the cosine of a slice with `target`, (D,) unit length."""

    def cosine() -> Tensor:
        projected = model.projection(_scan_features(model, image.requires_grad_()))
        # Its length is that of the whole slice; no place answers for it alone.
        share: Tensor = projected @ target / projected.detach().norm()
        return share

    feature_map, gradient = caught_map(model, cosine)
    return (feature_map * gradient).sum(dim=1)[0]
