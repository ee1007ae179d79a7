"""Search results, pages to look into, and a headless Chromium to show them.

The browser is driven over its debugging pipe, without further packages: Chrome DevTools
Protocol, chromedevtools.github.io/devtools-protocol.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
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


NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--remote-debugging-pipe", "--disable-dev-shm-usage"),
)


class Browser:
    """One page at a time; what it complains of and asks for is kept."""

    def __init__(self, program: str, profile: Path) -> None:
        its_end, self._to = os.pipe()
        self._from, its_other = os.pipe()
        read, write = (fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (its_end, its_other))

        def place_pipes() -> None:
            os.dup2(read, 3)
            os.dup2(write, 4)

        self._process = subprocess.Popen(
            [program, *FLAGS, f"--user-data-dir={profile}"],
            preexec_fn=place_pipes,
            close_fds=False,
            stderr=subprocess.DEVNULL,
        )
        for end in (its_end, its_other, read, write):
            os.close(end)
        self._left = b""
        self._count = 0
        self._session: str | None = None
        self.errors: list[str] = []
        self.requests: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(20)
        os.close(self._to)
        os.close(self._from)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The result of a command; events that come meanwhile are noted."""
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._count:
                assert "error" not in answer, answer["error"]
                result: dict[str, Any] = answer["result"]
                return result
            self._note(answer)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._left:
            part = os.read(self._from, 1 << 16)
            assert part, "Chromium has ended"
            self._left += part
        message, _, self._left = self._left.partition(b"\0")
        answer: dict[str, Any] = json.loads(message)
        return answer

    def _note(self, event: dict[str, Any]) -> None:
        method, told = event.get("method"), event.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.errors.append(str(told["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and told["type"] in ("error", "warning"):
            self.errors.append(str(told["args"]))
        elif method == "Log.entryAdded" and told["entry"]["level"] in ("error", "warning"):
            self.errors.append(told["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            self.requests.append(told["request"]["url"])

    def open(self, page: Path) -> None:
        """Show a page and wait until its scripts are done."""
        self.errors.clear()
        self.requests.clear()
        self.call("Page.navigate", url=page.as_uri())
        self.run(
            "new Promise((done) => { const ask = () => document.readyState === 'complete' && "
            "(!document.querySelector('.viewer') || "
            "document.documentElement.dataset.viewers === 'ready') ? done() : "
            "setTimeout(ask, 20); ask(); })"
        )

    def run(self, expression: str) -> Any:
        """The value of an expression in the page."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def press(self, key: str, code: int) -> None:
        """A key of the keyboard, as a person presses it."""
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                code=key,
                windowsVirtualKeyCode=code,
            )


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip("no Chromium is installed: apt-get install chromium")
    opened = Browser(program, tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()
