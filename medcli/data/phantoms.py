"""Pictures that imitate modalities: chest CT with a nodule, chest radiograph, endoscopy.

Everything is drawn from a NumPy generator, so that a seed makes the same scan
again. Lengths are in mm. Nothing here comes from a patient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CT_SHAPE = (8, 80, 80)
CT_SPACING = (2.0, 0.75, 0.75)
FLAT_SIZE = 128

_AIR, _LUNG, _FAT, _MUSCLE, _BLOOD, _BONE = -1000.0, -855.0, -95.0, 45.0, 40.0, 420.0


@dataclass(frozen=True, slots=True)
class ChestCT:
    """A targeted reconstruction around a nodule.

    Attributes
    ----------
    hu : (8, 80, 80) int16 HU, slices from feet to head, rows to the back, columns to the left
    origin_mm : (x, y, z) LPS of the first voxel's centre
    diameter_mm : of the nodule without its spicules
    nodule_slice : slice nearest to the nodule's centre
    """

    hu: np.ndarray
    origin_mm: tuple[float, float, float]
    diameter_mm: float
    nodule_slice: int


# ---- shared strokes ----


def smooth_noise(
    rng: np.random.Generator, shape: tuple[int, ...], scale: float | Sequence[float]
) -> np.ndarray:
    """Gaussian noise with unit variance whose grains are `scale` pixels wide, periodic."""
    spectrum = np.fft.rfftn(rng.standard_normal(shape))
    scales = [scale] * len(shape) if isinstance(scale, int | float) else list(scale)
    for axis, (length, grain) in enumerate(zip(shape, scales, strict=True)):
        last = axis == len(shape) - 1
        frequency = np.fft.rfftfreq(length) if last else np.fft.fftfreq(length)
        response = np.exp(-2 * (np.pi * frequency * grain) ** 2)
        spectrum *= response.reshape([-1 if i == axis else 1 for i in range(len(shape))])
    field = np.fft.irfftn(spectrum, s=shape, axes=range(len(shape)))
    return np.asarray(field / field.std())


def inside(distance: np.ndarray, softness: float) -> np.ndarray:
    """1 where a signed distance is negative, 0 where positive, `softness` wide between."""
    return np.asarray(0.5 - 0.5 * np.tanh(distance / softness))


def blend(picture: np.ndarray, value: float | np.ndarray, weight: np.ndarray) -> np.ndarray:
    """`picture` where `weight` is 0, `value` where it is 1."""
    return picture + weight * (value - picture)


def _to_segment(
    points: Sequence[np.ndarray], start: np.ndarray, end: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Distance of each point to a segment, and how far along (0–1) its foot lies."""
    # Python floats keep float32 points float32.
    axis: list[float] = (end - start).tolist()
    offsets = [point - origin for point, origin in zip(points, start.tolist(), strict=True)]
    along = sum(offset * part for offset, part in zip(offsets, axis, strict=True))
    along = np.clip(along / sum(part**2 for part in axis), 0, 1)
    squares = ((offset - along * part) ** 2 for offset, part in zip(offsets, axis, strict=True))
    return np.sqrt(sum(squares)), np.asarray(along)


# ---- chest CT ----


