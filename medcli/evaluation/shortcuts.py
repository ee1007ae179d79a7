"""What the neighbours of a query share with it, beside its label: scanner, site, size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Facts = Mapping[str, str | None]
"""Property → value; None where it is unknown."""


@dataclass(frozen=True, slots=True)
class Known:
    """A scan with what is known of it; patients are compared for equality only."""

    facts: Facts
    patient: str | None = None


def shortcuts(
    queries: Sequence[Known],
    hits: Sequence[Sequence[Known]],
    gallery: Sequence[Known],
    names: Sequence[str],
) -> dict[str, dict[str, Any]]:
    """How often hits have the value of their query, against scans of other patients at large.

    Parameters
    ----------
    hits : of each query
    names : the properties; "label" parts right from wrong hits

    Returns
    -------
    For each property with two values or more in the gallery: `share` of the hits, `chance`
    (the mean, over queries, of the share of all scans of other patients), `lift`
    ((share - chance) / (1 - chance): 0 as by chance, 1 always), `share_of_wrong` (of the hits
    with another label; None without any), `values` and `hits` counted. What is unknown on
    either side is not counted.
    """
    found = {}
    for name in names:
        values = {each.facts.get(name) for each in gallery} - {None}
        if len(values) > 1 and (row := _property(queries, hits, gallery, name)):
            found[name] = {**row, "values": len(values)}
    return found


def _property(
    queries: Sequence[Known], hits: Sequence[Sequence[Known]], gallery: Sequence[Known], name: str
) -> dict[str, Any] | None:
    total = Counter(each.facts.get(name) for each in gallery)
    del total[None]
    own: dict[str, Counter[str | None]] = {}
    for each in gallery:
        if each.patient is not None:
            own.setdefault(each.patient, Counter())[each.facts.get(name)] += 1
    same, wrong, expected = [], [], []
    for query, answers in zip(queries, hits, strict=True):
        value = query.facts.get(name)
        if value is None:
            continue
        others = total - own.get(query.patient or "", Counter())
        if others.total():
            expected.append(others[value] / others.total())
        for hit in answers:
            if hit.facts.get(name) is None:
                continue
            same.append(hit.facts[name] == value)
            if hit.facts.get("label") != query.facts.get("label"):
                wrong.append(same[-1])
    if not same or not expected:
        return None
    share, chance = float(np.mean(same)), float(np.mean(expected))
    return {
        "share": share,
        "chance": chance,
        "lift": None if chance >= 1 else (share - chance) / (1 - chance),
        "share_of_wrong": float(np.mean(wrong)) if wrong else None,
        "hits": len(same),
    }


def third(value: float | None, bounds: Sequence[float]) -> str | None:
    """Which third of a distribution a value lies in, by its two bounds."""
    if value is None:
        return None
    return ("small", "middle", "large")[int(np.searchsorted(bounds, value, side="right"))]
