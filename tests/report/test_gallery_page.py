"""The page about a gallery."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from medcli.report.gallery_page import StoredPicture, gallery_page


@pytest.fixture
def info() -> dict[str, Any]:
    return {
        "path": "/galleries/ward-7",
        "scans": 3,
        "slices": 30,
        "vectors": 33,
        "dim": 192,
        "generation": 4,
        "created": "2026-11-27T03:00:00+00:00",
        "unlabelled": 1,
        "classes": {"benign": 2},
        "modalities": {"CT": 3},
        "unknown_patients": 0,
        "patients": 3,
        "bytes": 1234567,
    }


def samples(jpeg: bytes) -> dict[str | None, list[StoredPicture]]:
    return {
        "benign": [StoredPicture(7, "series-<7>", "CT", 10, "ab12cd34ef", jpeg)],
        None: [StoredPicture(9, "series-9", "CT", 10, None, None)],
    }


def test_it_tells_what_is_stored(
    info: dict[str, Any], jpeg: bytes, parse: Callable[[str], Any]
) -> None:
    page = parse(gallery_page(info, samples(jpeg), model=[("Task", "nodule")], notes=["amiss"]))
    for said in ("30 slices", "1.2 MB", "benign", "2, 67 %", "no label", "series-<7>", "amiss"):
        assert said in page.text, said
    assert page.external == []
    assert len(page.all("img")) == 1


def test_a_scan_without_thumbnail_has_a_placeholder(
    info: dict[str, Any], jpeg: bytes, parse: Callable[[str], Any]
) -> None:
    page = parse(gallery_page(info, samples(jpeg), model=[]))
    assert len(page.with_class("none")) == 1
    assert "no picture" in page.text


def test_paths_are_hidden(info: dict[str, Any], jpeg: bytes) -> None:
    assert "ward-7" in gallery_page(info, {}, model=[])
    assert "ward-7" not in gallery_page(info, {}, model=[], hide_paths=True)
