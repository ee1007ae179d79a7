"""Labels that name several findings of one scan, as in ``effusion|edema``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from medcli.errors import ManifestError

if TYPE_CHECKING:
    import numpy as np

SEPARATOR = "|"
NONE = "none"
_NOTHING = frozenset({NONE, "no finding"})


def names_several(labels: Iterable[str | None]) -> bool:
    """Whether a label names several findings; then all labels of the set are read so."""
    return any(SEPARATOR in label for label in labels if label is not None)


def findings_of(label: str) -> tuple[str, ...]:
    """The findings that a label names, each once; none for "none" and "No Finding"."""
    names = (name.strip() for name in label.split(SEPARATOR))
    return tuple(dict.fromkeys(n for n in names if n and n.casefold() not in _NOTHING))


def join_findings(names: Iterable[str]) -> str:
    """The label that names these findings."""
    return SEPARATOR.join(names) or NONE


def finding_names(labels: Iterable[str]) -> tuple[str, ...]:
    """Every finding that one of the labels names, sorted.

    Raises
    ------
    ManifestError : two differ in case only
    """
    names = sorted({name for label in labels for name in findings_of(label)})
    spelt: dict[str, str] = {}
    for name in names:
        other = spelt.setdefault(name.casefold(), name)
        if other != name:
            raise ManifestError(
                f"findings differ only in case: {other!r}, {name!r}", "write each in one way"
            )
    return tuple(names)


def indicator(labels: Sequence[str], names: Sequence[str]) -> np.ndarray:
    """(N, F) uint8: 1 where a label names a finding."""
    import numpy as np

    held = [set(findings_of(label)) for label in labels]
    rows = [[name in each for name in names] for each in held]
    return np.array(rows, dtype=np.uint8).reshape(len(labels), len(names))
