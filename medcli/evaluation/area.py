"""How large what a slice shows is; apart from the metrics, which take a while to load."""

from __future__ import annotations

import numpy as np


def foreground_area(pixels: np.ndarray) -> float:
    """Pixels above zero in the slice that has most of them.

    Parameters
    ----------
    pixels : (S, H, W, C) with the background at zero, as in masked nodule slices; a
        pixel counts where any channel is above zero
    """
    return float((pixels > 0).any(axis=3).sum(axis=(1, 2)).max())