def chest_ct(patient: np.random.Generator, scan: np.random.Generator, malignant: bool) -> ChestCT:
    """A chest phantom around a nodule, smooth if benign, spiculated if malignant.

    Parameters
    ----------
    patient : draws the build of the body; the same state gives the same body
    scan : draws the nodule, its vessels and the noise
    """
    build: list[float] = patient.uniform(0.92, 1.08, 3).tolist()
    side = float(scan.choice([-1, 1]))
    nodule = np.array([side * scan.uniform(58, 98), scan.uniform(-38, 38), scan.uniform(-60, 60)])
    offset = scan.uniform([-8, -8, -3], [8, 8, 3])
    half = (np.array(CT_SHAPE) - 1) / 2 * CT_SPACING
    origin = np.round(nodule + offset - half[::-1], 2)
    z, y, x = (
        (start + step * np.arange(count, dtype=np.float32))
        .astype(np.float32)
        .reshape([-1 if i == axis else 1 for i in range(3)])
        for axis, (start, step, count) in enumerate(
            zip(origin[::-1], CT_SPACING, CT_SHAPE, strict=True)
        )
    )
    hu = _thorax(x, y, z, build)
    hu = _vessels(hu, (x, y, z), scan, side)
    hu, diameter = _nodule(hu, (x, y, z), nodule, scan, malignant)
    # Reconstruction kernels correlate noise within a slice, not between slices.
    hu = hu + scan.uniform(14, 24) * smooth_noise(scan, CT_SHAPE, (0.01, 0.6, 0.6))
    return ChestCT(
        hu=np.clip(np.round(hu), -1024, 3071).astype(np.int16),
        origin_mm=(float(origin[0]), float(origin[1]), float(origin[2])),
        diameter_mm=diameter,
        nodule_slice=round(float(nodule[2] - origin[2]) / CT_SPACING[0]),
    )


def _ellipse(
    x: np.ndarray, y: np.ndarray, centre: tuple[float, float], axes: tuple[float, float]
) -> np.ndarray:
    """Signed distance to an ellipse in mm, exact along its axes."""
    radius = np.sqrt(((x - centre[0]) / axes[0]) ** 2 + ((y - centre[1]) / axes[1]) ** 2)
    return np.asarray((radius - 1) * min(axes))


def _thorax(x: np.ndarray, y: np.ndarray, z: np.ndarray, build: Sequence[float]) -> np.ndarray:
    """HU of trunk, lungs, mediastinum, spine and ribs at LPS coordinates."""
    wide, deep, heart = build
    taper = 1 - 0.0006 * z
    flat = np.zeros(np.broadcast_shapes(x.shape, y.shape, z.shape), dtype=np.float32)
    hu = blend(flat + _AIR, _FAT, inside(_ellipse(x, y, (0, 0), (172 * wide, 118 * deep)), 1))
    hu = blend(hu, _MUSCLE, inside(_ellipse(x, y, (0, 0), (158 * wide, 104 * deep)), 1))
    wall = _ellipse(x, y, (0, 0), (143 * wide, 92 * deep))
    # Ribs slope down to the front: each is a ring that y shifts along z.
    ring = np.abs(wall) - 4.5
    phase = np.abs((z + 0.45 * y + 0.12 * np.abs(x)) % 27 - 13.5) - 5
    rib = np.maximum(ring, phase)
    hu = blend(hu, _BONE, inside(rib, 1.2))
    hu = blend(hu, 180.0, inside(rib + 2.6, 1.2))
    for side in (-1, 1):
        lung = _ellipse(x / taper, y / taper, (side * 76 * wide, 2), (60 * wide, 84 * deep))
        hu = blend(hu, _LUNG + 0.25 * y, inside(np.maximum(lung, wall + 7), 1))
    hu = blend(
        hu, _BLOOD, inside(_ellipse(x, y + 0.25 * z, (24, -28), (46 * heart, 40 * heart)), 1.2)
    )
    hu = blend(hu, _BLOOD, inside(_ellipse(x, y, (22, 48), (13, 13)), 1))
    spine = _ellipse(x, y, (0, 62), (21, 17))
    hu = blend(hu, _BONE, inside(spine, 1))
    return blend(hu, 170.0, inside(spine + 3, 1))


