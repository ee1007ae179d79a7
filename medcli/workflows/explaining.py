"""A heat map as a picture to look at, or in the geometry of its scan."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medcli.config import Window
from medcli.errors import UsageError
from medcli.imaging.display import display_slices
from medcli.imaging.nifti_writer import write_nifti
from medcli.imaging.resize import resample
from medcli.records import Scan
from medcli.report.contact_sheet import Panel, contact_sheet
from medcli.report.heat import overlay, share_bars

if TYPE_CHECKING:
    from medcli.explain.explainer import Explanation

MOST_SLICES = 10
"""So many slices of a volume are drawn, those with the largest share of the heat."""
_PICTURE, _SLICE, _COLUMNS, _BARS = 448, 208, 5, 56  # pixels; columns of slices

PICTURES, VOLUMES = (".png",), (".nii", ".nii.gz")


def output_kind(path: Path) -> str:
    """The ending that says how a heat map is written.

    Raises
    ------
    UsageError : any other ending
    """
    for ending in (*PICTURES, *VOLUMES):
        if path.name.lower().endswith(ending):
            return ending
    raise UsageError(
        f"{path.name}: a heat map is written as {', '.join((*PICTURES, *VOLUMES))}",
        "Name the output accordingly",
    )


def explanation_picture(
    scan: Scan, explanation: Explanation, title: str, window: Window | None = None
) -> bytes:
    """A PNG: the slices without and with the heat; for volumes the share of every slice.

    Parameters
    ----------
    title : stands above the pictures
    window : (center, width) in the scan's unit; by default as in `inspect --preview`
    """
    facts = f"{explanation.method}: what speaks for {explanation.label}"
    if explanation.label != explanation.predicted:
        facts += f" (predicted: {explanation.predicted})"
    if explanation.empty:
        facts += "; nothing does"
    if len(explanation.slices) == 1:
        plain, heated = _drawn(scan, explanation, [0], _PICTURE, window)
        panel = Panel(title, facts, (*plain, *heated), ("", ""))
        return contact_sheet([panel], columns=2, side=_PICTURE)
    shown = np.sort(np.argsort(-explanation.shares, kind="stable")[:MOST_SLICES])
    _, heated = _drawn(scan, explanation, shown.tolist(), _SLICE, window)
    captions = [
        f"{explanation.slices[i]}: {100 * explanation.shares[i]:.0f} %" for i in shown.tolist()
    ]
    marked = np.isin(np.arange(len(explanation.slices)), shown)
    bars = share_bars(explanation.shares, _COLUMNS * _SLICE, _BARS, marked)
    panel = Panel(title, facts, heated, captions, below=bars)
    return contact_sheet([panel], columns=_COLUMNS, side=_SLICE)


def _drawn(
    scan: Scan, explanation: Explanation, rows: list[int], side: int, window: Window | None
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Some of the explained slices without and with their heat."""
    numbers = explanation.slices[rows].tolist()
    plain = list(display_slices(scan, numbers, window=window, edge=side))
    heated = []
    for picture, row in zip(plain, rows, strict=True):
        heat = resample(explanation.heat[row][None, ..., None], *picture.shape[:2])[0, ..., 0]
        heated.append(overlay(picture, heat))
    return plain, heated


def write_heat(path: Path, scan: Scan, explanation: Explanation) -> None:
    """Write the heat in the scan's own geometry as NIfTI, 0–1; between slices it is linear."""
    every = np.arange(len(scan.pixels))
    after = np.clip(np.searchsorted(explanation.slices, every), 0, len(explanation.slices) - 1)
    before = np.clip(after - (explanation.slices[after] > every), 0, None)
    gap = np.maximum(explanation.slices[after] - explanation.slices[before], 1)
    share = ((every - explanation.slices[before]) / gap)[:, None, None]
    heat = explanation.heat[before] * (1 - share) + explanation.heat[after] * share
    write_nifti(path, replace(scan, pixels=heat[..., None].astype(np.float32)))
