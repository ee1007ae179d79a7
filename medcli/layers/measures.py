"""Intensity, edges and size of a marked region, measured by plain tensor arithmetic.

A measure is a number of a picture and the region in it, so it can be a part of a network, and of
the graph that is exported from it. The lists of radiomics (Zwanenburg et al.: The Image
Biomarker Standardization Initiative, Radiology 2020) name most of them: size, intensity, and the
answers of Gaussian filters, their Laplacians and gradients at several scales. Beside these stand
the means of the layers of the region, from its rim inwards: how soft a border is tells most of
a nodule beyond its size. Lengths are in pixels.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

SATURATED = 254.5 / 255  # calcification is white in a lung window
DARK = 0.45  # air in it and around it, and what shares a pixel with air
SCALES = (0.7, 1.0, 2.5)  # standard deviations of the Gaussian filters
REACH = 8  # pixels that the filters see to each side
DEPTHS = 5  # layers of a pixel from the rim inwards; the last is all that lies deeper
_OF_SCALE = (
    *("blur", "blur2", "ridge", "ridge_size"),
    *("core_ridge", "core_ridge_size", "core_ridge2"),
    *("slope", "slope2", "rim_slope"),
)
_PEAKS = ("blur_high", "ridge_high", "ridge_low", "slope_high")
SUMS = (
    *("area", "x", "y", "xx", "yy", "xy"),
    *(f"{part}{depth}" for part in ("count", "layer", "square") for depth in range(DEPTHS)),
    *(f"{part}_{scale}" for part in _OF_SCALE for scale in SCALES),
)
"""What is summed over the pixels of a region; sums over slices are those of the volume."""
PEAKS = tuple(f"{part}_{scale}" for part in _PEAKS for scale in SCALES)
"""The highest answers of the filters; `ridge_low` has the other sign."""
RAW = (*SUMS, *PEAKS)
_COUNTS, _LAYER, _SQUARES, _KINDS = (
    RAW.index(name) for name in ("count0", "layer0", "square0", f"blur_{SCALES[0]}")
)


def measure_slices(images: Tensor, region: Tensor) -> Tensor:
    """(T, 1, H, W) values in 0–1 and (T, 1, H, W) region of 0 and 1 → (T, len(RAW)).

    An empty region gives zeros.
    """
    layers = _layers(region)
    parts = torch.cat([region, region - layers[:, :1], layers], dim=1).flatten(2)
    moments = _constant(_moments(*images.shape[2:]), images)
    answers = F.conv2d(images * region, _constant(_filters(), images), padding=REACH)
    blur, ridge, across, down = answers.chunk(4, dim=1)  # each (T, scales, H, W)
    slope = (across.square() + down.square() + 1e-12).sqrt()
    values = [images, images.square(), blur, blur.square(), ridge, ridge.abs(), ridge.square()]
    values += [slope, slope.square()]
    # Every part of the region with every value, (T, parts, values), in one product.
    sums = parts @ torch.cat(values, dim=1).flatten(2).mT
    whole, core, rim, *_ = sums.unbind(dim=1)
    at = [2 + kind * len(SCALES) for kind in range(len(values) - 1)]  # first column of a kind
    peaks = torch.cat([blur, ridge, -ridge, slope], dim=1) * region
    found = [
        *(parts[:, :1].sum(dim=2), parts[:, 0] @ moments),
        *(parts[:, 2:].sum(dim=2), sums[:, 2:, 0], sums[:, 2:, 1]),
        *(whole[:, at[0] : at[4]], core[:, at[2] : at[5]]),
        *(whole[:, at[5] : at[7]], rim[:, at[5] : at[6]]),
        peaks.amax(dim=(2, 3)),
    ]
    return torch.cat(found, dim=1)


def _layers(region: Tensor) -> Tensor:
    """(T, 1, H, W) → (T, DEPTHS, H, W): which pixels lie how deep below the border."""
    layers = []
    for _ in range(DEPTHS - 1):
        inner = -F.max_pool2d(-region, 3, 1, 1)
        layers.append(region - inner)
        region = inner
    return torch.cat([*layers, region], dim=1)


@functools.cache
def _filters() -> np.ndarray:
    """(4 · len(SCALES), 1, side, side): Gaussians, their Laplacians, their slopes both ways."""
    line = np.arange(-REACH, REACH + 1, dtype=np.float64)
    x, y = line[None], line[:, None]
    filters = []
    for scale in SCALES:
        blur = np.exp(-(x * x + y * y) / (2 * scale**2))
        blur = blur / blur.sum()
        ridge = ((x * x + y * y) / scale**4 - 2 / scale**2) * blur
        filters.append([blur, ridge - ridge.mean(), x / scale**2 * blur, y / scale**2 * blur])
    kinds = np.stack(filters, axis=1).reshape(-1, 1, *blur.shape)
    return kinds.astype(np.float32)


@functools.cache
def _moments(rows: int, columns: int) -> np.ndarray:
    """(rows · columns, 5): x, y, xx, yy and xy of each pixel, from the centre."""
    x = np.arange(columns, dtype=np.float32) - (columns - 1) / 2
    y = np.arange(rows, dtype=np.float32) - (rows - 1) / 2
    x, y = np.broadcast_arrays(x, y[:, None])
    return np.stack([x, y, x * x, y * y, x * y], axis=-1).reshape(-1, 5)


def _constant(values: np.ndarray, like: Tensor) -> Tensor:
    """Numbers that an exported graph holds as they are, in place of how they are computed."""
    return torch.tensor(values.tolist(), dtype=like.dtype, device=like.device)


_LAYERS = (
    *(f"layer{depth}" for depth in range(DEPTHS)),
    *(f"layer{depth}_sd" for depth in range(3)),
    "softness",
)
_FILTERED = (
    *("blur", "ridge", "ridge_size", "core_ridge_size", "slope", "rim_slope"),
    *("blur_sd", "core_ridge_sd", "slope_sd", "ridge_sum", *_PEAKS),
)
DENSITY = (*_LAYERS, *(f"{name}_{scale}" for name in _FILTERED for scale in SCALES))
SIZE = ("largest_area", "volume", "slices", "major", "minor", "elongation", "fill")
MEASURES = (
    *SIZE,
    *(f"whole_{name}" for name in DENSITY),
    *(f"largest_{name}" for name in DENSITY),
)
"""The measures of a scan: size, then those of all its pixels and of its largest slice."""


def measure_scans(raw: Tensor, mask: Tensor) -> Tensor:
    """(N, S, len(RAW)) of slices, (N, S) mask of real slices → (N, len(MEASURES))."""
    raw = raw * mask[..., None]
    area = raw[..., 0]
    at = (area == area.amax(dim=1, keepdim=True)).to(raw) * mask
    at = at / at.sum(dim=1, keepdim=True)  # slices of one size count alike
    largest = torch.einsum("ns,nsm->nm", at, raw)
    sums, peaks = raw[..., : len(SUMS)], raw[..., len(SUMS) :]
    whole = torch.cat([sums.sum(dim=1), peaks.amax(dim=1)], dim=1)
    slices = (area > 0).sum(dim=1).to(raw)
    density = _density(torch.stack([whole, largest], dim=1))
    return torch.cat([_size(largest, whole, slices), density.flatten(1)], dim=1)


def _size(largest: Tensor, whole: Tensor, slices: Tensor) -> Tensor:
    """The measures of `SIZE`, (N, 7); the axes are those of an ellipse of equal moments."""
    area, volume = largest[:, :1], whole[:, :1]
    moments = largest[:, 1:_COUNTS] / area.clamp(min=1)
    x, y, xx, yy, xy = torch.split(moments, 1, dim=1)
    # A pixel has an extent of its own: 1/12 on each axis.
    xx, yy, xy = xx - x * x + 1 / 12, yy - y * y + 1 / 12, xy - x * y
    half, root = (xx + yy) / 2, ((xx - yy).square() / 4 + xy.square() + 1e-9).sqrt()
    major, minor = (half + root).sqrt(), (half - root).clamp(min=1e-3).sqrt()
    fill = area / (4 * math.pi * major * minor)
    columns = [area.log1p(), volume.log1p(), slices[:, None], major, minor, minor / major, fill]
    return torch.cat(columns, dim=1)


def _density(raw: Tensor) -> Tensor:
    """(…, len(RAW)) → the measures of `DENSITY`, (…, D)."""
    area, present = raw[..., :1], raw[..., _COUNTS:_LAYER]
    counts = present.clamp(min=1)
    means = raw[..., _LAYER:_SQUARES] / counts
    squares = raw[..., _SQUARES:_KINDS] / counts
    deepest = (present > 0).sum(dim=-1, keepdim=True) - 1
    at = torch.minimum(_constant(np.arange(DEPTHS), deepest), deepest).clamp(min=0)
    layers = means.gather(-1, at)  # a layer that is not there is like the last one above it
    softness = means[..., 1:3].amax(dim=-1, keepdim=True) - means[..., :1]
    kinds = raw[..., _KINDS:].reshape(*raw.shape[:-1], -1, len(SCALES))  # (…, kinds, scales)
    sums, peaks = kinds[..., : len(_OF_SCALE), :], kinds[..., len(_OF_SCALE) :, :]
    core = (area - present[..., :1]).clamp(min=1)
    area = area.clamp(min=1)
    below = [*[area] * 4, *[core] * 3, *[area] * 2, counts[..., :1]]  # in the order of _OF_SCALE
    shares = sums / torch.cat(below, dim=-1)[..., None]
    columns = [
        _taken(shares, ("blur", "ridge", "ridge_size", "core_ridge_size", "slope", "rim_slope")),
        _deviation(
            _taken(shares, ("blur", "core_ridge", "slope")),
            _taken(shares, ("blur2", "core_ridge2", "slope2")),
        ),
        _taken(sums, ("ridge_size",)).log1p(),
        peaks,
    ]
    filtered = torch.cat(columns, dim=-2).flatten(-2)
    deviations = _deviation(means, squares, 1e-4)[..., :3]
    return torch.cat([layers, deviations, softness, filtered], dim=-1)


def _taken(kinds: Tensor, names: Sequence[str]) -> Tensor:
    """(…, K, scales) in the order of `_OF_SCALE` → (…, len(names), scales)."""
    places = [_OF_SCALE.index(name) for name in names]
    return kinds.index_select(-2, torch.tensor(places, device=kinds.device))


def _deviation(mean: Tensor, square: Tensor, least: float = 1e-6) -> Tensor:
    """Standard deviation of numbers whose mean and mean square are known."""
    return ((square - mean.square()).clamp(min=0) + least).sqrt()
