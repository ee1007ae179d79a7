"""Search results and pages to look into."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from medcli.records import Hit, Prediction, SearchResult
from medcli.report.pictures import encode_jpeg

FINGERPRINT = "3f9ac1d0b7e2"
VOID = {"meta", "img", "link", "br", "input", "hr"}


@dataclass
class Page(HTMLParser):
    """A page as its tags, its text and what it would load; parsing checks the nesting."""

    html: str
    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    open_tags: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.html)
        self.close()
        assert self.open_tags == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open_tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open_tags.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open_tags and self.open_tags[-1] != "style":
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def with_class(self, name: str) -> list[dict[str, str | None]]:
        return [a for _, a in self.tags if name in (a.get("class") or "").split()]

    @property
    def external(self) -> list[str]:
        """Everything that would be asked of another place, and any script."""
        loading = ("src", "href", "srcset", "action", "data", "poster")
        links = [
            str(attributes[name])
            for _, attributes in self.tags
            for name in loading
            if name in attributes
        ]
        asked = [link for link in links if not link.startswith(("data:image/", "#"))]
        styled = re.findall(r"url\(|@import", self.html)
        handlers = [name for _, attributes in self.tags for name in attributes if name[:2] == "on"]
        return asked + styled + handlers + [tag for tag, _ in self.tags if tag == "script"]


@pytest.fixture
def parse() -> Callable[[str], Page]:
    return Page


@pytest.fixture
def jpeg() -> bytes:
    return encode_jpeg(np.arange(48 * 64, dtype=np.uint8).reshape(48, 64))


@pytest.fixture
def make_hit() -> Callable[..., Hit]:
    def make(rank: int = 1, **changes: Any) -> Hit:
        values: dict[str, Any] = {
            "rank": rank,
            "id": 100 + rank,
            "path": f"/archive/chest/scan{rank}.dcm",
            "score": 1 - rank / 100,
            "label": "pneumonia",
            "patient": f"ab12cd34ef{rank}",
            "modality": "CT",
            "slice": None,
            "file": None,
        }
        return Hit(**values | changes)

    return make


@pytest.fixture
def make_result(make_hit: Callable[..., Hit]) -> Callable[..., SearchResult]:
    def make(query: str = "/incoming/query.png", **changes: Any) -> SearchResult:
        hits = (make_hit(1), make_hit(2, label="normal"), make_hit(3, label=None))
        values: dict[str, Any] = {
            "hits": hits,
            "vote": {"pneumonia": 1 / 3, "normal": 1 / 3},
            "gallery": {"path": "/galleries/chest", "generation": 7, "fingerprint": FINGERPRINT},
        }
        return SearchResult(query, **values | changes)

    return make


@pytest.fixture
def prediction() -> Prediction:
    return Prediction(
        path="/incoming/query.png",
        scan_id="query",
        files=("/incoming/query.png",),
        task="lung",
        label="pneumonia",
        probability=0.934,
        probabilities={"normal": 0.066, "pneumonia": 0.934},
        positive="pneumonia",
        model=FINGERPRINT,
        synthetic=False,
        uncertain=True,
    )
