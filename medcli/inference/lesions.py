"""Boxes of neighbouring slices → lesions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from medcli.evaluation.overlap import box_iou
from medcli.records import FoundBox, Lesion

OVERLAP = 0.2  # of two boxes in slices next to each other that are one lesion
REACH = 2  # slices from one box of a lesion to the next: one may be missed


def join_slices(boxes: Sequence[FoundBox]) -> tuple[tuple[FoundBox, ...], tuple[Lesion, ...]]:
    """Boxes of all slices of a scan → the same, best first, and the lesions they make.

    A box continues the lesion of its label whose last box, at most `REACH` slices before,
    overlaps it most; of two boxes that want the same lesion the one that overlaps more has it.
    """
    by_slice: defaultdict[int, list[int]] = defaultdict(list)
    for place, box in enumerate(boxes):
        by_slice[box.slice].append(place)
    chains: list[list[int]] = []
    for number in sorted(by_slice):
        _continue(chains, by_slice[number], boxes)
    chains.sort(key=lambda chain: -max(boxes[place].score for place in chain))
    lesion_of = {place: number for number, chain in enumerate(chains) for place in chain}
    marked = [replace(box, lesion=lesion_of[place]) for place, box in enumerate(boxes)]
    marked.sort(key=lambda box: (-box.score, box.slice))
    return tuple(marked), tuple(_lesion([boxes[place] for place in chain]) for chain in chains)


def _continue(chains: list[list[int]], places: Sequence[int], boxes: Sequence[FoundBox]) -> None:
    """Give each box of a slice to the lesion that it continues, else to a new one."""
    last = [boxes[chain[-1]] for chain in chains]
    own = [boxes[place] for place in places]
    pairs = []
    if last:
        shares = box_iou(_corners(own), _corners(last))
        for i, box in enumerate(own):
            for j, before in enumerate(last):
                near = 0 < box.slice - before.slice <= REACH and box.label == before.label
                if near and shares[i, j] >= OVERLAP:
                    pairs.append((-shares[i, j], i, j))
    taken: dict[int, int] = {}
    for _, i, j in sorted(pairs):
        if i not in taken and j not in taken.values():
            taken[i] = j
    for i, place in enumerate(places):
        if i in taken:
            chains[taken[i]].append(place)
        else:
            chains.append([place])


def _corners(boxes: Sequence[FoundBox]) -> np.ndarray:
    return np.array([(box.x0, box.y0, box.x1, box.y1) for box in boxes])


def _lesion(boxes: Sequence[FoundBox]) -> Lesion:
    slices = [box.slice for box in boxes]
    score = max(box.score for box in boxes)
    return Lesion(boxes[0].label, score, min(slices), max(slices), len(boxes))
