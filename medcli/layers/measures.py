"""Shape and intensity of a marked region, measured by plain tensor arithmetic.

A measure is a differentiable number of a picture and the region in it, so it can be a part of a
network, and of the graph that is exported from it. What is measured follows the usual lists of
radiomics (Zwanenburg et al.: The Image Biomarker Standardization Initiative, Radiology 2020):
size, shape, intensity, histogram and texture. Lengths are in pixels, slices count 1 in depth.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

BINS = 12  # of the histogram of values in 0–1
DIRECTIONS = 8  # that diameters are taken in
SATURATED = 254.5 / 255  # calcification is white in a lung window
DARK = 0.45  # air in it and around it, and what shares a pixel with air
SUMS = (
    *("area", "perimeter", "rim", "core", "opened", "closed"),
    *("x", "y", "xx", "yy", "xy"),
    *("i1", "i2", "rim_i", "core_i", "core_i2", "steps", "pairs", "slope", "contrast"),
    *("saturated", "dark", "core_dark"),
    *(f"bin{number}" for number in range(BINS)),
)
"""What is summed over the pixels of a region; sums over slices are those of the volume."""
LENGTHS = tuple(f"diameter{number}" for number in range(DIRECTIONS))
RAW = (*SUMS, *LENGTHS)
_AT = {name: number for number, name in enumerate(RAW)}
_EPS = 1e-6


def measure_slices(images: Tensor, region: Tensor) -> Tensor:
    """(T, 1, H, W) values in 0–1 and (T, 1, H, W) region of 0 and 1 → (T, len(RAW)) sums.

    An empty region gives zeros.
    """
    inside = images * region
    core = _eroded(region)
    rim = region - core
    smooth = _box(region)
    local, count = _box(inside), smooth.clamp(min=_EPS)
    mean = local / count
    across, down = _neighbours(images, region, 3), _neighbours(images, region, 2)
    dx = 0.5 * (smooth[..., :, 2:] - smooth[..., :, :-2])
    dy = 0.5 * (smooth[..., 2:, :] - smooth[..., :-2, :])
    length = (dx[..., 1:-1, :].square() + dy[..., :, 1:-1].square() + 1e-12).sqrt()
    gx = 0.5 * (images[..., :, 2:] - images[..., :, :-2])[..., 1:-1, :]
    gy = 0.5 * (images[..., 2:, :] - images[..., :-2, :])[..., :, 1:-1]
    gradient = (gx.square() + gy.square() + 1e-12).sqrt() * core[..., 1:-1, 1:-1]
    x, y = _coordinates(images)
    opened = _dilated(core) * region
    closed = -F.max_pool2d(-F.max_pool2d(region, 5, 1, 2), 5, 1, 2)
    white, black = (images > SATURATED).to(images), (images < DARK).to(images)
    parts = [
        *(region, rim, core, opened, closed),
        *(region * x, region * y, region * x * x, region * y * y, region * x * y),
        *(inside, inside * images),
        *(rim * images, core * images, core * images**2),
        *(region * white, region * black, core * black),
        *_histogram(images, region),
    ]
    sums = torch.cat(parts, dim=1).sum(dim=(2, 3)).float()
    extra = [length, gradient, region * (images - mean).abs()]
    perimeter, slope, contrast = (part.sum(dim=(1, 2, 3)).float() for part in extra)
    steps, pairs = (across[i].sum((1, 2, 3)) + down[i].sum((1, 2, 3)) for i in (0, 1))
    columns = [sums[:, :1], perimeter[:, None], sums[:, 1:15]]
    columns += [torch.stack([steps, pairs, slope, contrast], dim=1).float(), sums[:, 15:]]
    return torch.cat([*columns, _diameters(region, x, y)], dim=1)


def _coordinates(images: Tensor) -> tuple[Tensor, Tensor]:
    """Columns and rows from the centre, in pixels, (W,) and (H, 1)."""
    rows, columns = images.shape[2:]
    x = torch.arange(columns, device=images.device, dtype=torch.float32) - (columns - 1) / 2
    y = torch.arange(rows, device=images.device, dtype=torch.float32) - (rows - 1) / 2
    return x, y[:, None]


def _box(maps: Tensor) -> Tensor:
    return F.avg_pool2d(maps, 3, 1, 1)


def _dilated(region: Tensor) -> Tensor:
    return F.max_pool2d(region, 3, 1, 1)


def _eroded(region: Tensor) -> Tensor:
    return -F.max_pool2d(-region, 3, 1, 1)


def _neighbours(images: Tensor, region: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Absolute steps between neighbours that both lie in the region, and how many there are."""
    size = images.shape[axis]
    both = region.narrow(axis, 1, size - 1) * region.narrow(axis, 0, size - 1)
    step = images.narrow(axis, 1, size - 1) - images.narrow(axis, 0, size - 1)
    return step.abs() * both, both


def _histogram(images: Tensor, region: Tensor) -> list[Tensor]:
    """The region divided among the bins, linearly between the two nearest."""
    place = images.clamp(0, 1) * (BINS - 1)
    return [region * (1 - (place - number).abs()).clamp(min=0) for number in range(BINS)]


