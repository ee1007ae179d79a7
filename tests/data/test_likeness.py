"""Copies that look alike: found however they were saved, turned or scaled, others never."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from medcli.data import likeness
from medcli.data.likeness import LIMIT, NEVER, SPARSE_LIMIT, Looks, look_of, near_copies, near_pairs
from medcli.imaging.resize import resample


def scene(seed: int, side: int = 96) -> np.ndarray:
    """(side, side) in 0–1 with structure at every scale, as pictures of the world have."""
    rng = np.random.default_rng(seed)
    spectrum = np.fft.fft2(rng.normal(size=(side, side)))
    steps = np.fft.fftfreq(side)
    spectrum /= np.maximum(np.hypot(steps[:, None], steps), 1 / side)
    picture = np.fft.ifft2(spectrum).real
    return np.asarray((picture - picture.min()) / np.ptp(picture))


def looks_of(*pictures: np.ndarray) -> Looks:
    return Looks.of([look_of(picture[None, None]) for picture in pictures])


def as_jpeg(picture: np.ndarray) -> np.ndarray:
    file = BytesIO()
    Image.fromarray(np.rint(picture * 255).astype(np.uint8)).save(file, "JPEG", quality=40)
    return np.asarray(Image.open(file)) / 255


COPIES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "saved as JPEG": as_jpeg,
    "half the size": lambda p: resample(p[None, :, :, None], 48, 48)[0, :, :, 0],
    "brighter": lambda p: np.clip(p * 1.1 + 0.05, 0, 1),
    "less contrast": lambda p: 0.3 + 0.4 * p,
    "noisy": lambda p: p + np.random.default_rng(9).normal(0, 0.02, p.shape),
    "mirrored": lambda p: p[:, ::-1],
    "upside down": lambda p: p[::-1],
    "turned": np.rot90,
    "turned back": lambda p: np.rot90(p, 3),
    "transposed": np.transpose,
}


@pytest.mark.parametrize("name", COPIES)
def test_a_copy_is_found_among_others(name: str) -> None:
    pictures = [scene(seed) for seed in range(20)]
    pairs = near_copies(looks_of(*pictures, COPIES[name](pictures[7])))
    assert list(pairs) == [(7, 20)]
    assert pairs.scores[0] >= LIMIT


def test_a_brightness_of_its_own_makes_no_copy() -> None:
    assert len(near_copies(looks_of(*(scene(seed) for seed in range(100))))) == 0


def test_bytes_and_fractions_look_the_same() -> None:
    levels = np.rint(scene(3) * 255).astype(np.uint8)[None, None]
    np.testing.assert_allclose(look_of(levels).vector, look_of(levels / 255).vector, atol=1e-5)


def test_a_look_is_the_cosine_transform_of_the_thumbnail_without_its_mean() -> None:
    from scipy.fft import dctn

    picture = scene(4, likeness.SIDE)
    steps = np.arange(likeness.KEPT)
    wanted = dctn(picture, norm="ortho")[: len(steps), : len(steps)]
    wanted = (wanted * np.hypot(steps[:, None], steps)).ravel()
    found = look_of(picture[None, None]).vector
    np.testing.assert_allclose(found, wanted / np.linalg.norm(wanted), atol=1e-5)


def test_blocks_and_rough_coordinates_rule_out_no_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(300, 100)).astype(np.float32)
    vectors[150:] = vectors[:150] + rng.normal(0, 0.3, (150, 100))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    limits = np.linspace(0.9, 0.99, 300).astype(np.float32)
    monkeypatch.setattr(likeness, "_ROWS", 32)
    monkeypatch.setattr(likeness, "_COLUMNS", 50)
    monkeypatch.setattr(likeness, "_ROUGH", 7)
    cosines = vectors @ vectors.T
    wanted = np.argwhere(np.triu(cosines >= np.maximum.outer(limits, limits), 1))
    found = near_pairs(vectors, limits)
    order = np.lexsort(found.places.T[::-1])
    assert 20 < len(wanted) < 140
    np.testing.assert_array_equal(found.places[order], wanted)
    np.testing.assert_allclose(found.scores[order], cosines[tuple(wanted.T)], atol=1e-6)


def test_little_on_an_empty_background_needs_to_be_closer() -> None:
    small = np.zeros((64, 64))
    small[28:36, 28:36] = scene(1)[:8, :8]
    assert look_of(small[None, None]).limit == SPARSE_LIMIT
    assert look_of(scene(1)[None, None]).limit == LIMIT


def test_even_pictures_are_never_copies() -> None:
    even = np.full((1, 1, 40, 40), 0.3)
    assert look_of(even).limit == NEVER
    assert len(near_copies(Looks.of([look_of(even), look_of(even)]))) == 0


def test_no_scans_make_no_pairs() -> None:
    assert len(near_copies(Looks.of([]))) == 0