def _vessels(
    hu: np.ndarray, points: Sequence[np.ndarray], rng: np.random.Generator, side: float
) -> np.ndarray:
    """Branches that run outwards from the hilum, thinner towards the pleura."""
    hilum = np.array([side * 32.0, 8.0, 0.0])
    lung = inside(hu + 700, 60)
    weight = np.zeros_like(hu)
    for _ in range(26):
        start = hilum + rng.uniform([0, -14, -45], [0, 14, 45])
        reach = rng.uniform(50, 105)
        direction = np.array([side * rng.uniform(0.35, 1), *rng.normal(0, 0.55, 2)])
        end = start + reach * direction / np.linalg.norm(direction)
        distance, along = _to_segment(points, start, end)
        weight = np.maximum(weight, inside(distance - (2.7 - 1.9 * along), 0.6))
    return blend(hu, _BLOOD, weight * lung)


def _nodule(
    hu: np.ndarray,
    points: Sequence[np.ndarray],
    centre: np.ndarray,
    rng: np.random.Generator,
    malignant: bool,
) -> tuple[np.ndarray, float]:
    """Add a nodule; returns the HU and the diameter in mm.

    Diameters of both kinds overlap. Benign nodules may be lobulated or hang on a
    vessel, some malignant ones have few and short spicules.
    """
    radius = rng.uniform(4.4, 8.6) if malignant else rng.uniform(4.0, 8.2)
    x, y, z = (axis - origin for axis, origin in zip(points, centre.tolist(), strict=True))
    distance = np.sqrt(x**2 + y**2 + z**2)
    lobes = np.zeros_like(hu)
    for vector in rng.normal(0, 1, (4, 3)):
        right, back, up = (vector / np.linalg.norm(vector)).tolist()
        cosine = (x * right + y * back + z * up) / np.maximum(distance, 1e-3)
        lobes += cosine * (4 * cosine**2 - 3)  # cos 3θ about a random axis
    lobulation = rng.uniform(0.12, 0.24) if malignant else rng.uniform(0.0, 0.06)
    surface = distance - radius * (1 + lobulation * lobes / 2)
    weight = inside(surface, rng.uniform(0.6, 1.3) if malignant else rng.uniform(0.5, 1.1))
    spikes = rng.integers(14, 30) if malignant else rng.integers(0, 3)
    for _ in range(spikes):
        direction = rng.normal(0, 1, 3) * (1, 1, 0.5)
        direction /= np.linalg.norm(direction)
        length = radius + (rng.uniform(4, 11) if malignant else rng.uniform(10, 22))
        spike, along = _to_segment(points, centre, centre + length * direction)
        width = 2.4 - 1.8 * along if malignant else 1.2
        weight = np.maximum(weight, inside(spike - width, 0.6) * 0.9)
    density = rng.uniform(5, 70)
    return blend(hu, np.maximum(hu, density), weight), 2 * radius


# ---- chest radiograph ----


def chest_radiograph(
    patient: np.random.Generator, scan: np.random.Generator, pneumonia: bool
) -> np.ndarray:
    """A frontal chest film: (128, 128) float in 0–1, dense tissue bright."""
    wide, tall, heart = patient.uniform(0.9, 1.1, 3)
    tilt = scan.normal(0, 0.03)
    grid = np.linspace(-1, 1, FLAT_SIZE)
    y, x = np.meshgrid(grid + scan.normal(0, 0.03), grid + scan.normal(0, 0.03), indexing="ij")
    x, y = x + tilt * y, y - tilt * x
    body = inside(np.abs(x) - 0.86 * wide + 0.25 * np.maximum(-y - 0.55, 0) ** 0.7, 0.03)
    film = body * (0.48 + 0.1 * np.sqrt(np.clip(1 - (x / wide) ** 2, 0, 1)))
    lungs = np.zeros_like(film)
    for side in (-1, 1):
        outline = ((x - side * 0.42 * wide) / 0.32) ** 2 + (np.clip(y + 0.05, -2, 0) / 0.72) ** 2
        outline = outline + (np.clip(y + 0.05, 0, 2) / 0.62) ** 4
        floor = y - (0.48 * tall - 0.35 * ((x - side * 0.4) ** 2) + 0.03 * side)
        lungs = np.maximum(lungs, inside(np.sqrt(outline) - 1, 0.06) * inside(floor, 0.02))
    film = film - 0.34 * lungs
    apex = np.sqrt(((x - 0.12 - 0.2 * (y - 0.2)) / (0.27 * heart)) ** 2 + ((y - 0.22) / 0.36) ** 2)
    film = blend(film, np.maximum(film, 0.52), 0.85 * inside(apex - 1, 0.08))
    film += 0.14 * inside(np.abs(x) - 0.1, 0.04) * body
    film += 0.025 * inside(np.abs(x) - 0.07, 0.02) * np.cos(y * 34) * body
    film += _ribs(x, y, wide) * body
    film += _lung_markings(scan, x, y) * lungs
    if pneumonia:
        film += _opacities(scan, x, y, wide) * lungs
    film = film * scan.uniform(0.92, 1.06) + scan.normal(0, 0.02)
    film += 0.012 * smooth_noise(scan, film.shape, 0.5)
    return np.asarray(np.clip(film + 0.03, 0, 1))


