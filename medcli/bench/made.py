"""Synthetic scans that are measured: the same from each seed, of no patient."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np

SIDE = 512  # pixels
SEED = 0


def picture_pixels(count: int, seed: int = SEED) -> Iterator[np.ndarray]:
    """`count` times (512, 512) uint8: a soft spot and the noise of a film, no two alike."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:SIDE, :SIDE] / SIDE - 0.5
    for _ in range(count):
        y, x = rng.uniform(-0.2, 0.2, 2)
        spot = 180 * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 0.05)
        yield (20 + spot + rng.normal(0, 6, (SIDE, SIDE))).clip(0, 255).astype(np.uint8)


def write_pictures(folder: Path, count: int, suffix: Literal["png", "jpg"] = "png") -> list[str]:
    """So many grey pictures as PNG or JPEG."""
    from medcli.imaging.png_writer import write_png
    from medcli.report.pictures import encode_jpeg

    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:05}.{suffix}" for number in range(count)]
    for path, pixels in zip(paths, picture_pixels(count), strict=True):
        if suffix == "png":
            write_png(path, pixels)
        else:
            path.write_bytes(encode_jpeg(pixels))
    return list(map(str, paths))


def write_ct_slices(folder: Path, count: int) -> list[str]:
    """So many uncompressed CT slices of 12 bits in HU, each a series of its own."""
    from medcli.data.sample_files import write_ct_slice

    paths = [folder / f"{number:05}.dcm" for number in range(count)]
    for number, (path, pixels) in enumerate(zip(paths, picture_pixels(count), strict=True)):
        hu = pixels[np.newaxis].astype(np.int16) * 8 - 1024
        key = (f"BENCH-{number}", f"bench {number}")
        write_ct_slice(path, hu, 0, (0.0, 0.0, 0.0), (1.0, 0.1, 0.1), key)
    return list(map(str, paths))
