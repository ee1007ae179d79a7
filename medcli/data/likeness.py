"""Pictures that are copies of each other though their bytes differ: arrays in, pairs out.

A copy that was saved again as JPEG, made smaller, brightened, turned or mirrored has other
pixels and the same structure. Each scan is described by the cosine transform of a thumbnail,
coarse structure weighing less than fine one, since films of two people share the coarse one.
docs/data.md says how the limits were measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from medcli.imaging.preprocess import LUMA
from medcli.imaging.resize import triangle_weights

SIDE = 64  # of the thumbnail
KEPT = 24  # frequencies in each direction
LIMIT = 0.96  # cosine from which two scans are copies
SPARSE_LIMIT = 0.995  # where little stands on an empty background, shapes are alike by nature
SPARSE = 0.25  # share of a picture that differs from its background; below it is sparse
NEVER = 2.0  # the limit of an even picture, which is like any other
MANY = 20_000  # scans up to which mirrored and turned copies are looked for
_FAINT = 0.02  # differences from the background below this are none
_ROUGH = 64  # coordinates that a pair is judged by before all are looked at
_ROWS, _COLUMNS = 512, 4096  # of a block of products, which stays in the cache
_ROUNDING = 1e-5


@dataclass(frozen=True, slots=True)
class Looks:
    """What N scans look like.

    Attributes
    ----------
    vectors : (N, KEPT²) float32 of unit length, 0 for an even picture
    limits : (N,) float32, the cosine from which another scan is a copy of this one
    """

    vectors: np.ndarray
    limits: np.ndarray

    @classmethod
    def of(cls, looks: Sequence[Look]) -> Looks:
        """Those of many scans together."""
        return cls(
            np.array([each.vector for each in looks], np.float32).reshape(len(looks), KEPT**2),
            np.array([each.limit for each in looks], np.float32),
        )


@dataclass(frozen=True, slots=True)
class Look:
    """What one scan looks like: a row of `Looks`."""

    vector: np.ndarray
    limit: float


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pairs of positions, the first below the second, each once.

    Attributes
    ----------
    places : (P, 2) int64, ascending
    scores : (P,) float32 cosines, higher is more alike
    """

    places: np.ndarray
    scores: np.ndarray

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter([(int(first), int(second)) for first, second in self.places])

    def __len__(self) -> int:
        return len(self.places)


def look_of(images: np.ndarray) -> Look:
    """Describe a scan by the mean of its slices.

    Parameters
    ----------
    images : (S, C, H, W), C is 1 or 3, in 0–1 or uint8
    """
    mean = images.mean(axis=0, dtype=np.float32)  # (C, H, W)
    if images.dtype == np.uint8:
        mean /= 255
    grey = mean[0] if len(mean) == 1 else np.tensordot(np.array(LUMA, np.float32), mean, 1)
    rows, columns = (triangle_weights(side, SIDE) for side in grey.shape)
    thumbnail = rows @ grey @ columns.T
    basis, weights = _cosines()
    vector = ((basis @ thumbnail @ basis.T) * weights).ravel()
    length = float(np.linalg.norm(vector))
    covered = float((np.abs(thumbnail - np.median(thumbnail)) > _FAINT).mean())
    if length < _FAINT or covered == 0:
        return Look(np.zeros_like(vector), NEVER)
    return Look(vector / length, LIMIT if covered >= SPARSE else SPARSE_LIMIT)


def near_copies(looks: Looks, slack: float = 1.0) -> Pairs:
    """Pairs of scans that look alike as they are, mirrored or turned by quarters.

    Of more than `MANY` scans only as they are: the time grows with the square of their number.

    Parameters
    ----------
    slack : factor on the distance that copies may have; above 1 more pairs are copies
    """
    limits = np.where(looks.limits < NEVER, 1 - slack * (1 - looks.limits), NEVER)
    best: dict[tuple[int, int], float] = {}
    all_ways = len(looks.vectors) <= MANY
    for turned in _orientations(looks.vectors) if all_ways else [looks.vectors]:
        found = near_pairs(looks.vectors, limits.astype(np.float32), turned)
        for pair, score in zip(found, found.scores, strict=True):
            best[pair] = max(best.get(pair, -1.0), float(score))
    order = sorted(best)
    return Pairs(
        np.array(order, np.int64).reshape(len(order), 2),
        np.array([best[pair] for pair in order], np.float32),
    )


