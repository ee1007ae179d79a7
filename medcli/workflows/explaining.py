"""A heat map as a picture to look at, or in the geometry of its scan."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medcli.config import Window
from medcli.errors import UsageError
from medcli.files import write_file
from medcli.imaging.display import display_slices
from medcli.imaging.formats import OWN_DESCRIPTION
from medcli.imaging.nifti_writer import write_nifti
from medcli.imaging.resize import resample
from medcli.records import Scan
from medcli.report.contact_sheet import Panel, drawn_sheet
from medcli.report.heat import overlay, share_bars
from medcli.report.pictures import encode_png

if TYPE_CHECKING:
    from medcli.explain.explainer import Explanation

MOST_SLICES = 10
"""So many slices of a volume are drawn, those with the largest share of the heat."""
_PICTURE, _SLICE, _COLUMNS, _BARS = 448, 208, 5, 56  # pixels; columns of slices

PICTURES, VOLUMES, CAPTURES = (".png",), (".nii", ".nii.gz"), (".dcm",)
_ENDINGS = (*PICTURES, *VOLUMES, *CAPTURES)


def output_kind(path: Path) -> str:
    """The ending that says how a heat map is written.

    Raises
    ------
    UsageError : any other ending
    """
    for ending in _ENDINGS:
        if path.name.lower().endswith(ending):
            return ending
    raise UsageError(
        f"{path.name}: a heat map is written as {', '.join(_ENDINGS)}",
        "Name the output accordingly",
    )


def check_output(path: Path) -> None:
    """Refuse, before any work, an output that cannot be written.

    Raises
    ------
    UsageError : as `output_kind`, or .dcm without highdicom
    """
    if output_kind(path) in CAPTURES:
        from medcli.imaging.dicom_derived import check_extra

        check_extra()


def explanation_picture(
    scan: Scan, explanation: Explanation, title: str, window: Window | None = None
) -> bytes:
    """What `explanation_sheet` draws, as a PNG."""
    return encode_png(explanation_sheet(scan, explanation, title, window))


def explanation_sheet(
    scan: Scan, explanation: Explanation, title: str, window: Window | None = None
) -> np.ndarray:
    """The slices without and with the heat; for volumes the share of every slice: (h, w, 3) uint8.

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
        return drawn_sheet([panel], columns=2, side=_PICTURE)
    shown = np.sort(np.argsort(-explanation.shares, kind="stable")[:MOST_SLICES])
    _, heated = _drawn(scan, explanation, shown.tolist(), _SLICE, window)
    captions = [
        f"{explanation.slices[i]}: {100 * explanation.shares[i]:.0f} %" for i in shown.tolist()
    ]
    marked = np.isin(np.arange(len(explanation.slices)), shown)
    bars = share_bars(explanation.shares, _COLUMNS * _SLICE, _BARS, marked)
    panel = Panel(title, facts, heated, captions, below=bars)
    return drawn_sheet([panel], columns=_COLUMNS, side=_SLICE)


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


def hottest_pictures(
    scan: Scan, explanation: Explanation, title: str, window: Window | None = None
) -> list[tuple[str, np.ndarray]]:
    """The slice with the largest share without and with its heat, named, for a terminal."""
    best = int(explanation.shares.argmax())
    plain, heated = _drawn(scan, explanation, [best], _SLICE, window)
    number = f"{explanation.slices[best]} " if len(explanation.slices) > 1 else ""
    return [(f"{number}{title}", plain[0]), (f"{number}{explanation.label}", heated[0])]


def write_explanation(
    path: Path,
    scan: Scan,
    explanation: Explanation,
    *,
    title: str,
    fingerprint: str,
    window: Window | None = None,
) -> None:
    """Write a heat map as picture, volume or DICOM, by the ending of `path`.

    Parameters
    ----------
    title : stands above a picture; a DICOM object has none, as a path may name a patient
    fingerprint : of the model, for a DICOM object

    Raises
    ------
    UsageError : another ending; or .dcm without highdicom or of a scan that is no DICOM
    """
    kind = output_kind(path)
    if kind in PICTURES:
        write_file(path, explanation_picture(scan, explanation, title, window))
    elif kind in VOLUMES:
        write_heat(path, scan, explanation)
    else:
        from medcli.imaging.dicom_capture import write_capture

        write_capture(
            path,
            scan,
            explanation_sheet(scan, explanation, "medcli, research use", window),
            description=f"medcli {explanation.method}: {explanation.label}",
            fingerprint=fingerprint,
        )


def write_heat(path: Path, scan: Scan, explanation: Explanation) -> None:
    """Write the heat in the scan's own geometry as NIfTI, 0–1; between slices it is linear."""
    heat = heat_at(explanation, np.arange(len(scan.pixels)))
    drawn = replace(scan, pixels=heat[..., None].astype(np.float32))
    write_nifti(path, drawn, OWN_DESCRIPTION)


def heat_at(explanation: Explanation, numbers: np.ndarray) -> np.ndarray:
    """(N, H, W) the heat at N slices of the scan: linear between those that the model saw."""
    seen = explanation.slices
    after = np.clip(np.searchsorted(seen, numbers), 0, len(seen) - 1)
    before = np.clip(after - (seen[after] > numbers), 0, None)
    gap = np.maximum(seen[after] - seen[before], 1)
    share = ((numbers - seen[before]) / gap)[:, None, None]
    heat: np.ndarray = explanation.heat[before] * (1 - share) + explanation.heat[after] * share
    return heat
