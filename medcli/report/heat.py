"""Heat laid over a picture."""

from __future__ import annotations

import numpy as np

# Dark violet to light yellow: brightness rises all the way, so that the order of two places
# can be told without colour vision.
STOPS = np.array([(40, 11, 84), (137, 34, 106), (221, 81, 58), (252, 165, 10), (252, 255, 164)])
OPACITY = 0.65
"""Of the strongest place; a place without heat shows the picture alone."""


def heat_colours(heat: np.ndarray) -> np.ndarray:
    """Values in 0–1, any shape → uint8 RGB, with one more axis."""
    positions = np.linspace(0, 1, len(STOPS))
    channels = [np.interp(heat, positions, STOPS[:, channel]) for channel in range(3)]
    return np.asarray(np.rint(np.stack(channels, axis=-1)), np.uint8)


def overlay(picture: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Lay heat over a picture.

    Parameters
    ----------
    picture : uint8 (h, w) or (h, w, 3)
    heat : (h, w) in 0–1

    Returns
    -------
    uint8 (h, w, 3); the stronger the heat, the less of the picture shows
    """
    colour = np.repeat(picture[..., None], 3, axis=2) if picture.ndim == 2 else picture
    share = OPACITY * np.sqrt(np.clip(heat, 0, 1))[..., None]
    return np.asarray(np.rint(colour * (1 - share) + heat_colours(heat) * share), np.uint8)


def share_bars(shares: np.ndarray, width: int, height: int, marked: np.ndarray) -> np.ndarray:
    """One upright bar a slice, as high as its share of the highest.

    Parameters
    ----------
    shares : (S,) not negative
    width, height : pixels of the drawing
    marked : (S,) whether a bar is drawn bright: those whose slices are shown

    Returns
    -------
    uint8 (height, width)
    """
    drawn = np.full((height, width), 25, np.uint8)
    edges = np.linspace(0, width, len(shares) + 1).round().astype(int)
    lengths = np.rint(height * shares / (shares.max() or 1.0)).astype(int)
    for left, right, length, bright in zip(edges[:-1], edges[1:], lengths, marked, strict=True):
        drawn[height - length :, left : max(left + 1, right - 1)] = 235 if bright else 130
    return drawn