def near_pairs(vectors: np.ndarray, limits: np.ndarray, others: np.ndarray | None = None) -> Pairs:
    """All pairs i < j for which the cosine of vectors[i] and others[j] reaches both limits.

    Every pair is looked at, in blocks, so memory stays bounded. Most are ruled out by a few
    coordinates alone: the distance in some of them is no more than the distance in all.

    Parameters
    ----------
    vectors : (N, F) float32 of unit length
    limits : (N,) cosines
    others : (N, F), by default `vectors`
    """
    others = vectors if others is None else others
    rough = np.argsort(-(vectors**2).sum(axis=0), kind="stable")[:_ROUGH]
    few, other_few = _judged(vectors[:, rough], limits), _judged(others[:, rough])
    places, scores = [np.empty((0, 2), np.int64)], [np.empty(0, np.float32)]
    for top, left in _blocks(len(vectors)):
        products = few[top : top + _ROWS] @ other_few[left : left + _COLUMNS].T
        rows = np.flatnonzero(products.max(axis=1) >= 0)  # few have a neighbour at all
        first, second = np.nonzero(products[rows] >= 0)
        first, second = rows[first] + top, second + left
        kept = first < second
        for part in np.array_split(np.flatnonzero(kept), kept.sum() // _COLUMNS + 1):
            a, b = first[part], second[part]
            cosines = np.einsum("nf,nf->n", vectors[a], others[b])
            near = cosines >= np.maximum(limits[a], limits[b])
            places.append(np.stack([a[near], b[near]], axis=1))
            scores.append(cosines[near])
    return Pairs(np.concatenate(places), np.concatenate(scores))


def _judged(few: np.ndarray, limits: np.ndarray | None = None) -> np.ndarray:
    """(N, R) coordinates → (N, R + 2), such that products of two say whether both are near.

    a·b - (|a|² + |b|² - farthest)/2 is 0 or more where the squared distance is at most
    `farthest`, which at the limit is 2 - 2·limit. Only the first of two brings a limit.
    """
    half = (few**2).sum(axis=1, keepdims=True) / 2
    one = np.ones_like(half)
    if limits is None:
        return np.hstack([few, -half, one])
    return np.hstack([few, one, (1 - limits)[:, None] + _ROUNDING - half])


def _blocks(count: int) -> Iterator[tuple[int, int]]:
    """First row and first column of the blocks in which a pair i < j can stand."""
    for top in range(0, count, _ROWS):
        for left in range(top, count, _COLUMNS):
            yield top, left


@lru_cache(maxsize=1)
def _cosines() -> tuple[np.ndarray, np.ndarray]:
    """(KEPT, SIDE) orthonormal DCT-II basis; (KEPT, KEPT) weights, those of frequency 0 zero.

    Natural pictures have amplitudes that fall as 1/f; times f, each frequency counts.
    """
    steps = np.arange(KEPT)
    angles = np.pi * (np.arange(SIDE) + 0.5) / SIDE
    basis = np.cos(steps[:, None] * angles) * np.sqrt(2 / SIDE)
    basis[0] /= np.sqrt(2)
    weights = np.hypot(steps[:, None], steps)
    return basis.astype(np.float32), weights.astype(np.float32)


def _orientations(vectors: np.ndarray) -> Iterator[np.ndarray]:
    """The vectors of the scans in the eight orientations of a square, as they are first.

    Mirrored, the odd frequencies of a cosine transform change their sign; on the other
    diagonal, rows and columns change places.
    """
    grid = vectors.reshape(-1, KEPT, KEPT)
    sign = np.where(np.arange(KEPT) % 2, -1, 1).astype(np.float32)
    for turned in (grid, grid.transpose(0, 2, 1)):
        for down in (np.ones_like(sign), sign):
            for across in (np.ones_like(sign), sign):
                yield (turned * down[:, None] * across).reshape(vectors.shape)
