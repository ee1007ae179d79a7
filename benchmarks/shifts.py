"""Changes of pictures that a model did not see in training: recipes with seeds, no pictures.

A recipe takes (S, H, W, C) values in 0–1 and a generator, and gives the same shape. All slices
of a scan change alike. Sizes in pixels are those of the pictures as published (224 px).
The names are stable: a change of a recipe gets a new name, or old figures lie.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from medcli.imaging.resize import resample

Recipe = Callable[[np.ndarray, np.random.Generator], np.ndarray]
DYES = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])


def shifted(task: str, name: str, pixels: np.ndarray, seed: int) -> np.ndarray:
    """(S, H, W, C) uint8 → the same, changed by a recipe of the task."""
    changed = RECIPES[task][name](pixels / 255, np.random.default_rng(seed))
    return np.asarray(np.rint(np.clip(changed, 0, 1) * 255).astype(np.uint8))


def gamma(exponent: float) -> Recipe:
    """Values to a power: above 1 darker, below 1 brighter."""
    return lambda images, rng: images**exponent


def window(low: float, high: float) -> Recipe:
    """The values between two percentiles become 0 and 1; beyond 0–100 the picture pales."""

    def change(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        ends = np.percentile(images, [1, 99])
        start, end = (ends[0] + (ends[1] - ends[0]) * edge / 100 for edge in (low, high))
        return np.asarray((images - start) / max(end - start, 1e-3))

    return change


def inverted(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Black for white, as where MONOCHROME1 was saved without a word."""
    return 1 - images


def brightness(step: float) -> Recipe:
    """Added to every value above black."""
    return lambda images, rng: np.where(images > 0, images + step, 0)


def blur(sigma: float) -> Recipe:
    """A Gaussian, standard deviation in pixels."""
    return lambda images, rng: gaussian_filter(images, (0, sigma, sigma, 0))


def noise(deviation: float, grain: float = 0.0) -> Recipe:
    """Normal noise; `grain` is the width in pixels over which it hangs together."""

    def change(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        field = rng.normal(size=(1, *images.shape[1:3], 1))
        if grain:
            field = gaussian_filter(field, (0, grain, grain, 0))
        return np.asarray(images + deviation * field / field.std())

    return change


def crop(share: float) -> Recipe:
    """A square of `share` of the side at a place of its own, enlarged to the whole."""

    def change(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        height, width = images.shape[1:3]
        rows, columns = round(height * share), round(width * share)
        top, left = rng.integers(height - rows + 1), rng.integers(width - columns + 1)
        return resample(images[:, top : top + rows, left : left + columns], height, width)

    return change


def far(share: float) -> Recipe:
    """The picture reduced to `share` of the side, on black: a wider field."""

    def change(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        height, width = images.shape[1:3]
        rows, columns = round(height * share), round(width * share)
        result = np.zeros_like(images)
        top, left = rng.integers(height - rows + 1), rng.integers(width - columns + 1)
        result[:, top : top + rows, left : left + columns] = resample(images, rows, columns)
        return result

    return change


def resolution(side: int) -> Recipe:
    """Reduced to `side` px and enlarged again."""
    return lambda images, rng: resample(resample(images, side, side), *images.shape[1:3])


def squeezed(factor: float) -> Recipe:
    """The middle of the picture, wider by `factor`: another shape of film."""

    def change(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        height, width = images.shape[1:3]
        kept = round(width / factor)
        left = (width - kept) // 2
        return resample(images[:, :, left : left + kept], height, width)

    return change


def jpeg(quality: int) -> Recipe:
    """Saved as JPEG and read again, slice by slice."""

    def change(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        result = np.empty_like(images)
        for place, image in enumerate(np.rint(images * 255).astype(np.uint8)):
            stream = io.BytesIO()
            Image.fromarray(image.squeeze()).save(stream, "JPEG", quality=quality)
            result[place] = np.asarray(Image.open(stream)).reshape(image.shape) / 255
        return result

    return change


def stain(first: float, second: float) -> Recipe:
    """Absorbance of haematoxylin and of eosin times a factor each (Ruifrok, Johnston 2001)."""

    def change(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        amounts = -np.log(np.clip(images, 1 / 255, 1)) @ np.linalg.inv(DYES)
        return np.asarray(np.exp(-(amounts * (first, second, 1.0)) @ DYES))

    return change


def colour(degrees: float = 0.0, saturation: float = 1.0) -> Recipe:
    """Hue turned in the plane of equal luma; distance from grey times `saturation`."""
    angle = np.deg2rad(degrees)
    cos, sin = saturation * np.cos(angle), saturation * np.sin(angle)
    turn = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
    mix = np.linalg.inv(YIQ) @ turn @ YIQ
    return lambda images, rng: images @ mix.T


def after(*recipes: Recipe) -> Recipe:
    """One after the other."""

    def change(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        for recipe in recipes:
            images = np.clip(recipe(images, rng), 0, 1)
        return images

    return change


def unchanged(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """As published."""
    return images


_INTENSITY: Mapping[str, Recipe] = {
    "gamma 0.5": gamma(0.5),
    "gamma 2": gamma(2.0),
    "narrow window 20–80 %": window(20, 80),
    "wide window −50–150 %": window(-50, 150),
}
_SCANNER: Mapping[str, Recipe] = {
    "blur 2 px": blur(2.0),
    "noise 0.08": noise(0.08),
    "grain 0.08, 2 px": noise(0.08, 2.0),
    "resolution 56 px": resolution(56),
    "JPEG quality 10": jpeg(10),
}
RECIPES: Mapping[str, Mapping[str, Recipe]] = {
    "lung": {
        "none": unchanged,
        **_INTENSITY,
        "dark window 40–100 %": window(40, 100),
        "bright window 0–60 %": window(0, 60),
        **_SCANNER,
        "crop 80 %": crop(0.8),
        "field 125 %": far(0.8),
        "wider by 1.25": squeezed(1.25),
        "old apparatus": after(gamma(1.5), blur(1.2), noise(0.05, 1.0), crop(0.9)),
        "inverted": inverted,
    },
    "gi": {
        "none": unchanged,
        "hue −15°": colour(-15),
        "hue +15°": colour(15),
        "hue +30°": colour(30),
        "saturation 0.5": colour(saturation=0.5),
        "saturation 1.6": colour(saturation=1.6),
        "brightness −0.15": brightness(-0.15),
        "brightness +0.15": brightness(0.15),
        "haematoxylin 0.6": stain(0.6, 1.0),
        "haematoxylin 1.5": stain(1.5, 1.0),
        "eosin 0.6": stain(1.0, 0.6),
        "eosin 1.5": stain(1.0, 1.5),
        **_SCANNER,
        "crop 80 %": crop(0.8),
    },
    "nodule": {
        "none": unchanged,
        "gamma 0.7": gamma(0.7),
        "gamma 1.4": gamma(1.4),
        "brightness −0.05": brightness(-0.05),
        "brightness +0.05": brightness(0.05),
        "resolution 32 px": resolution(32),
        "JPEG quality 30": jpeg(30),
    },
}
