"""Heat maps from the gradients at the last feature map.

References
----------
Selvaraju et al.: Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
Localization, ICCV 2017.
Chattopadhay et al.: Grad-CAM++: Improved Visual Explanations for Deep Convolutional
Networks, WACV 2018.
"""

from __future__ import annotations

from torch import Tensor

from medcli.explain.subject import Subject, telling


def gradcam(subject: Subject) -> Tensor:
    """(S', h, w): the feature map, each channel weighted by its mean gradient, rectified."""
    feature_map, gradient = telling(subject)
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    return (weights * feature_map).sum(dim=1).relu()


def gradcam_plus_plus(subject: Subject) -> Tensor:
    """(S', h, w): as `gradcam`, with weights that let several small findings count alike.

    A channel's weight is the sum of its positive gradients, each with the share
    ``g² / (2 g² + g³ ΣA)`` (equation 19, for the exponential of the logit).
    """
    feature_map, gradient = telling(subject)
    squared, cubed = gradient**2, gradient**3
    below = 2 * squared + cubed * feature_map.sum(dim=(2, 3), keepdim=True)
    share = squared / below.where(below != 0, squared.new_ones(()))
    weights = (share * gradient.relu()).sum(dim=(2, 3), keepdim=True)
    return (weights * feature_map).sum(dim=1).relu()
