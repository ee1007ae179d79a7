"""Sites, scanners and the like: a column of the manifest, and what follows from it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from medcli.data.arrays import ScanArrays
from medcli.data.manifest import closest
from medcli.data.splits import PARTS, Split
from medcli.errors import ManifestError
from medcli.evaluation.metrics import UNKNOWN_SITE
from medcli.records import Case

SITE = "site"  # the column that numbers are given by where none is named


def check_domain(cases: Sequence[Case], column: str) -> str:
    """`column` as the manifest's header is kept.

    Raises
    ------
    ManifestError : no scan has a value there; the hint offers the nearest column
    """
    name = column.strip().lower()
    columns = sorted({key for case in cases for key in case.columns} - {"boxes"})
    if name not in columns:
        found = ", ".join(columns) or "none; a manifest has them, folders and archives do not"
        raise ManifestError(
            f"--domain {column!r}: no scan has a value in such a column",
            f"{closest(name, columns)}columns found: {found}",
        )
    return name


def domains_of(cases: Sequence[Case], column: str) -> list[str]:
    """What each case has in `column`; one name stands for those without a value."""
    return [case.columns.get(column, "").strip() or UNKNOWN_SITE for case in cases]


def sites_of(cases: Sequence[Case], column: str | None) -> list[str] | None:
    """Whose numbers are given apart: the domains, else the column `site`, else None."""
    sites = domains_of(cases, column or SITE)
    return sites if set(sites) != {UNKNOWN_SITE} else None


def with_domains(
    arrays: Mapping[str, ScanArrays], split: Split, column: str
) -> tuple[dict[str, ScanArrays], list[str]]:
    """The arrays with the domain of each scan, and warnings about domains that cannot help."""
    parts = {part: domains_of(getattr(split, part), column) for part in PARTS}
    names = sorted({name for part in PARTS for name in parts[part]})
    numbered = {
        part: replace(
            arrays[part], domains=np.array([names.index(n) for n in parts[part]], dtype=np.int64)
        )
        for part in PARTS
    }
    return numbered, _warnings(split.train, parts["train"], column)


def _warnings(cases: Sequence[Case], domains: Sequence[str], column: str) -> list[str]:
    """Where the training part has one domain, or a domain one class."""
    labels: defaultdict[str, set[str]] = defaultdict(set)
    for case, domain in zip(cases, domains, strict=True):
        labels[domain].add(str(case.label))
    if len(labels) == 1:
        return [f"every scan of the training part has {column} {domains[0]!r}: nothing to even out"]
    return [
        f"{column} {domain!r} has scans of class {next(iter(found))!r} only: there the network may "
        "learn the one from the other, and no weight can undo it"
        for domain, found in sorted(labels.items())
        if len(found) == 1
    ]
