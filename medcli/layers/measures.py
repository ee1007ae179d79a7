"""Intensity, edges and size of a marked region, measured by plain tensor arithmetic.

A measure is a number of a picture and the region in it, so it can be a part of a network, and of
the graph that is exported from it. The lists of radiomics (Zwanenburg et al.: The Image
Biomarker Standardization Initiative, Radiology 2020) name most of them: size, intensity, and the
answers of Gaussian filters, their Laplacians and gradients at several scales. Beside these stand
the means of the layers of the region, from its rim inwards: how soft a border is tells most of
a nodule beyond its size. Lengths are in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

SATURATED = 254.5 / 255  # calcification is white in a lung window
DARK = 0.45  # air in it and around it, and what shares a pixel with air
SCALES = (0.7, 1.0, 2.5)  # standard deviations of the Gaussian filters
REACH = 8  # pixels that the filters see to each side
DEPTHS = 5  # layers of a pixel from the rim inwards; the last is all that lies deeper
_OF_SCALE = (
    *("blur", "blur2", "ridge", "ridge_size", "core_ridge", "core_ridge2", "core_ridge_size"),
    *("slope", "slope2", "rim_slope"),
)
SUMS = (
    *("area", "x", "y", "xx", "yy", "xy"),
    *(f"{part}{depth}" for part in ("count", "layer", "square") for depth in range(DEPTHS)),
    *(f"{part}_{scale}" for scale in SCALES for part in _OF_SCALE),
)
"""What is summed over the pixels of a region; sums over slices are those of the volume."""
_BY_PART = (
    *("blur", "blur2", "ridge", "ridge_size", "core_ridge", "core_ridge_size", "core_ridge2"),
    *("slope", "slope2", "rim_slope", "blur_high", "ridge_high", "ridge_low", "slope_high"),
)
_PEAKS = ("blur_high", "ridge_high", "ridge_low", "slope_high")
PEAKS = tuple(f"{part}_{scale}" for scale in SCALES for part in _PEAKS)
"""The highest answers of the filters; `ridge_low` has the other sign."""
RAW = (*SUMS, *PEAKS)
_FOUND = (  # the order in which `measure_slices` finds them
    *SUMS[: SUMS.index("blur_0.7")],
    *(f"{part}_{scale}" for part in _BY_PART for scale in SCALES),
)
_AT = {name: number for number, name in enumerate(RAW)}


def measure_slices(images: Tensor, region: Tensor) -> Tensor:
    """(T, 1, H, W) values in 0–1 and (T, 1, H, W) region of 0 and 1 → (T, len(RAW)).

    An empty region gives zeros.
    """
    layers = _layers(region)
    parts = torch.cat([region, region - layers[:, :1], layers], dim=1).flatten(2)
    answers = F.conv2d(images * region, _filters().to(images), padding=REACH)
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
        *(parts[:, :1].sum(dim=2), parts[:, 0] @ _moments(images).mT),
        *(parts[:, 2:].sum(dim=2), sums[:, 2:, 0], sums[:, 2:, 1]),
        *(whole[:, at[0] : at[4]], core[:, at[2] : at[5]]),
        *(whole[:, at[5] : at[7]], rim[:, at[5] : at[6]]),
        peaks.amax(dim=(2, 3)),
    ]
    return _taken(torch.cat(found, dim=1), [_FOUND.index(name) for name in RAW])


def _layers(region: Tensor) -> Tensor:
    """(T, 1, H, W) → (T, DEPTHS, H, W): which pixels lie how deep below the border."""
    layers = []
    for _ in range(DEPTHS - 1):
        inner = -F.max_pool2d(-region, 3, 1, 1)
        layers.append(region - inner)
        region = inner
    return torch.cat([*layers, region], dim=1)


def _filters() -> Tensor:
    """(4 · len(SCALES), 1, side, side): Gaussians, their Laplacians, their slopes both ways."""
    line = torch.arange(-REACH, REACH + 1, dtype=torch.float64)
    x, y = line[None], line[:, None]
    filters = []
    for scale in SCALES:
        blur = torch.exp(-(x * x + y * y) / (2 * scale**2))
        blur = blur / blur.sum()
        ridge = ((x * x + y * y) / scale**4 - 2 / scale**2) * blur
        filters += [blur, ridge - ridge.mean(), x / scale**2 * blur, y / scale**2 * blur]
    kinds = [filter for kind in range(4) for filter in filters[kind::4]]
    return torch.stack(kinds)[:, None].float()


def _moments(images: Tensor) -> Tensor:
    """(5, H·W): x, y, xx, yy and xy of each pixel, from the centre."""
    rows, columns = images.shape[2:]
    x = torch.arange(columns, device=images.device, dtype=torch.float32) - (columns - 1) / 2
    y = torch.arange(rows, device=images.device, dtype=torch.float32) - (rows - 1) / 2
    x, y = x.expand(rows, columns), y[:, None].expand(rows, columns)
    return torch.stack([x, y, x * x, y * y, x * y]).flatten(1)


_LAYERS = (
    *(f"layer{depth}" for depth in range(DEPTHS)),
    *(f"layer{depth}_sd" for depth in range(3)),
    "softness",
)
_FILTERED = (
    *("blur", "blur_sd", "blur_high", "ridge", "ridge_size", "ridge_sum", "ridge_high"),
    *("ridge_low", "core_ridge_size", "core_ridge_sd", "slope", "slope_sd", "slope_high"),
    "rim_slope",
)
DENSITY = (*_LAYERS, *(f"{name}_{scale}" for scale in SCALES for name in _FILTERED))
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
    area = raw[..., _AT["area"]]
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
    area, volume = largest[:, _AT["area"]], whole[:, _AT["area"]]
    moments = _named(largest, ("x", "y", "xx", "yy", "xy")) / area.clamp(min=1)[:, None]
    x, y, xx, yy, xy = moments.unbind(dim=1)
    # A pixel has an extent of its own: 1/12 on each axis.
    xx, yy, xy = xx - x * x + 1 / 12, yy - y * y + 1 / 12, xy - x * y
    half, root = (xx + yy) / 2, ((xx - yy).square() / 4 + xy.square() + 1e-9).sqrt()
    major, minor = (half + root).sqrt(), (half - root).clamp(min=1e-3).sqrt()
    fill = area / (4 * math.pi * major * minor)
    columns = [area.log1p(), volume.log1p(), slices, major, minor, minor / major, fill]
    return torch.stack(columns, dim=1)


def _density(raw: Tensor) -> Tensor:
    """(…, len(RAW)) → the measures of `DENSITY`, (…, D)."""
    every = range(DEPTHS)
    present = _named(raw, [f"count{depth}" for depth in every])
    counts = present.clamp(min=1)
    means = _named(raw, [f"layer{depth}" for depth in every]) / counts
    squares = _named(raw, [f"square{depth}" for depth in range(3)]) / counts[..., :3]
    layers = [means[..., 0]]
    for depth in every[1:]:  # a layer that is not there is like the last one above it
        layers.append(torch.where(present[..., depth] > 0, means[..., depth], layers[-1]))
    deviations = _deviation(means[..., :3], squares, 1e-4)
    softness = torch.maximum(means[..., 1], means[..., 2]) - layers[0]
    area = raw[..., _AT["area"], None].clamp(min=1)
    core = (raw[..., _AT["area"], None] - present[..., :1]).clamp(min=1)
    of = {
        kind: _named(raw, [f"{kind}_{scale}" for scale in SCALES]) for kind in (*_OF_SCALE, *_PEAKS)
    }
    columns = [  # of each (…, scales)
        of["blur"] / area,
        _deviation(of["blur"] / area, of["blur2"] / area),
        of["blur_high"],
        of["ridge"] / area,
        of["ridge_size"] / area,
        of["ridge_size"].log1p(),
        of["ridge_high"],
        of["ridge_low"],
        of["core_ridge_size"] / core,
        _deviation(of["core_ridge"] / core, of["core_ridge2"] / core),
        of["slope"] / area,
        _deviation(of["slope"] / area, of["slope2"] / area),
        of["slope_high"],
        of["rim_slope"] / counts[..., :1],
    ]
    own = torch.stack([*layers, *deviations.unbind(dim=-1), softness], dim=-1)
    return torch.cat([own, torch.stack(columns, dim=-1).flatten(-2)], dim=-1)


def _taken(raw: Tensor, columns: Sequence[int]) -> Tensor:
    """(…, K) → (…, len(columns))."""
    return raw.index_select(-1, torch.tensor(columns, device=raw.device))


def _named(raw: Tensor, names: Sequence[str]) -> Tensor:
    """(…, len(RAW)) → (…, len(names))."""
    return _taken(raw, [_AT[name] for name in names])


def _deviation(mean: Tensor, square: Tensor, least: float = 1e-6) -> Tensor:
    """Standard deviation of numbers whose mean and mean square are known."""
    return ((square - mean.square()).clamp(min=0) + least).sqrt()
