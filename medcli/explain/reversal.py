"""Heat maps by a deconvolutional network."""

from __future__ import annotations

from torch import Tensor

from medcli.errors import UsageError
from medcli.explain.subject import Subject, telling
from medcli.layers.deconvolution import Deconvolution, is_reversible


def deconvolution(subject: Subject) -> Tensor:
    """(S, H, W): what in image space woke the activations that speak for the class.

    Each activation of the last feature map starts with its share in the class's logit
    (activation times gradient, where positive) and is sent down through the reversed
    network; the strength of what arrives, over the colours, is the map.

    Raises
    ------
    UsageError : the network has layers without a reverse
    """
    layers = getattr(subject.model.backbone, "layers", None)
    if layers is None or not is_reversible([layers]):
        raise UsageError(
            "this model's network cannot be run backwards",
            "deconv serves resnet… and cnn_lrn…; take --method gradcam or occlusion",
        )
    feature_map, gradient = telling(subject)
    network = Deconvolution([layers])
    network.up(subject.images.detach())
    return network.down((feature_map * gradient).relu()).abs().amax(dim=1)
