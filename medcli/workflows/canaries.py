"""Pictures that never change: does the model still answer as on the day a gallery was built?

Drawn by arithmetic, so that no file and no random generator is involved.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from medcli.records import Scan

if TYPE_CHECKING:
    from medcli.inference.predictor import Predictor

_SIDE = 96


def canary_vectors(predictor: Predictor) -> dict[str, np.ndarray]:
    """The (D,) float32 vector of each canary."""
    return {scan.scan_id: predictor.embed(scan).vector for scan in _canaries()}


def _canaries() -> tuple[Scan, Scan, Scan]:
    """A grey picture, a colour picture and a CT of four slices."""
    x, y, z = np.meshgrid(np.arange(_SIDE), np.arange(_SIDE), np.arange(4), indexing="ij")
    grey = (x * 7 + y * 13 + x * y // 5)[:, :, 0] % 256
    color = np.stack([grey, grey.T, 255 - grey], axis=-1)
    rings = np.hypot(x - 40, y - 52) + 9 * z
    ct = np.moveaxis(np.where(rings < 30, 40, -850) + rings, 2, 0)
    return (
        _scan("canary-grey", grey[np.newaxis, :, :, np.newaxis].astype(np.uint8)),
        _scan("canary-color", color[np.newaxis].astype(np.uint8)),
        _scan("canary-ct", ct[..., np.newaxis].astype(np.float32)),
    )


def _scan(name: str, pixels: np.ndarray) -> Scan:
    """(S, H, W, C) `pixels` as a scan that comes from no file."""
    is_ct = len(pixels) > 1
    return Scan(
        pixels=pixels,
        path=name,
        files=(),
        slice_files=("",) * len(pixels),
        scan_id=name,
        format="dicom" if is_ct else "png",
        modality="CT" if is_ct else None,
        unit="HU" if is_ct else "display",
    )
