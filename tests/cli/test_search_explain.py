"""`medcli search --explain`, and `medcli classify --evidence --report`."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PICTURES = re.compile(r"data:image/jpeg;base64,([A-Za-z0-9+/=]+)")


@pytest.fixture
def gallery(medcli: Callable[..., Any], tiny_run: Path, sample_folder: Path) -> Path:
    """Of some stacks, made with a network that can be explained."""
    scans = sorted((sample_folder / "ct").iterdir())[:3]
    done = medcli("index", "build", *scans, "-m", tiny_run, "-g", "gallery")
    assert done.status == 0, done.err
    return Path("gallery")


def test_what_made_query_and_hit_alike_is_marked(
    medcli: Callable[..., Any], gallery: Path, sample_folder: Path
) -> None:
    query = sample_folder / "query.png"
    asked = ("search", query, "-g", gallery, "-k", "2", "--no-show")
    assert medcli(*asked, "--html", "plain.html").status == 0
    done = medcli(*asked, "--html", "alike.html", "--sheet", "alike.png", "--explain")
    assert done.status == 0, done.err
    plain, alike = (
        PICTURES.findall(Path(name).read_text(encoding="utf-8"))
        for name in ("plain.html", "alike.html")
    )
    assert len(plain) == len(alike) >= 3
    assert sum(one != other for one, other in zip(plain, alike, strict=True)) >= 3
    assert Path("alike.png").stat().st_size > 1000


def test_pictures_are_needed_to_mark_them(
    medcli: Callable[..., Any], gallery: Path, sample_folder: Path
) -> None:
    done = medcli("search", sample_folder / "query.png", "-g", gallery, "--explain")
    assert done.status == 2
    assert "--html" in done.err


def test_a_stored_scan_as_query_is_not_explained_and_that_is_said(
    medcli: Callable[..., Any], gallery: Path
) -> None:
    done = medcli("search", "1", "-g", gallery, "--html", "page.html", "--explain")
    assert done.status == 0, done.err
    assert "hits are not explained" in done.err


def test_evidence_stands_in_the_page_about_a_scan(
    medcli: Callable[..., Any], gallery: Path, sample_folder: Path
) -> None:
    query = sample_folder / "query.png"
    options = ("--evidence", "-g", gallery, "--report", "page.html")
    done = medcli("classify", query, *options)
    assert done.status == 0, done.err
    page = Path("page.html").read_text(encoding="utf-8")
    assert "Most similar stored scans" in page
    assert page.count('class="hit') >= 3
