"""Colours as another laboratory or camera gives them.

All functions take and give (T, 3, H, W) slices in 0–1 and draw one change a scan.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from medcli.data.draws import Draws

# Absorbance of red, green and blue by haematoxylin, by eosin and by what is left.
# Ruifrok, Johnston: Quantification of histochemical staining by color deconvolution,
# Analytical and Quantitative Cytology and Histology 23, 2001.
DYES = ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78))
# Brightness and two axes of colour (NTSC), about the first of which hue turns.
YIQ = ((0.299, 0.587, 0.114), (0.596, -0.274, -0.322), (0.211, -0.523, 0.312))
_DARKEST = 1 / 255


def restain(images: Tensor, factor: float, draws: Draws) -> Tensor:
    """Make each dye stronger or weaker by up to `factor`, apart from the others.

    References
    ----------
    Tellez et al.: Whole-slide mitosis detection in H&E breast histology using PHH3 as a
    reference, IEEE TMI 2018 (augmentation of the dyes).
    """
    if factor == 1 or images.shape[1] != 3:
        return images
    dyes, inverse = _with_inverse(DYES, images)
    amounts = torch.stack([draws.factor(factor).flatten() for _ in DYES], 1)  # (T, 3)
    mix = inverse @ (amounts[:, :, None] * dyes)  # (T, 3, 3)
    absorbance = -images.clamp(min=_DARKEST).log()
    return (-_colours(absorbance, mix)).exp()


def recolour(images: Tensor, hue: float, saturation: float, draws: Draws) -> Tensor:
    """Turn the hue by up to ± `hue` of the circle and scale the colour by up to `saturation`."""
    if (not hue and saturation == 1) or images.shape[1] != 3:
        return images
    angle = draws.within(-hue, hue).flatten() * (2 * math.pi)
    strength = draws.factor(saturation).flatten()
    cos, sin = strength * angle.cos(), strength * angle.sin()
    zero, one = torch.zeros_like(cos), torch.ones_like(cos)
    turn = torch.stack([one, zero, zero, zero, cos, -sin, zero, sin, cos], 1).view(-1, 3, 3)
    axes, inverse = _with_inverse(YIQ, images)
    mix = inverse @ turn @ axes
    return _colours(images, mix.transpose(1, 2))


def _with_inverse(matrix: Sequence[Sequence[float]], images: Tensor) -> tuple[Tensor, Tensor]:
    """A matrix and its inverse where the images are; a GPU would be waited for to invert it."""
    here = torch.tensor(matrix)
    both = torch.stack([here, torch.linalg.inv(here)]).to(images, non_blocking=True)
    return both[0], both[1]


def _colours(images: Tensor, mix: Tensor) -> Tensor:
    """(T, 3, H, W), (T, 3, 3) rows of the new colours of red, green and blue → (T, 3, H, W)."""
    return torch.einsum("tchw,tcd->tdhw", images, mix)
