"""Figures as parts of a page: the page's colours, text as text, nothing outside."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from medcli.report.figures import (
    Bar,
    Line,
    Point,
    bars_figure,
    curves_figure,
    histogram_figure,
    reliability_figure,
)

X = np.linspace(0, 1, 5)


def roc(name: str = "roc", label: str = "sick") -> str:
    band = np.stack([X**2, np.sqrt(X)])
    return curves_figure(
        name,
        [Line(label, X, X**0.8, X, band)],
        x_label="1 - specificity",
        y_label="sensitivity",
        diagonal=True,
        level=0.3,
        point=Point("at the threshold", 0.2, 0.4),
    )


BARS = [Bar("model", 0.9, [0.8, 0.95], True), Bar("x", 0.4)]
FIGURES = {
    "curves": roc,
    "reliability": lambda: reliability_figure("r", X, X, np.stack([X / 2, X])),
    "histogram": lambda: histogram_figure("h", [("a", X), ("b", X)], x_label="p", threshold=0.4),
    "bars": lambda: bars_figure(
        "b", [Bar("model", 0.9, [0.8, 0.95], True), Bar("x", 0.4)], x_label="a"
    ),
}


@pytest.mark.parametrize("kind", FIGURES)
def test_a_figure_asks_for_nothing_and_takes_the_pages_colours(
    kind: str, parse: Callable[[str], Any]
) -> None:
    svg = FIGURES[kind]()
    page = parse(svg)
    assert page.external == []
    assert "http" not in svg
    assert not re.findall(r"#[0-9a-f]{6}", svg)
    assert "var(--ink)" in svg
    assert page.tags[0][0] == "svg"


def test_text_stays_text_whatever_a_class_is_called(parse: Callable[[str], Any]) -> None:
    svg = roc(label="$a_b$ <script> & co")
    assert "$a_b$ <script> & co" in parse(svg).text
    assert "<script" not in svg


def test_ids_are_those_of_one_figure(parse: Callable[[str], Any]) -> None:
    both = roc("one") + roc("two")
    page = parse(both)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids)) > 0
    used = {str(attributes["href"])[1:] for attributes in page.all("use")}
    assert used <= set(ids)


def test_the_same_figure_is_the_same_text() -> None:
    assert roc() == roc()


def test_chance_stands_in_the_legend_and_scans_are_whole_numbers() -> None:
    assert roc().count(">chance<") == 2  # the diagonal and the level
    counts = histogram_figure("h", [("a", X), ("b", X[:1])], x_label="p")
    heights = [label for label in re.findall(r">([\d.]+)</text>", counts) if "." not in label]
    assert heights[:2] == ["0", "1"]
    assert all(re.fullmatch(r"\d\.\d", t) for t in re.findall(r">(\d\.\d+)</text>", counts))
