"""Patients and pictures that stand in several places: parts of a split, classes, files.

Arrays and keys go in, positions come out, so that training, `data check`, `data split`,
`data audit` and a gallery can ask the same code.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from medcli.data.likeness import NEVER, Look, Looks, Pairs, near_copies

Group = tuple[int, ...]  # positions of scans that belong together


@dataclass(frozen=True, slots=True)
class Copies:
    """Scans that are one picture.

    Attributes
    ----------
    identical : groups of positions with the same pixels
    near : pairs that look alike and are not identical, with the cosine of their looks
    """

    identical: tuple[Group, ...]
    near: Pairs

    @property
    def links(self) -> list[tuple[int, int]]:
        """Pairs that, followed on, lead from each copy to every other."""
        return [*chained(self.identical), *self.near]

    def across(self, values: Sequence[Hashable | None]) -> Copies:
        """Those that have two or more `values`; None is no value."""
        keep = [bool(torn([pair], values)) for pair in self.near]
        near = Pairs(self.near.places[keep], self.near.scores[keep])
        return Copies(tuple(torn(self.identical, values)), near)

    @property
    def groups(self) -> list[Group]:
        """Groups first, then pairs."""
        return [*self.identical, *self.near]


def find_copies(
    pixel_hashes: Sequence[str | None], looks: Sequence[Look], slack: float = 1.0
) -> Copies:
    """Scans with the same pixels, and pairs of others that look alike.

    An even picture is like any other and a copy of none.

    Parameters
    ----------
    pixel_hashes : one a scan, None where it is not known
    looks : one a scan, as from `medcli.data.likeness.look_of`
    slack : as for `near_copies`
    """
    structured = [look.limit < NEVER for look in looks]
    identical = alike(
        [key if shows else None for key, shows in zip(pixel_hashes, structured, strict=True)]
    )
    near = near_copies(Looks.of(looks), slack)
    other = [pixel_hashes[first] != pixel_hashes[second] for first, second in near]
    return Copies(tuple(identical), Pairs(near.places[other], near.scores[other]))


def alike(keys: Sequence[Hashable | None]) -> list[Group]:
    """Positions that have one key in common, two or more together; None is like no other."""
    places: defaultdict[Hashable, list[int]] = defaultdict(list)
    for place, key in enumerate(keys):
        if key is not None:
            places[key].append(place)
    return [tuple(group) for group in places.values() if len(group) > 1]


def torn(groups: Iterable[Group], values: Sequence[Hashable | None]) -> list[Group]:
    """The groups of positions that have two or more `values`; None is no value."""
    return [
        group
        for group in groups
        if len({values[place] for place in group if values[place] is not None}) > 1
    ]


def chained(groups: Iterable[Group]) -> list[tuple[int, int]]:
    """Each group as links from one member to the next."""
    return [pair for group in groups for pair in pairwise(group)]


def united(count: int, links: Iterable[tuple[int, int]]) -> np.ndarray:
    """(N,) the first position of the group that each of `count` positions is linked into."""
    first = np.arange(count)

    def root(place: int) -> int:
        while first[place] != place:
            first[place] = first[first[place]]
            place = int(first[place])
        return place

    for one, other in links:
        low, high = sorted((root(one), root(other)))
        first[high] = low
    return np.array([root(place) for place in range(count)], dtype=np.int64)
