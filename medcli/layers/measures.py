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
PEAKS = tuple(
    f"{part}_{scale}"
    for scale in SCALES
    for part in ("blur_high", "ridge_high", "ridge_low", "slope_high")
)
"""The highest answers of the filters; `ridge_low` has the other sign."""
RAW = (*SUMS, *PEAKS)
_AT = {name: number for number, name in enumerate(RAW)}


def measure_slices(images: Tensor, region: Tensor) -> Tensor:
    """(T, 1, H, W) values in 0–1 and (T, 1, H, W) region of 0 and 1 → (T, len(RAW)).

    An empty region gives zeros.
    """
    layers = _layers(region)
    rim, core = layers[:, :1], region - layers[:, :1]
    x, y = _coordinates(images)
    maps = [region, region * x, region * y, region * x * x, region * y * y, region * x * y]
    maps += [layers, layers * images, layers * images.square()]
    peaks = []
    answers = F.conv2d(images * region, _filters().to(images), padding=REACH)
    for number in range(len(SCALES)):
        kinds = answers[:, 4 * number : 4 * number + 4]
        blur, ridge, across, down = (kinds[:, kind : kind + 1] for kind in range(4))
        slope = (across.square() + down.square() + 1e-12).sqrt()
        size = ridge.abs()
        maps += [blur * region, blur.square() * region, ridge * region, size * region]
        maps += [ridge * core, ridge.square() * core, size * core]
        maps += [slope * region, slope.square() * region, slope * rim]
        peaks += [blur * region, ridge * region, -ridge * region, slope * region]
    sums = torch.cat(maps, dim=1).sum(dim=(2, 3))
    return torch.cat([sums, torch.cat(peaks, dim=1).amax(dim=(2, 3))], dim=1)


def _layers(region: Tensor) -> Tensor:
    """(T, 1, H, W) → (T, DEPTHS, H, W): which pixels lie how deep below the border."""
    layers = []
    for _ in range(DEPTHS - 1):
        inner = -F.max_pool2d(-region, 3, 1, 1)
        layers.append(region - inner)
        region = inner
    return torch.cat([*layers, region], dim=1)


def _filters() -> Tensor:
    """(4 · len(SCALES), 1, side, side): of each scale Gaussian, its Laplacian, both slopes."""
    line = torch.arange(-REACH, REACH + 1, dtype=torch.float64)
    x, y = line[None], line[:, None]
    filters = []
    for scale in SCALES:
        blur = torch.exp(-(x * x + y * y) / (2 * scale**2))
        blur = blur / blur.sum()
        ridge = ((x * x + y * y) / scale**4 - 2 / scale**2) * blur
        filters += [blur, ridge - ridge.mean(), x / scale**2 * blur, y / scale**2 * blur]
    return torch.stack(filters)[:, None].float()


def _coordinates(images: Tensor) -> tuple[Tensor, Tensor]:
    """Columns and rows from the centre, in pixels, (W,) and (H, 1)."""
    rows, columns = images.shape[2:]
    x = torch.arange(columns, device=images.device, dtype=torch.float32) - (columns - 1) / 2
    y = torch.arange(rows, device=images.device, dtype=torch.float32) - (rows - 1) / 2
    return x, y[:, None]


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
    columns = [*_size(largest, whole, slices), *_density(whole), *_density(largest)]
    return torch.stack(columns, dim=1)


def _size(largest: Tensor, whole: Tensor, slices: Tensor) -> list[Tensor]:
    """The measures of `SIZE`, each (N,); the axes are those of an ellipse of equal moments."""
    area, *rest = (largest[:, _AT[name]] for name in ("area", "x", "y", "xx", "yy", "xy"))
    x, y, xx, yy, xy = (each / area.clamp(min=1) for each in rest)
    # A pixel has an extent of its own: 1/12 on each axis.
    xx, yy, xy = xx - x * x + 1 / 12, yy - y * y + 1 / 12, xy - x * y
    half, root = (xx + yy) / 2, ((xx - yy).square() / 4 + xy.square() + 1e-9).sqrt()
    major, minor = (half + root).sqrt(), (half - root).clamp(min=1e-3).sqrt()
    fill = area / (4 * math.pi * major * minor)
    volume = whole[:, _AT["area"]]
    return [area.log1p(), volume.log1p(), slices, major, minor, minor / major, fill]


def _density(raw: Tensor) -> list[Tensor]:
    """(N, len(RAW)) → the measures of `DENSITY`, each (N,)."""

    def of(name: str) -> Tensor:
        return raw[:, _AT[name]]

    counts = [of(f"count{depth}").clamp(min=1) for depth in range(DEPTHS)]
    layers: list[Tensor] = []
    for depth, count in enumerate(counts):
        mean = of(f"layer{depth}") / count
        # A layer that is not there is like the last one above it.
        layers.append(torch.where(of(f"count{depth}") > 0, mean, layers[-1] if layers else mean))
    columns = [
        *layers,
        *(_deviation(of(f"layer{k}"), of(f"square{k}"), counts[k], 1e-4) for k in range(3)),
        torch.maximum(of("layer1") / counts[1], of("layer2") / counts[2]) - layers[0],
    ]
    area = of("area").clamp(min=1)
    core = (of("area") - of("count0")).clamp(min=1)
    for scale in SCALES:
        at = {name: of(f"{name}_{scale}") for name in _OF_SCALE}
        columns += [
            at["blur"] / area,
            _deviation(at["blur"], at["blur2"], area),
            of(f"blur_high_{scale}"),
            at["ridge"] / area,
            at["ridge_size"] / area,
            at["ridge_size"].log1p(),
            of(f"ridge_high_{scale}"),
            of(f"ridge_low_{scale}"),
            at["core_ridge_size"] / core,
            _deviation(at["core_ridge"], at["core_ridge2"], core),
            at["slope"] / area,
            _deviation(at["slope"], at["slope2"], area),
            of(f"slope_high_{scale}"),
            at["rim_slope"] / counts[0],
        ]
    return columns


def _deviation(total: Tensor, squares: Tensor, count: Tensor, least: float = 1e-6) -> Tensor:
    """Standard deviation of numbers whose sum and sum of squares are known."""
    return ((squares / count - (total / count).square()).clamp(min=0) + least).sqrt()