def _diameters(region: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """(T, DIRECTIONS) how far the region reaches in each direction, 0 where it is empty."""
    lengths = []
    for number in range(DIRECTIONS):
        angle = math.pi * number / DIRECTIONS
        along = x * math.cos(angle) + y * math.sin(angle)
        far = 1e3 * (1 - region)
        high, low = (along - far).amax(dim=(1, 2, 3)), (along + far).amin(dim=(1, 2, 3))
        lengths.append((high - low + 1).clamp(min=0))
    return torch.stack(lengths, dim=1)


SHAPE = (
    *("area", "diameter", "diameter_min", "elongation", "compactness", "fill", "opened"),
    *("closed", "minor", "major"),
)
DENSITY = (
    *("mean", "sd", "rim", "core", "core_sd", "steps", "slope", "contrast"),
    *("saturated", "dark", "core_dark", "entropy"),
    *(f"share{number}" for number in range(BINS)),
)
MEASURES = (
    *("slices", "volume", "surface", "sphericity", "flatness", "largest_share", "shift"),
    *(f"largest_{name}" for name in (*SHAPE, *DENSITY)),
    *(f"mean_{name}" for name in SHAPE[3:8]),
    *(f"whole_{name}" for name in DENSITY),
)
"""The measures of a scan: of the stack, of its largest slice, means over slices, all pixels."""


def measure_scans(raw: Tensor, mask: Tensor) -> Tensor:
    """(N, S, len(RAW)) sums of slices, (N, S) mask of real slices → (N, len(MEASURES))."""
    raw = raw * mask[..., None]
    area = raw[..., _AT["area"]]
    volume, largest = area.sum(dim=1), area.amax(dim=1)
    at = (area == largest[:, None]).float() * mask
    at = at / at.sum(dim=1, keepdim=True)
    biggest = torch.einsum("ns,nsm->nm", at, raw)
    weights = area / volume[:, None].clamp(min=_EPS)
    shapes = torch.stack(_shape(raw)[3:8], dim=-1)  # (N, S, 5)
    slices = (area > 0).sum(dim=1).float()
    sides = (area[:, 1:] - area[:, :-1]).abs().sum(dim=1) + area[:, 0] + area[:, -1]
    surface = raw[..., _AT["perimeter"]].sum(dim=1) + sides
    centre = raw[..., _AT["x"] : _AT["y"] + 1] / area[..., None].clamp(min=1)
    middle = torch.einsum("ns,nsm->nm", weights, centre)
    away = ((centre - middle[:, None]).square().sum(dim=2) + _EPS).sqrt()
    whole = raw.sum(dim=1)
    diameter = biggest[:, _AT["diameter0"] :].amax(dim=1)
    stack = [
        slices,
        _log(volume),
        _log(surface),
        (volume + 1).pow(2 / 3) / (surface + 1),
        slices / (diameter + 1),
        largest / volume.clamp(min=_EPS),
        (weights * away).sum(dim=1),
    ]
    columns = [*stack, *_shape(biggest), *_density(biggest)]
    averaged = torch.einsum("ns,nsm->nm", weights, shapes)
    return torch.cat(
        [torch.stack(columns, dim=1), averaged, torch.stack(_density(whole), dim=1)], dim=1
    )


def _log(values: Tensor) -> Tensor:
    return torch.log1p(values.clamp(min=0))


def _shape(raw: Tensor) -> list[Tensor]:
    """(…, len(RAW)) → the measures of `SHAPE`, each (…)."""

    def of(name: str) -> Tensor:
        return raw[..., _AT[name]]

    area = of("area")
    count = area.clamp(min=1)
    x, y = of("x") / count, of("y") / count
    # A pixel has an extent of its own: 1/12 on each axis.
    xx = (of("xx") / count - x * x).clamp(min=0) + 1 / 12
    yy = (of("yy") / count - y * y).clamp(min=0) + 1 / 12
    xy = of("xy") / count - x * y
    half = (xx + yy) / 2
    root = ((xx - yy).square() / 4 + xy.square() + 1e-9).sqrt()
    major, minor = (half + root).sqrt(), (half - root).clamp(min=1e-3).sqrt()
    reach = raw[..., _AT["diameter0"] :]
    longest, shortest = reach.amax(dim=-1), reach.amin(dim=-1)
    return [
        _log(area),
        longest,
        shortest,
        minor / major,
        4 * math.pi * area / (of("perimeter").square() + 1),
        area / (longest * shortest + 1),
        of("opened") / count,
        area / of("closed").clamp(min=1),
        minor,
        major,
    ]


def _density(raw: Tensor) -> list[Tensor]:
    """(…, len(RAW)) → the measures of `DENSITY`, each (…)."""

    def of(name: str) -> Tensor:
        return raw[..., _AT[name]]

    count, core = of("area").clamp(min=1), of("core").clamp(min=1)
    mean = of("i1") / count
    core_mean = of("core_i") / core
    bins = raw[..., _AT["bin0"] : _AT["bin0"] + BINS] / count[..., None]
    entropy = -(bins * (bins + _EPS).log()).sum(dim=-1)
    return [
        mean,
        ((of("i2") / count - mean**2).clamp(min=0) + 1e-4).sqrt(),
        of("rim_i") / of("rim").clamp(min=1),
        core_mean,
        ((of("core_i2") / core - core_mean**2).clamp(min=0) + 1e-4).sqrt(),
        of("steps") / of("pairs").clamp(min=1),
        of("slope") / core,
        of("contrast") / count,
        of("saturated") / count,
        of("dark") / count,
        of("core_dark") / core,
        entropy,
        *(bins[..., number] for number in range(BINS)),
    ]
