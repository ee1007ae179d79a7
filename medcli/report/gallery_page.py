"""The page of `medcli report GALLERY`: what a gallery holds, with a look at each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from medcli.report.cards import N_CLASS_COLOURS, Share, percent
from medcli.report.pages import render
from medcli.report.pictures import data_uri


@dataclass(frozen=True, slots=True)
class StoredPicture:
    """One stored scan: its id, what it is called, its picture (JPEG) or None."""

    id: int
    name: str
    modality: str | None
    slices: int
    patient: str | None
    picture: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class _Tile:
    id: int
    name: str
    picture: str | None
    alt: str
    facts: tuple[tuple[str, str], ...]


def gallery_page(
    info: Mapping[str, Any],
    samples: Mapping[str | None, Sequence[StoredPicture]],
    *,
    model: Sequence[tuple[str, str]],
    notes: Sequence[str] = (),
    synthetic: bool = False,
    hide_paths: bool = False,
    created: datetime | None = None,
) -> str:
    """One HTML file without external assets or scripts.

    Parameters
    ----------
    info : as `Gallery.info` gives it
    samples : some scans of each label; None: of those without one
    model : (name, value) of the gallery's model
    notes : what is amiss
    """
    counts = {**info["classes"], **({None: info["unlabelled"]} if info["unlabelled"] else {})}
    facts = [
        ("Gallery", None if hide_paths else info["path"]),
        ("Generation", str(info["generation"])),
        *model,
        ("Built", str(info["created"])[:19].replace("T", " ")),
        ("Made", created.isoformat(" ", "minutes") if created else None),
    ]
    return render(
        "gallery.html.j2",
        title="Gallery report",
        synthetic=synthetic,
        facts=[(name, value) for name, value in facts if value],
        notes=notes,
        tiles=_tiles(info),
        classes=_shares(counts, info["scans"]),
        modalities=_shares(info["modalities"], info["scans"]),
        groups=[
            (
                label,
                number % N_CLASS_COLOURS,
                counts.get(label, 0),
                list(map(_tile, samples[label])),
            )
            for number, label in enumerate(samples)
        ],
    )


def _tiles(info: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """The numbers at the top: (name, value, what it rests on)."""
    unknown = info["unknown_patients"]
    return [
        ("Scans", str(info["scans"]), f"{info['slices']} slices"),
        ("Patients", str(info["patients"]), f"{unknown} scans of unknown ones"),
        ("Vectors", str(info["vectors"]), f"{info['dim']} numbers each"),
        ("Size", _size(info["bytes"]), "on disk, the model's copy included"),
    ]


def _shares(counts: Mapping[str | None, int], total: int) -> list[Share]:
    """Each value with its part of all scans."""
    return [
        Share(
            name or "no label",
            number % N_CLASS_COLOURS,
            count / max(1, total),
            f"{count}, {percent(count / max(1, total))}",
        )
        for number, (name, count) in enumerate(counts.items())
    ]


def _tile(stored: StoredPicture) -> _Tile:
    facts = {
        "Modality": stored.modality,
        "Slices": str(stored.slices) if stored.slices > 1 else None,
        "Patient": stored.patient and stored.patient[:8],
    }
    return _Tile(
        id=stored.id,
        name=stored.name,
        picture=data_uri(stored.picture) if stored.picture else None,
        alt=f"Scan {stored.id}",
        facts=tuple((name, value) for name, value in facts.items() if value),
    )


def _size(count: int) -> str:
    """1234567 → "1.2 MB"."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            break
        size /= 1000
    return f"{size:.0f} {unit}" if size >= 10 or unit == "B" else f"{size:.1f} {unit}"
