"""The page the demo ends with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from medcli.records import SearchResult
from medcli.report.cards import percent
from medcli.report.demo_page import demo_page, duration


def page_of(results: list[SearchResult], **changes: Any) -> str:
    values: dict[str, Any] = {
        "pictures": {},
        "model": {"task": "nodule"},
        "split": {
            "train": {"patients": 30, "scans": 75},
            "val": {"patients": 6, "scans": 14},
            "test": {"patients": 7, "scans": 16},
        },
        "metrics": {
            "auroc": 0.9423,
            "auroc_ci": [0.881, 0.987],
            "accuracy": 0.905,
            "accuracy_ci": [0.85, 0.95],
        },
        "timings": {"train": 71.44, "index": 3.9},
        "next_steps": [("medcli classify scan.dcm", "Classify a scan")],
    }
    return demo_page(results, **values | changes)


def test_the_summary_states_data_numbers_and_times(
    parse: Callable, make_result: Callable[..., SearchResult]
) -> None:
    page = parse(page_of([make_result(), make_result("/incoming/second.png")]))
    for stated in (
        "synthetic data",
        "Test AUROC 0.942 95 % CI 0.881–0.987",
        "Test accuracy 0.905 95 % CI 0.850–0.950",
        "Patients 43 105 scans",
        "train 30 75 val 6 14 test 7 16 all 43 105",
        "train 1 min 11 s index 3.9 s all 1 min 15 s",
        "Classify a scan medcli classify scan.dcm",
        "Research use, not a medical device.",
    ):
        assert stated in page.text
    assert len(page.with_class("query")) == 2


def test_it_loads_nothing_from_elsewhere(
    parse: Callable, make_result: Callable[..., SearchResult], jpeg: bytes
) -> None:
    page = parse(page_of([make_result()], pictures={"/incoming/query.png": jpeg}))
    assert page.external == []
    assert len(page.all("img")) == 1


def test_undefined_numbers_are_dashes(
    parse: Callable, make_result: Callable[..., SearchResult]
) -> None:
    metrics = {"auroc": None, "auroc_ci": None, "accuracy": 1.0, "accuracy_ci": None}
    page = parse(page_of([make_result()], metrics=metrics))
    assert "Test AUROC – no interval" in page.text
    assert "Test accuracy 1.000 no interval" in page.text


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.04, "0.0 s"), (59.94, "59.9 s"), (59.96, "1 min 0 s"), (102.4, "1 min 42 s")],
)
def test_durations_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("share", "words"),
    [(0, "0 %"), (0.001, "< 1 %"), (0.934, "93 %"), (0.996, "> 99 %"), (1, "100 %")],
)
def test_shares_are_never_rounded_to_none_or_all(share: float, words: str) -> None:
    assert percent(share) == words
