"""Which index a gallery asks first: a setting, with what was measured when it was chosen."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

ApproximateKind = Literal["hnsw", "ivfpq"]
APPROXIMATE: tuple[ApproximateKind, ...] = ("hnsw", "ivfpq")

FEWEST: Mapping[ApproximateKind, int] = {"hnsw": 1_000, "ivfpq": 10_000}
"""Vectors below which an index is not built: 256 centroids of a code need 39 vectors each
(FAISS's own minimum), and a graph of a few hundred saves nothing."""

SETTING = "index"  # the key of `meta`


@dataclass(frozen=True, slots=True)
class Choice:
    """An approximate index, and the recall measured for it.

    Parameters
    ----------
    effort : how many candidates HNSW keeps (`efSearch`), or lists IVF visits (`nprobe`)
    recall : share of the `k` nearest scans of exact search that it found; the lowest of
        the levels it is used for
    queries, vectors : stored vectors it was measured with, and the vectors of the gallery then
    """

    kind: ApproximateKind
    effort: int
    recall: float
    k: int
    queries: int
    vectors: int

    @classmethod
    def of(cls, meta: Mapping[str, Any]) -> Self | None:
        """The choice among the settings of a gallery; None: exact search.

        Raises
        ------
        ValueError, TypeError : the setting is none of this version's
        """
        if SETTING not in meta:
            return None
        choice = cls(**json.loads(meta[SETTING]))
        if choice.kind not in APPROXIMATE:
            raise ValueError(f"no index is called {choice.kind}")
        return choice

    def setting(self) -> str:
        """The text that `of` reads."""
        return json.dumps(asdict(self))

    def serves(self, count: int) -> bool:
        """Whether a level of `count` vectors is searched by it."""
        return count >= FEWEST[self.kind]

    def told(self) -> str:
        """In words."""
        return (
            f"approximate search ({self.kind}): recall@{self.k} {self.recall:.3f} against exact "
            f"search, measured on {self.queries} stored vectors"
        )
