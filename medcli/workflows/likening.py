"""Pictures of queries and hits with the regions that made them alike; loads torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from medcli.explain.explainer import in_scan
from medcli.explain.likeness import likeness
from medcli.imaging.batch import read_all
from medcli.imaging.preprocess import Preprocessor
from medcli.imaging.resize import resample
from medcli.models.weights import load_model
from medcli.records import Scan
from medcli.report.heat import overlay
from medcli.report.pictures import encode_jpeg
from medcli.workflows.picturing import Pictures, pictures_of, pixels_of, read_hit

if TYPE_CHECKING:
    from medcli.models.package import ModelPackage
    from medcli.retrieval.gallery import Gallery
    from medcli.workflows.searching import Answer


def alike_pictures(
    gallery: Gallery,
    package: ModelPackage,
    answers: Sequence[Answer],
    on_missing: Callable[[str, int], None] = lambda query, hits: None,
) -> Pictures:
    """What `pictures_of` draws, with heat over what made query and hit alike.

    A hit shows its own regions; the query shows those that it shares with its first hit. Two
    slices are compared: those that matched, of whole scans the middle ones. A hit whose file is
    gone or another stays without heat, and so does a query that is a stored scan.

    Parameters
    ----------
    on_missing : called with a query and how many of its hits have no heat

    Raises
    ------
    UsageError : the model knows no slices
    """
    made = pictures_of(gallery, package, answers)
    model, preprocessor = load_model(package), Preprocessor(package.preprocess)

    def image(scan: Scan, number: int) -> torch.Tensor:
        return torch.from_numpy(preprocessor.model_input(scan, slices=[number]))[0]

    for answer in answers:
        name, query = answer.result.query, _query(answer)
        gone = 0
        for hit in answer.result.hits:
            stored = read_hit(gallery, hit)
            if query is None or stored is None:
                gone += 1
                continue
            maps = likeness(model, image(*query), image(*stored))
            size = package.preprocess.size
            heats = [
                _heat(one, size, scan) for one, (scan, _) in zip(maps, (query, stored), strict=True)
            ]
            key = (name, hit.id, hit.slice)
            if key in made.hits:
                made.hits[key] = _heated(made.hits[key], heats[1])
            if hit.rank == 1 and name in made.queries:
                made.queries[name] = _heated(made.queries[name], heats[0])
        if gone:
            on_missing(name, gone)
    return made


def _query(answer: Answer) -> tuple[Scan, int] | None:
    """The scan that was asked with, and its slice that matched; None for a stored scan."""
    if answer.case is None:
        return None
    ((_, scan),) = read_all([answer.case])
    if not isinstance(scan, Scan):
        return None
    number = answer.result.query_slice
    return scan, len(scan.pixels) // 2 if number is None else number


def _heat(shares: torch.Tensor, size: int, scan: Scan) -> np.ndarray:
    """(h, w) parts of a cosine → (H, W) in 0–1: what speaks for likeness."""
    heat = in_scan(shares.relu()[None], 1, size, scan)[0]
    highest = float(heat.max())
    scaled: np.ndarray = heat / highest if highest > 0 else heat
    return scaled


def _heated(picture: bytes, heat: np.ndarray) -> bytes:
    pixels = pixels_of(picture)
    fitted = resample(heat[None, ..., None], *pixels.shape[:2])[0, ..., 0]
    return encode_jpeg(overlay(pixels, fitted))