def _ribs(x: np.ndarray, y: np.ndarray, wide: float) -> np.ndarray:
    """Posterior ribs falling outwards, and two clavicles."""
    shadow = np.zeros_like(x)
    reach = np.abs(x) / wide
    for number in range(9):
        height = -0.78 + 0.165 * number
        arc = y - (height + 0.42 * (reach - 0.25) ** 2 + 0.05 * np.sin(3 * reach))
        shadow += 0.045 * inside(np.abs(arc) - 0.026, 0.012) * inside(reach - 0.78, 0.05)
    clavicle = y + 0.72 + 0.22 * (reach - 0.1)
    shadow += 0.06 * inside(np.abs(clavicle) - 0.03, 0.012) * inside(reach - 0.72, 0.05)
    return shadow


def _lung_markings(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Vessels that fan out from both hila."""
    shadow = np.zeros_like(x)
    strength = rng.uniform(0.04, 0.1)
    for side in (-1.0, 1.0):
        hilum = np.array([side * 0.17, 0.02])
        for _ in range(9):
            angle = rng.uniform(-1.3, 1.3)
            end = hilum + rng.uniform(0.25, 0.5) * np.array([side * np.cos(angle), np.sin(angle)])
            distance, along = _to_segment((x, y), hilum, end)
            vessel = (1 - 0.8 * along) * inside(distance - 0.022 * (1.2 - along), 0.02)
            shadow = np.maximum(shadow, strength * vessel)
    return shadow


def _opacities(rng: np.random.Generator, x: np.ndarray, y: np.ndarray, wide: float) -> np.ndarray:
    """One to three cloudy consolidations."""
    cloud = np.zeros_like(x)
    texture = 1 + 0.35 * smooth_noise(rng, x.shape, 4)
    for _ in range(rng.integers(1, 4)):
        centre = (rng.choice([-1, 1]) * rng.uniform(0.25, 0.55) * wide, rng.uniform(-0.45, 0.42))
        axes = rng.uniform(0.12, 0.32, 2)
        radius = ((x - centre[0]) / axes[0]) ** 2 + ((y - centre[1]) / axes[1]) ** 2
        cloud += rng.uniform(0.05, 0.17) * np.exp(-radius)
    return np.asarray(np.clip(cloud * texture, 0, 0.26))


# ---- endoscopy ----


def endoscopy(patient: np.random.Generator, scan: np.random.Generator, polyp: bool) -> np.ndarray:
    """A colonoscopy-like frame: (128, 128, 3) uint8 RGB, black outside the octagon."""
    mucosa = np.array([0.80, 0.42, 0.33]) + patient.normal(0, 0.035, 3)
    grid = np.linspace(-1, 1, FLAT_SIZE)
    y, x = np.meshgrid(grid, grid, indexing="ij")
    lumen = scan.uniform(-0.55, 0.55, 2)
    height = _wall_height(scan, x, y, lumen)
    if polyp:
        dome, redness = _polyp(scan, x, y, lumen)
        height = height + dome
    else:
        redness = np.zeros_like(x)
    gradient_y, gradient_x = np.gradient(height, grid, grid)
    normal = 1 / np.sqrt(1 + gradient_x**2 + gradient_y**2)
    slope = 0.5 * (gradient_x * 0.5 + gradient_y * 0.7) * normal
    depth = np.hypot(x - lumen[0], y - lumen[1])
    light = (0.25 + 0.75 * inside(0.3 - depth, 0.22)) * (0.45 + 0.5 * normal - 0.45 * slope)
    light = light * (1.12 - 0.28 * (x**2 + y**2)) * (1 + 0.03 * smooth_noise(scan, x.shape, 1.2))
    veins = np.clip(np.abs(smooth_noise(scan, x.shape, 7)), 0, 0.25) / 0.25
    tint = mucosa * (1 - np.array([0.02, 0.1, 0.08]) * (1 - veins)[..., None])
    tint = tint + redness[..., None] * np.array([0.08, -0.07, -0.03])
    colour = tint * light[..., None] * scan.uniform(1.15, 1.4)
    wet = normal * smooth_noise(scan, x.shape, 1.6) + 0.5 * (light - 0.6)
    glare = inside(2.55 - wet, 0.12) * (depth > 0.35)
    colour = blend(colour, 1.0, glare[..., None])
    octagon = np.maximum(np.maximum(np.abs(x), np.abs(y)) - 0.97, np.abs(x) + np.abs(y) - 1.55)
    colour = colour * inside(octagon, 0.012)[..., None]
    return np.asarray(np.round(255 * np.clip(colour, 0, 1)), dtype=np.uint8)


def _wall_height(
    rng: np.random.Generator, x: np.ndarray, y: np.ndarray, lumen: np.ndarray
) -> np.ndarray:
    """Relief of the wall towards the lens: folds that ring the lumen, and unevenness."""
    angle = np.arctan2(y - lumen[1], x - lumen[0])
    depth = np.hypot(x - lumen[0], y - lumen[1])
    wave = 0.12 * np.sin(3 * angle + rng.uniform(0, 6.28)) + 0.06 * smooth_noise(rng, x.shape, 12)
    height = np.zeros_like(x)
    for radius in np.cumsum(rng.uniform(0.28, 0.5, 4)):
        arc = np.clip(0.5 + np.cos(angle - rng.uniform(0, 6.28)), 0, 1)
        height += 0.09 * arc * np.exp(-(((depth - radius * (1 + wave)) / 0.07) ** 2))
    return height + 0.02 * smooth_noise(rng, x.shape, 9)


def _polyp(
    rng: np.random.Generator, x: np.ndarray, y: np.ndarray, lumen: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """A dome on the wall, away from the lumen: its height and its redness."""
    angle = rng.uniform(0, 2 * np.pi)
    away = -lumen / max(float(np.hypot(*lumen)), 0.3) * 0.3
    centre = away + rng.uniform(0.15, 0.5) * np.array([np.cos(angle), np.sin(angle)])
    axes = rng.uniform(0.2, 0.42, 2)
    turn = rng.uniform(0, np.pi)
    along = (x - centre[0]) * np.cos(turn) + (y - centre[1]) * np.sin(turn)
    across = (y - centre[1]) * np.cos(turn) - (x - centre[0]) * np.sin(turn)
    radius = np.hypot(along / axes[0], across / axes[1])
    radius = radius * (1 + 0.06 * smooth_noise(rng, x.shape, 8))
    # Steep at the rim, but not upright: a sphere that sinks into the wall.
    dome = rng.uniform(0.2, 0.4) * inside(radius - 0.8, 0.3) * (1.15 - 0.4 * radius**2 / 2)
    return dome, inside(radius - 0.95, 0.2) * rng.uniform(0.0, 1.0)
